//! HLS: the playlists of a title (draft-pantos-hls-rfc8216bis-20). The same index always gives
//! the same bytes; nothing in them is personal and every URI is relative.

use model::TitleIndex;
use model::index::{Kind, Track, VideoRange};
use std::borrow::Cow;
use std::fmt::Write;

const MICROS: u128 = 1_000_000;

/// The multivariant playlist `hls.m3u8`: one variant a video rendition and audio codec.
#[must_use]
pub fn multivariant(index: &TitleIndex) -> String {
    let groups = audio_groups(index);
    let has_text = index.text().next().is_some();
    let has_video = index.video().next().is_some();
    let mut out = String::with_capacity(1024 + index.tracks.len() * 384);
    // Groups alone would do with version 1; RFC 8216 section 7 suggests 4, since clients older
    // than that would play a variant without its audio.
    let version = if groups.is_empty() && !has_text { 1 } else { 4 };
    let _ = write!(
        out,
        "#EXTM3U\n#EXT-X-VERSION:{version}\n#EXT-X-INDEPENDENT-SEGMENTS\n\
         #EXT-X-CONTENT-STEERING:SERVER-URI=\"steering.json\",PATHWAY-ID=\".\"\n"
    );
    for group in &groups {
        media_tags(&mut out, "AUDIO", &group.id, &group.tracks);
    }
    media_tags(&mut out, "SUBTITLES", "text", &index.text().collect::<Vec<_>>());
    for video in index.video() {
        if groups.is_empty() {
            variant(&mut out, video, None, has_text);
        }
        for group in &groups {
            variant(&mut out, video, Some(group), has_text);
        }
    }
    if !has_video {
        for group in &groups {
            variant(&mut out, group.tracks[0], Some(group), has_text);
        }
    }
    out
}

/// Audio tracks of one codec: what a variant names must be the same in all of its group.
struct Group<'a> {
    id: String,
    codec: &'a str,
    tracks: Vec<&'a Track>,
    /// The largest rates of its tracks: computed once, not for each variant.
    peak: u64,
    average: u64,
}

fn audio_groups(index: &TitleIndex) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for track in index.audio() {
        let codec = track.facts.codec.as_str();
        let (peak, average) = (track.peak_bandwidth(), track.average_bandwidth());
        if let Some(group) = groups.iter_mut().find(|group| group.codec == codec) {
            group.tracks.push(track);
            group.peak = group.peak.max(peak);
            group.average = group.average.max(average);
        } else {
            let id = format!("audio-{}", groups.len());
            groups.push(Group { id, codec, tracks: vec![track], peak, average });
        }
    }
    groups
}

fn media_tags(out: &mut String, kind: &str, group: &str, tracks: &[&Track]) {
    for (n, track) in tracks.iter().enumerate() {
        let facts = &track.facts;
        let name = name(tracks, n);
        let _ = write!(out, "#EXT-X-MEDIA:TYPE={kind},GROUP-ID=\"{group}\",NAME=\"{name}\"");
        if let Some(language) = &facts.language {
            let _ = write!(out, ",LANGUAGE=\"{}\"", quotable(language));
        }
        // Subtitles show only when asked for; of audio the first one plays.
        let default = if kind == "AUDIO" && n == 0 { "YES" } else { "NO" };
        let _ = write!(out, ",DEFAULT={default},AUTOSELECT=YES");
        if let Kind::Audio { channels, .. } = facts.kind {
            let _ = write!(out, ",CHANNELS=\"{channels}\"");
        }
        let _ = writeln!(out, ",URI=\"{}.m3u8\"", facts.id);
    }
}

/// The name for a player's menu: names within a group differ (section 4.4.6.1.1).
fn name(tracks: &[&Track], n: usize) -> String {
    let plain = |track: &Track| {
        let facts = &track.facts;
        let name = facts.label.as_deref().or(facts.language.as_deref());
        quotable(name.unwrap_or(facts.id.as_str())).into_owned()
    };
    let own = plain(tracks[n]);
    if tracks.iter().enumerate().any(|(other, track)| other != n && plain(track) == own) {
        return format!("{own} ({})", tracks[n].facts.id);
    }
    own
}

