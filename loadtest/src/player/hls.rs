//! HLS to tracks, through m3u8-rs.

use super::fetch::{Fleet, Loaded};
use super::timeline::{Kind, SEGMENTS_MAX, Track};
use crate::Error;
use m3u8_rs::{AlternativeMediaType, MasterPlaylist, Playlist};
use std::time::Duration;

/// Loads the multivariant playlist and every media playlist that it names.
pub(super) async fn load(fleet: &mut Fleet) -> Result<Vec<Track>, Error> {
    let loaded = fleet.manifest().await?;
    let Ok(Playlist::MasterPlaylist(playlist)) = m3u8_rs::parse_playlist_res(&loaded.body) else {
        return Err(loaded.bad("not a multivariant playlist"));
    };
    let mut tracks = Vec::new();
    for (kind, path) in names(&playlist, &loaded)? {
        let loaded = fleet.follow(&path).await?;
        tracks.push(media(kind, &loaded)?);
    }
    Ok(tracks)
}

/// Kind and path of each media playlist, each once.
fn names(playlist: &MasterPlaylist, loaded: &Loaded) -> Result<Vec<(Kind, String)>, Error> {
    let mut found: Vec<(Kind, String)> = Vec::new();
    let has_video =
        |variant: &&m3u8_rs::VariantStream| !variant.is_i_frame && variant.resolution.is_some();
    let variants = playlist.variants.iter().filter(has_video);
    let variants = variants.map(|variant| (Kind::Video, variant.uri.as_str()));
    let renditions = playlist.alternatives.iter().filter_map(|rendition| {
        let kind = match rendition.media_type {
            AlternativeMediaType::Audio => Kind::Audio,
            AlternativeMediaType::Subtitles => Kind::Text,
            _ => return None,
        };
        Some((kind, rendition.uri.as_deref()?))
    });
    for (kind, uri) in variants.chain(renditions) {
        let path = loaded.resolve(uri)?;
        if !found.iter().any(|(_, other)| *other == path) {
            found.push((kind, path));
        }
    }
    if found.is_empty() {
        return Err(loaded.bad("it names no media playlist"));
    }
    Ok(found)
}

fn media(kind: Kind, loaded: &Loaded) -> Result<Track, Error> {
    let playlist = m3u8_rs::parse_media_playlist_res(&loaded.body)
        .map_err(|_| loaded.bad("not a media playlist"))?;
    if !playlist.end_list {
        return Err(loaded.bad("it has no end: only titles on demand can be played"));
    }
    if playlist.segments.len() > SEGMENTS_MAX {
        return Err(loaded.bad("too many segments"));
    }
    let mut at = Duration::ZERO;
    let mut track = Track { kind, init: None, segments: Vec::new() };
    for segment in &playlist.segments {
        if let (Some(map), None) = (&segment.map, &track.init) {
            track.init = Some(loaded.resolve(&map.uri)?);
        }
        track.segments.push((at, loaded.resolve(&segment.uri)?));
        let duration = Duration::try_from_secs_f32(segment.duration)
            .map_err(|_| loaded.bad("a segment's duration is not a number of seconds"))?;
        at = at.saturating_add(duration);
    }
    Ok(track)
}
