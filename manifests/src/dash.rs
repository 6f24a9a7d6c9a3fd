//! MPEG-DASH: the MPD of a title (ISO/IEC 23009-1, profiles `isoff-live` and `cmaf`). Elements
//! stand in the order of its schema. The same index always gives the same bytes.

use model::TitleIndex;
use model::index::{Kind, Segment, Track, VideoRange};
use std::fmt::Write;

const PROFILES: &str = "urn:mpeg:dash:profile:isoff-live:2011,urn:mpeg:dash:profile:cmaf:2019";

/// The MPD `dash.mpd`: one static period.
#[must_use]
pub fn mpd(index: &TitleIndex) -> String {
    let duration = seconds(index.duration_ms());
    let buffer = seconds(u64::from(index.segment_target_ms).max(1));
    let mut out = String::with_capacity(4096 + index.tracks.len() * 512);
    // Steering stands in a service description (where dash.js looks too) and not beside it:
    // Shaka 5.2 reads it only beside it, and then fails on a host clone of a relative BaseURL.
    let _ = write!(
        out,
        r#"<?xml version="1.0" encoding="UTF-8"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="{PROFILES}" type="static" mediaPresentationDuration="{duration}" minBufferTime="{buffer}" maxSegmentDuration="{}">
<BaseURL serviceLocation=".">./</BaseURL>
<ServiceDescription id="0">
<ContentSteering defaultServiceLocation="." queryBeforeStart="false">steering.json</ContentSteering>
</ServiceDescription>
<Period id="0" start="PT0S" duration="{duration}">
"#,
        seconds(longest_segment_ms(index))
    );
    let mut id = 0;
    for tracks in sets(index.video(), video_alike) {
        video_set(&mut out, id, &tracks);
        id += 1;
    }
    let first_audio = id;
    for tracks in sets(index.audio(), audio_alike) {
        audio_set(&mut out, id, &tracks, id == first_audio);
        id += 1;
    }
    for track in index.text() {
        text_set(&mut out, id, track);
        id += 1;
    }
    out.push_str("</Period>\n</MPD>\n");
    out
}

/// Groups tracks that a player may switch between, in the order of their first.
fn sets<'a>(
    tracks: impl Iterator<Item = &'a Track>,
    alike: fn(&Track, &Track) -> bool,
) -> Vec<Vec<&'a Track>> {
    let mut sets: Vec<Vec<&Track>> = Vec::new();
    for track in tracks {
        match sets.iter_mut().find(|set| alike(set[0], track)) {
            Some(set) => set.push(track),
            None => sets.push(vec![track]),
        }
    }
    sets
}

/// The sample entry: the codec string up to its first dot.
fn family(track: &Track) -> &str {
    track.facts.codec.split('.').next().unwrap_or_default()
}

fn range(track: &Track) -> VideoRange {
    match track.facts.kind {
        Kind::Video { range, .. } => range,
        _ => VideoRange::Sdr,
    }
}

fn channels(track: &Track) -> u16 {
    match track.facts.kind {
        Kind::Audio { channels, .. } => channels,
        _ => 0,
    }
}

fn video_alike(a: &Track, b: &Track) -> bool {
    family(a) == family(b)
        && range(a) == range(b)
        && a.facts.language == b.facts.language
        && aligned(a, b)
}

/// Whether segments begin at the same times, whatever the timescales: only then may a player
/// switch at each of them.
fn aligned(a: &Track, b: &Track) -> bool {
    let starts = |track: &Track, scale: u32| -> Vec<i128> {
        let offset = i128::from(track.facts.presentation_offset);
        let at = |segment: &Segment| (i128::from(segment.start) - offset) * i128::from(scale);
        track.segments.iter().map(at).collect()
    };
    starts(a, b.facts.timescale) == starts(b, a.facts.timescale)
}

