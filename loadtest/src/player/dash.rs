//! MPEG-DASH to tracks, through dash-mpd-core: segment templates with a timeline, and whole
//! files named by a BaseURL.

use super::fetch::{Fleet, Loaded};
use super::timeline::{Kind, SEGMENTS_MAX, Track};
use crate::Error;
use dash_mpd_core::{AdaptationSet, BaseURL, Representation, SegmentTemplate};
use std::time::Duration;

/// Loads the MPD.
pub(super) async fn load(fleet: &mut Fleet) -> Result<Vec<Track>, Error> {
    let loaded = fleet.manifest().await?;
    let text = str::from_utf8(&loaded.body).map_err(|_| loaded.bad("not UTF-8"))?;
    let mpd = dash_mpd_core::parse(text).map_err(|error| loaded.bad(&error.to_string()))?;
    let [period] = mpd.periods.as_slice() else {
        return Err(loaded.bad("expected one period"));
    };
    let base = loaded.below(&mpd.base_url)?.below(&period.BaseURL)?;
    let mut tracks = Vec::new();
    for set in &period.adaptations {
        let base = base.below(&set.BaseURL)?;
        let kind = kind(set).ok_or_else(|| loaded.bad("an adaptation set of no known kind"))?;
        for representation in &set.representations {
            let base = base.below(&representation.BaseURL)?;
            let template = representation.SegmentTemplate.as_ref().or(set.SegmentTemplate.as_ref());
            tracks.push(match template {
                Some(template) => templated(kind, template, representation, &base)?,
                None if representation.BaseURL.is_empty() => {
                    return Err(loaded.bad("a representation without segments"));
                }
                None => {
                    Track { kind, init: None, segments: vec![(Duration::ZERO, base.resolve("")?)] }
                }
            });
        }
    }
    if tracks.is_empty() {
        return Err(loaded.bad("it has no representation"));
    }
    Ok(tracks)
}

fn kind(set: &AdaptationSet) -> Option<Kind> {
    let named = set.contentType.as_deref().or(set.mimeType.as_deref())?;
    match named.split('/').next()? {
        "video" => Some(Kind::Video),
        "audio" => Some(Kind::Audio),
        "text" => Some(Kind::Text),
        _ => None,
    }
}

fn templated(
    kind: Kind,
    template: &SegmentTemplate,
    representation: &Representation,
    base: &Loaded,
) -> Result<Track, Error> {
    let missing = |what: &str| base.bad(&format!("a segment template without {what}"));
    let media = template.media.as_deref().ok_or_else(|| missing("media"))?;
    let timeline = template.SegmentTimeline.as_ref().ok_or_else(|| missing("a timeline"))?;
    let id = representation.id.as_deref().unwrap_or_default();
    let bandwidth = representation.bandwidth.unwrap_or(0);
    let scale = template.timescale.unwrap_or(1).max(1);
    let offset = template.presentationTimeOffset.unwrap_or(0);
    let name = |pattern: &str, number: u64, time: u64| {
        let path = pattern
            .replace("$RepresentationID$", id)
            .replace("$Bandwidth$", &bandwidth.to_string())
            .replace("$Number$", &number.to_string())
            .replace("$Time$", &time.to_string());
        base.resolve(&path)
    };
    let init = template.initialization.as_deref().map(|init| name(init, 0, 0)).transpose()?;
    let mut segments = Vec::new();
    let (mut number, mut time) = (template.startNumber.unwrap_or(1), 0u64);
    for run in &timeline.segments {
        time = run.t.unwrap_or(time);
        let repeats = u64::try_from(run.r.unwrap_or(0))
            .map_err(|_| base.bad("an open-ended run of segments"))?;
        for _ in 0..=repeats {
            if segments.len() == SEGMENTS_MAX {
                return Err(base.bad("too many segments"));
            }
            #[allow(clippy::cast_precision_loss, reason = "only orders what is loaded")]
            let at = time.saturating_sub(offset) as f64 / scale as f64;
            let at = Duration::try_from_secs_f64(at).unwrap_or(Duration::MAX);
            segments.push((at, name(media, number, time)?));
            number += 1;
            time = time.saturating_add(run.d);
        }
    }
    Ok(Track { kind, init, segments })
}

impl Loaded {
    /// The same manifest, seen from the first of these BaseURLs.
    fn below(&self, base: &[BaseURL]) -> Result<Self, Error> {
        match base.first() {
            Some(base) => self.at(&base.base),
            None => Ok(self.clone()),
        }
    }
}
