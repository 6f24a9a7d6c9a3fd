//! From sources to the tracks of a title: which are kept, what they are called, where they are
//! cut.

use super::clip::{self, Clip};
use super::cut::{self, Rendition};
use super::names::{self, Ids};
use super::{Body, Error, Params, Skipped, Source, TrackPlan, layout, time};
use crate::mp4::entry::Media;
use crate::mp4::{Fault, movie};
use crate::vtt;
use model::ByteRange;
use model::index::{Facts, Kind};

/// Lays out all tracks of all sources.
pub(super) fn plan(
    sources: &[Source],
    params: Params,
) -> Result<(Vec<TrackPlan>, Vec<Skipped>), Error> {
    let (mut video, mut audio, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    let mut skipped = Vec::new();
    for (n, source) in sources.iter().enumerate() {
        let named = |fault: Fault| fault.of_file(&source.name);
        if source.name.to_ascii_lowercase().ends_with(".vtt") {
            texts.push((source.name.as_str(), vtt::read(&source.name, &*source.data)?));
            continue;
        }
        let found = movie::read(&*source.data).map_err(named)?;
        for (track, why) in found.left_out {
            skipped.push(Skipped { source: source.name.clone(), track, why });
        }
        for clip in clip::resolve(n, found.tracks).map_err(named)? {
            if clip.entry.is_video() { video.push(clip) } else { audio.push(clip) }
        }
    }
    if video.is_empty() {
        let files = sources.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(Error::NoVideo { files });
    }
    drop_copies(sources, &mut audio, &mut skipped);
    let mut tracks = media(sources, video, audio, params)?;
    let mut ids = Ids::default();
    for plan in &mut tracks {
        plan.facts.id = ids.give(plan.facts.id.as_str(), &plan.source)?;
    }
    for (name, document) in texts {
        tracks.push(text(name, document, &mut ids)?);
    }
    Ok((tracks, skipped))
}

/// Cuts and lays out video, then audio. Ids are those wished for, not yet unique.
fn media(
    sources: &[Source],
    video: Vec<Clip>,
    audio: Vec<Clip>,
    params: Params,
) -> Result<Vec<TrackPlan>, Error> {
    let file = |clip: &Clip| sources[clip.source].name.clone();
    let renditions: Vec<_> = video
        .iter()
        .map(|clip| {
            let durations = clip.samples.iter().map(|sample| sample.duration);
            let frame_rate = time::frame_rate(durations, clip.timescale);
            let name = format!("{} (track {})", file(clip), clip.number);
            Rendition { clip, name, frame_rate }
        })
        .collect();
    let cuts = cut::plan(&renditions, params.segment_target_ms)?;
    let rates: Vec<_> = renditions.iter().map(|rendition| rendition.frame_rate).collect();
    let heard: Vec<_> =
        audio.iter().map(|clip| cut::audio(clip, &cuts, params.segment_target_ms)).collect();
    let starts = cuts.starts.into_iter().chain(heard);
    let rates = rates.into_iter().chain(std::iter::repeat((1, 1)));
    let mut tracks = Vec::new();
    for ((clip, starts), rate) in video.into_iter().chain(audio).zip(starts).zip(rates) {
        let source = file(&clip);
        let wanted = Ids::default().give(&wanted_id(&clip), &source)?;
        let (facts, segments, layout) = layout::track(wanted, &source, clip, starts, rate)?;
        tracks.push(TrackPlan { facts, segments, source, body: Body::Media(layout) });
    }
    Ok(tracks)
}

fn wanted_id(clip: &Clip) -> String {
    match (clip.entry.media, &clip.language) {
        (Media::Video { height, .. }, _) => format!("v{height}"),
        (Media::Audio { .. }, Some(language)) => format!("a-{language}"),
        (Media::Audio { .. }, None) => "a1".to_owned(),
    }
}

/// Leaves out audio that is the same stream again: every file of a ladder often brings it.
fn drop_copies(sources: &[Source], audio: &mut Vec<Clip>, skipped: &mut Vec<Skipped>) {
    let mut kept: Vec<Clip> = Vec::new();
    for clip in audio.drain(..) {
        match kept.iter().find(|known| same_stream(known, &clip)) {
            None => kept.push(clip),
            Some(known) => skipped.push(Skipped {
                source: sources[clip.source].name.clone(),
                track: clip.number,
                why: format!(
                    "the same audio as track {} of {}",
                    known.number, sources[known.source].name
                ),
            }),
        }
    }
    *audio = kept;
}

fn same_stream(a: &Clip, b: &Clip) -> bool {
    let sizes = |clip: &Clip| clip.samples.iter().map(|s| s.bytes).collect::<Vec<_>>();
    a.entry.media == b.entry.media
        && a.entry.codec == b.entry.codec
        && a.language == b.language
        && a.label == b.label
        && a.samples.len() == b.samples.len()
        && sizes(a) == sizes(b)
}

fn text(name: &str, document: vtt::Document, ids: &mut Ids) -> Result<TrackPlan, Error> {
    let (language, label) = names::of_side_file(name);
    let wanted = language.as_ref().map_or("s1".to_owned(), |language| format!("s-{language}"));
    let body = document.render();
    let none = ByteRange::default();
    let facts = Facts {
        id: ids.give(&wanted, name)?,
        kind: Kind::Text,
        codec: "wvtt".to_owned(),
        language,
        label,
        timescale: 1000,
        file_bytes: body.len() as u64,
        init: none,
        sidx: none,
        media_start: 0,
        first_decode_time: 0,
        presentation_offset: 0,
        duration: document.end_ms(),
    };
    Ok(TrackPlan { facts, segments: Vec::new(), source: name.to_owned(), body: Body::Text(body) })
}