fn audio_alike(a: &Track, b: &Track) -> bool {
    a.facts.codec == b.facts.codec
        && a.facts.language == b.facts.language
        && a.facts.label == b.facts.label
        && channels(a) == channels(b)
}

fn video_set(out: &mut String, id: usize, tracks: &[&Track]) {
    let size = |track: &&Track| match track.facts.kind {
        Kind::Video { width, height, .. } => (width, height),
        _ => (0, 0),
    };
    let width = tracks.iter().map(|track| size(track).0).max().unwrap_or(0);
    let height = tracks.iter().map(|track| size(track).1).max().unwrap_or(0);
    open_set(out, id, "video", "video/mp4", tracks[0]);
    let _ = writeln!(
        out,
        " maxWidth=\"{width}\" maxHeight=\"{height}\" segmentAlignment=\"true\" startWithSAP=\"1\">"
    );
    // CICP code points (ISO/IEC 23091-2): BT.2020 primaries and matrix, PQ or HLG transfer.
    let transfer = match range(tracks[0]) {
        VideoRange::Sdr => None,
        VideoRange::Pq => Some(16),
        VideoRange::Hlg => Some(18),
    };
    if let Some(transfer) = transfer {
        let points = [
            ("ColourPrimaries", 9),
            ("MatrixCoefficients", 9),
            ("TransferCharacteristics", transfer),
        ];
        for (what, value) in points {
            let _ = writeln!(
                out,
                "<SupplementalProperty schemeIdUri=\"urn:mpeg:mpegB:cicp:{what}\" value=\"{value}\"/>"
            );
        }
    }
    label(out, tracks[0]);
    role(out, "main");
    representations(out, tracks, |out, track| {
        if let Kind::Video { width, height, frame_rate: (frames, seconds), .. } = track.facts.kind {
            let _ = write!(out, " width=\"{width}\" height=\"{height}\"");
            if frames > 0 && seconds > 0 {
                let _ = write!(out, " frameRate=\"{frames}");
                if seconds != 1 {
                    let _ = write!(out, "/{seconds}");
                }
                out.push('"');
            }
        }
    });
}

fn audio_set(out: &mut String, id: usize, tracks: &[&Track], first: bool) {
    open_set(out, id, "audio", "audio/mp4", tracks[0]);
    out.push_str(" segmentAlignment=\"true\" startWithSAP=\"1\">\n");
    // ChannelConfiguration of ISO/IEC 23091-3: the number of channels up to six.
    let layout = match channels(tracks[0]) {
        7 => 11,
        8 => 12,
        channels => channels,
    };
    let _ = writeln!(
        out,
        "<AudioChannelConfiguration \
         schemeIdUri=\"urn:mpeg:mpegB:cicp:ChannelConfiguration\" value=\"{layout}\"/>"
    );
    label(out, tracks[0]);
    role(out, if first { "main" } else { "alternate" });
    representations(out, tracks, |out, track| {
        if let Kind::Audio { sample_rate, .. } = track.facts.kind {
            let _ = write!(out, " audioSamplingRate=\"{sample_rate}\"");
        }
    });
}

/// A text track is one WebVTT document, named whole.
fn text_set(out: &mut String, id: usize, track: &Track) {
    let facts = &track.facts;
    open_set(out, id, "text", "text/vtt", track);
    out.push_str(">\n");
    label(out, track);
    role(out, "subtitle");
    let bits = u128::from(facts.file_bytes) * 8 * u128::from(facts.timescale);
    let bandwidth = bits.div_ceil(u128::from(facts.duration.max(1))).max(1);
    let _ = write!(
        out,
        "<Representation id=\"{0}\" bandwidth=\"{bandwidth}\">\n<BaseURL>{0}.vtt</BaseURL>\n\
         </Representation>\n</AdaptationSet>\n",
        facts.id
    );
}

