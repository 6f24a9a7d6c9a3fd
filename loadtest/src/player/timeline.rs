//! What to load, in which order: pure.

use super::Tracks;
use std::time::Duration;

/// Tracks with more segments than this are refused.
pub(super) const SEGMENTS_MAX: usize = 100_000;

/// Kind of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Video,
    Audio,
    Text,
}

/// A track, as a manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Track {
    pub(super) kind: Kind,
    /// Path of the init segment.
    pub(super) init: Option<String>,
    /// Start and path of each segment.
    pub(super) segments: Vec<(Duration, String)>,
}

/// One body to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    /// When it is due.
    pub(super) at: Duration,
    /// URL path, with the token.
    pub(super) path: String,
    /// A segment with media (no init segment, no text).
    pub(super) is_media: bool,
}

/// Everything that is played, in play order; an init segment stands right before the first
/// segment that needs it, text at the start.
pub(super) fn in_order(tracks: &[Track], which: Tracks) -> Vec<Item> {
    let mut items: Vec<(Kind, Item)> = Vec::new();
    let of = |kind| tracks.iter().filter(move |track| track.kind == kind);
    match which {
        Tracks::All => tracks.iter().for_each(|track| whole(&mut items, track)),
        Tracks::One => {
            cycling(&mut items, &of(Kind::Video).collect::<Vec<_>>());
            of(Kind::Audio).take(1).for_each(|track| whole(&mut items, track));
            of(Kind::Text).take(1).for_each(|track| whole(&mut items, track));
        }
    }
    // Stable: what belongs together stays together.
    items.sort_by_key(|(kind, item)| (item.at, *kind));
    items.into_iter().map(|(_, item)| item).collect()
}

fn whole(items: &mut Vec<(Kind, Item)>, track: &Track) {
    cycling(items, &[track]);
}

/// Segment n comes from rendition n modulo their number.
fn cycling(items: &mut Vec<(Kind, Item)>, renditions: &[&Track]) {
    let longest = renditions.iter().map(|track| track.segments.len()).max().unwrap_or(0);
    for n in 0..longest {
        let rendition = n % renditions.len();
        let track = renditions[rendition];
        let Some((at, path)) = track.segments.get(n) else { continue };
        let item =
            |path: &String, is_media| (track.kind, Item { at: *at, path: path.clone(), is_media });
        if n == rendition {
            items.extend(track.init.iter().map(|path| item(path, false)));
        }
        items.push(item(path, track.kind != Kind::Text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(kind: Kind, id: &str, step_s: u64, count: u64) -> Track {
        Track {
            kind,
            init: (kind != Kind::Text).then(|| format!("{id}/init")),
            segments: (0..count)
                .map(|n| (Duration::from_secs(n * step_s), format!("{id}/{n}")))
                .collect(),
        }
    }

    fn paths(which: Tracks) -> Vec<String> {
        let tracks = [
            track(Kind::Video, "v1", 4, 3),
            track(Kind::Video, "v2", 4, 3),
            track(Kind::Audio, "a1", 3, 3),
            track(Kind::Audio, "a2", 3, 1),
            track(Kind::Text, "s", 12, 1),
        ];
        in_order(&tracks, which).into_iter().map(|item| item.path).collect()
    }

    #[test]
    fn one_of_each_cycles_through_renditions_in_play_order() {
        let want = [
            "v1/init", "v1/0", "a1/init", "a1/0", "s/0", "a1/1", "v2/init", "v2/1", "a1/2", "v1/2",
        ];
        assert_eq!(paths(Tracks::One), want);
    }

    #[test]
    fn all_tracks_are_played_whole() {
        let all = paths(Tracks::All);
        assert_eq!(all.len(), 4 + 4 + 4 + 2 + 1);
        assert_eq!(all[..4], ["v1/init", "v1/0", "v2/init", "v2/0"]);
    }
}