fn variant(out: &mut String, track: &Track, group: Option<&Group<'_>>, has_text: bool) {
    let facts = &track.facts;
    let is_video = matches!(facts.kind, Kind::Video { .. });
    let (mut peak, mut average) = group.map_or((0, 0), |group| (group.peak, group.average));
    if is_video {
        peak = peak.saturating_add(track.peak_bandwidth());
        average = average.saturating_add(track.average_bandwidth());
    }
    // Zero is no bandwidth (a track without segments): players divide by it.
    let peak = peak.max(1);
    let average = average.clamp(1, peak);
    let _ = write!(out, "#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={average}");
    // WebVTT side files have no RFC 6381 name (`wvtt` is WebVTT in ISO files), so none is given.
    let _ = write!(out, ",CODECS=\"{}", quotable(&facts.codec));
    if let Some(group) = group.filter(|_| is_video) {
        let _ = write!(out, ",{}", quotable(group.codec));
    }
    out.push('"');
    if let Kind::Video { width, height, frame_rate, range } = &facts.kind {
        let _ = write!(out, ",RESOLUTION={width}x{height}");
        if let Some(rate) = frames_per_second(*frame_rate) {
            let _ = write!(out, ",FRAME-RATE={rate}");
        }
        let range = match range {
            VideoRange::Sdr => "SDR",
            VideoRange::Pq => "PQ",
            VideoRange::Hlg => "HLG",
        };
        let _ = write!(out, ",VIDEO-RANGE={range}");
    }
    if let Some(group) = group {
        let _ = write!(out, ",AUDIO=\"{}\"", group.id);
    }
    if has_text {
        out.push_str(",SUBTITLES=\"text\"");
    }
    let _ = writeln!(out, ",CLOSED-CAPTIONS=NONE,PATHWAY-ID=\".\"\n{}.m3u8", facts.id);
}

/// Frames a second with three decimals, rounded; none if the fraction says nothing.
fn frames_per_second((frames, seconds): (u32, u32)) -> Option<String> {
    let (frames, seconds) = (u64::from(frames), u64::from(seconds));
    let thousandths = (frames * 1000 + seconds / 2).checked_div(seconds).filter(|n| *n > 0)?;
    Some(format!("{}.{:03}", thousandths / 1000, thousandths % 1000))
}

/// The media playlist `{track}.m3u8`. Durations are rounded so that their running sum is never
/// off by more than half a microsecond.
#[must_use]
pub fn media(track: &Track) -> String {
    if matches!(track.facts.kind, Kind::Text) {
        return text(track);
    }
    let id = &track.facts.id;
    let mut out = String::with_capacity(256 + track.segments.len() * 36);
    let durations: Vec<u64> = extinf(track).collect();
    let longest = durations.iter().max().copied().unwrap_or(0);
    // Version 6 compares durations rounded to whole seconds with the target.
    let target = ((longest + 500_000) / 1_000_000).max(1);
    // 6: EXT-X-MAP outside I-frame playlists.
    let _ = write!(
        out,
        "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:{target}\n#EXT-X-PLAYLIST-TYPE:VOD\n\
         #EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-MAP:URI=\"{id}/init.mp4\"\n"
    );
    for (n, micros) in durations.iter().enumerate() {
        let (whole, part) = (micros / 1_000_000, micros % 1_000_000);
        let _ = write!(out, "#EXTINF:{whole}.{part:06},\n{id}/{n}.m4s\n");
    }
    out.push_str("#EXT-X-ENDLIST\n");
    out
}

/// Segment durations in microseconds: differences of the rounded running sum.
fn extinf(track: &Track) -> impl Iterator<Item = u64> {
    let (mut ticks, mut before) = (0u128, 0u64);
    track.presented().map(move |(_, duration)| {
        ticks += u128::from(duration);
        let end = micros(ticks, track.facts.timescale);
        let duration = end - before;
        before = end;
        duration
    })
}

fn micros(ticks: u128, timescale: u32) -> u64 {
    let scale = u128::from(timescale.max(1));
    u64::try_from((ticks.saturating_mul(MICROS) + scale / 2) / scale).unwrap_or(u64::MAX)
}

/// A text track is one WebVTT document: one segment as long as the track.
fn text(track: &Track) -> String {
    let micros = micros(u128::from(track.facts.duration), track.facts.timescale);
    // 3: decimal durations. Below version 6 no duration may exceed the target: rounded up.
    format!(
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:{}\n#EXT-X-PLAYLIST-TYPE:VOD\n\
         #EXTINF:{}.{:06},\n{}.vtt\n#EXT-X-ENDLIST\n",
        micros.div_ceil(1_000_000).max(1),
        micros / 1_000_000,
        micros % 1_000_000,
        track.facts.id,
    )
}

/// Text that a quoted string may hold (section 4.2): no quotes, no control characters.
fn quotable(text: &str) -> Cow<'_, str> {
    if !text.contains(|c: char| c == '"' || c.is_control()) {
        return Cow::Borrowed(text);
    }
    let clean = |c: char| match c {
        '"' => '\'',
        c if c.is_control() => ' ',
        c => c,
    };
    Cow::Owned(text.chars().map(clean).collect())
}