fn open_set(out: &mut String, id: usize, kind: &str, mime: &str, track: &Track) {
    let _ = write!(out, "<AdaptationSet id=\"{id}\" contentType=\"{kind}\" mimeType=\"{mime}\"");
    if let Some(language) = &track.facts.language {
        let _ = write!(out, " lang=\"{}\"", escaped(language));
    }
}

fn label(out: &mut String, track: &Track) {
    if let Some(label) = &track.facts.label {
        let _ = writeln!(out, "<Label>{}</Label>", escaped(label));
    }
}

fn role(out: &mut String, value: &str) {
    let _ = writeln!(out, "<Role schemeIdUri=\"urn:mpeg:dash:role:2011\" value=\"{value}\"/>");
}

/// The representations of a set, and the segment template: once, if they all share it.
fn representations(out: &mut String, tracks: &[&Track], facts: fn(&mut String, &Track)) {
    let shared = tracks.iter().all(|track| same_timeline(tracks[0], track));
    if shared {
        template(out, tracks[0]);
    }
    for track in tracks {
        let _ = write!(
            out,
            "<Representation id=\"{}\" bandwidth=\"{}\" codecs=\"{}\"",
            track.facts.id,
            track.peak_bandwidth().max(1),
            escaped(&track.facts.codec)
        );
        facts(out, track);
        if shared {
            out.push_str("/>\n");
        } else {
            out.push_str(">\n");
            template(out, track);
            out.push_str("</Representation>\n");
        }
    }
    out.push_str("</AdaptationSet>\n");
}

fn same_timeline(a: &Track, b: &Track) -> bool {
    a.facts.timescale == b.facts.timescale
        && a.facts.presentation_offset == b.facts.presentation_offset
        && a.segments.len() == b.segments.len()
        && a.segments
            .iter()
            .zip(&b.segments)
            .all(|(a, b)| a.start == b.start && a.duration == b.duration)
}

/// Numbers address segments, a timeline in exact ticks times them; runs of equal durations are
/// one element. Times are those after the init segment's edit list, and there is no
/// `presentationTimeOffset`: players apply the list as well and would subtract priming twice.
fn template(out: &mut String, track: &Track) {
    let facts = &track.facts;
    let _ = write!(
        out,
        "<SegmentTemplate timescale=\"{}\" startNumber=\"0\" \
         initialization=\"$RepresentationID$/init.mp4\" media=\"$RepresentationID$/$Number$.m4s\">\n\
         <SegmentTimeline>\n",
        facts.timescale
    );
    let presented: Vec<(u64, u64)> = track.presented().collect();
    let mut next = None;
    for run in presented.chunk_by(|a, b| a.1 == b.1 && b.0 == a.0 + a.1) {
        let (start, duration) = run[0];
        out.push_str("<S");
        if next != Some(start) {
            let _ = write!(out, " t=\"{start}\"");
        }
        let _ = write!(out, " d=\"{duration}\"");
        if run.len() > 1 {
            let _ = write!(out, " r=\"{}\"", run.len() - 1);
        }
        out.push_str("/>\n");
        next = Some(start + duration * run.len() as u64);
    }
    out.push_str("</SegmentTimeline>\n</SegmentTemplate>\n");
}

/// The longest segment of all tracks in milliseconds, rounded up.
fn longest_segment_ms(index: &TitleIndex) -> u64 {
    let longest = |track: &Track| {
        let ticks = track.segments.iter().map(|segment| segment.duration).max().unwrap_or(0);
        let scale = u128::from(track.facts.timescale.max(1));
        u64::try_from((u128::from(ticks) * 1000).div_ceil(scale)).unwrap_or(u64::MAX)
    };
    index.tracks.iter().map(longest).max().unwrap_or(0)
}

/// An `xs:duration`.
fn seconds(ms: u64) -> String {
    match (ms / 1000, ms % 1000) {
        (whole, 0) => format!("PT{whole}S"),
        (whole, part) => format!("PT{whole}.{part:03}S"),
    }
}

/// Text for an attribute or an element; characters that XML 1.0 can't hold become spaces.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
