//! The URLs that an edge answers: `/~TOKEN/t/{title}/{version}/...`.
//!
//! The token is the first path segment, so that every URL in a manifest is relative and
//! manifests hold nothing personal.

use crate::{IdError, TitleId, TrackId, Version};
use std::fmt;

/// A path longer than this is refused.
pub const PATH_BYTES_MAX: usize = 4096;

/// A parsed URL path of a title site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route<'a> {
    /// The play token, without its `~`.
    pub token: &'a str,
    /// The path below the token, from `/t/`: what the token is bound to.
    pub path: &'a str,
    /// The title.
    pub title: TitleId,
    /// Its version.
    pub version: Version,
    /// What of it.
    pub resource: Resource,
}

/// What a URL names within a title's version.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Resource {
    /// `hls.m3u8`, the multivariant playlist.
    Hls,
    /// `dash.mpd`.
    Dash,
    /// `steering.json`, the steering manifest.
    Steering,
    /// `{track}.m3u8`, a media playlist.
    MediaPlaylist(TrackId),
    /// `{track}/init.mp4`, the init segment.
    Init(TrackId),
    /// `{track}/{n}.m4s`, segment `n`, counted from zero.
    Segment(TrackId, u32),
    /// `{track}.mp4`, the whole track file (for byte ranges).
    File(TrackId),
    /// `{track}.vtt`, a text track.
    Text(TrackId),
}

/// Why a path is not a route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Longer than [`PATH_BYTES_MAX`].
    #[error("the path is longer than {PATH_BYTES_MAX} bytes")]
    TooLong,
    /// Not of the shape `/~TOKEN/t/{title}/{version}/{resource}`.
    #[error("no such path: expected /~TOKEN/t/{{title}}/{{version}}/{{resource}}")]
    Unknown,
    /// A name in it is not valid.
    #[error(transparent)]
    Name(#[from] IdError),
}

/// Parses a URL path (without query). Escapes are not decoded: no valid name needs one, so
/// each resource has one spelling.
///
/// # Errors
/// [`RouteError`] says what did not fit.
pub fn parse(path: &str) -> Result<Route<'_>, RouteError> {
    if path.len() > PATH_BYTES_MAX {
        return Err(RouteError::TooLong);
    }
    let rest = path.strip_prefix("/~").ok_or(RouteError::Unknown)?;
    let slash = rest.find('/').ok_or(RouteError::Unknown)?;
    let (token, path) = rest.split_at(slash);
    let mut parts = path.strip_prefix("/t/").ok_or(RouteError::Unknown)?.splitn(3, '/');
    let mut next = || parts.next().ok_or(RouteError::Unknown);
    let (title, version, resource) = (next()?.parse()?, next()?.parse()?, next()?);
    Ok(Route { token, path, title, version, resource: parse_resource(resource)? })
}

fn parse_resource(text: &str) -> Result<Resource, RouteError> {
    match text {
        "hls.m3u8" => return Ok(Resource::Hls),
        "dash.mpd" => return Ok(Resource::Dash),
        "steering.json" => return Ok(Resource::Steering),
        _ => {}
    }
    if let Some((track, file)) = text.split_once('/') {
        let track = track.parse()?;
        if file == "init.mp4" {
            return Ok(Resource::Init(track));
        }
        let number = file.strip_suffix(".m4s").ok_or(RouteError::Unknown)?;
        let canonical = number == "0" || !number.starts_with(['0', '+']);
        let number = number.parse().ok().filter(|_| canonical).ok_or(RouteError::Unknown)?;
        return Ok(Resource::Segment(track, number));
    }
    let (track, extension) = text.rsplit_once('.').ok_or(RouteError::Unknown)?;
    let track = track.parse()?;
    match extension {
        "m3u8" => Ok(Resource::MediaPlaylist(track)),
        "mp4" => Ok(Resource::File(track)),
        "vtt" => Ok(Resource::Text(track)),
        _ => Err(RouteError::Unknown),
    }
}

/// The path below the token of a title's version, with a trailing slash: manifests are
/// relative to it.
#[must_use]
pub fn title_path(title: &TitleId, version: &Version) -> String {
    format!("/t/{title}/{version}/")
}

/// What a play token for a title is bound to: every version of it, since a new cut published
/// in mid-play must not end a play.
#[must_use]
pub fn title_prefix(title: &TitleId) -> String {
    format!("/t/{title}/")
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hls => f.write_str("hls.m3u8"),
            Self::Dash => f.write_str("dash.mpd"),
            Self::Steering => f.write_str("steering.json"),
            Self::MediaPlaylist(track) => write!(f, "{track}.m3u8"),
            Self::Init(track) => write!(f, "{track}/init.mp4"),
            Self::Segment(track, number) => write!(f, "{track}/{number}.m4s"),
            Self::File(track) => write!(f, "{track}.mp4"),
            Self::Text(track) => write!(f, "{track}.vtt"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VERSION: &str = "00112233445566778899aabbccddeeff";

    #[test]
    fn every_resource_has_one_spelling() {
        let names = [
            "hls.m3u8",
            "dash.mpd",
            "steering.json",
            "v1.m3u8",
            "v1/init.mp4",
            "v1/0.m4s",
            "v1/17.m4s",
            "v1.mp4",
            "s-en.vtt",
        ];
        for name in names {
            let path = format!("/~tok/t/film/{VERSION}/{name}");
            let route = parse(&path).unwrap();
            assert_eq!(route.token, "tok");
            assert_eq!(route.path, format!("/t/film/{VERSION}/{name}"));
            assert_eq!(route.resource.to_string(), name);
        }
    }

    #[test]
    fn odd_paths_are_refused() {
        let odd = [
            "v1/01.m4s",
            "v1/+1.m4s",
            "v1/-1.m4s",
            "v1/4294967296.m4s",
            "v1/1.m4s/",
            "../v1.mp4",
            "v1%2f1.m4s",
            "",
            "v1",
            "v1.mp4.exe",
            "V1.mp4",
            "v1//1.m4s",
            "index",
        ];
        for name in odd {
            let path = format!("/~tok/t/film/{VERSION}/{name}");
            assert!(parse(&path).is_err(), "{name:?} was taken");
        }
        assert!(parse("/t/film/x/hls.m3u8").is_err());
        assert!(parse(&format!("/~{}", "a".repeat(5000))).is_err());
    }

    proptest! {
        #[test]
        fn what_parses_prints_the_same(path in "/~[a-z]{0,4}/t/[a-z0-9./-]{0,60}") {
            if let Ok(route) = parse(&path) {
                let again = format!(
                    "/~{}{}{}", route.token, title_path(&route.title, &route.version), route.resource
                );
                prop_assert_eq!(again, path);
            }
        }
    }
}
