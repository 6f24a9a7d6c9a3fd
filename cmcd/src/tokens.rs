//! The values that are tokens: one letter or two, each with its meaning.

/// `ot`: what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectType {
    /// `m`: a manifest or playlist.
    Manifest,
    /// `a`: audio alone.
    Audio,
    /// `v`: video alone.
    Video,
    /// `av`: both in one.
    Muxed,
    /// `i`: an init segment.
    Init,
    /// `c`: captions or subtitles.
    Caption,
    /// `tt`: timed text in ISO BMFF.
    TimedText,
    /// `k`: a key, licence or certificate.
    Key,
    /// `o`: anything else.
    Other,
}

/// `sf`: which kind of manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamingFormat {
    /// `d`.
    Dash,
    /// `h`.
    Hls,
    /// `e`: HESP, since version 2.
    Hesp,
    /// `s`: Smooth Streaming.
    Smooth,
    /// `o`.
    Other,
}

/// `st`: whether the end is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamType {
    /// `v`: all segments are there.
    Vod,
    /// `l`.
    Live,
    /// `ll`: live with low latency, since version 2.
    LowLatency,
}

/// `sta`, since version 2: what the viewer sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlayerState {
    /// `s`.
    Starting,
    /// `p`.
    Playing,
    /// `k`.
    Seeking,
    /// `r`.
    Rebuffering,
    /// `a`: by the viewer.
    Paused,
    /// `w`: by the player.
    Waiting,
    /// `e`.
    Ended,
    /// `f`.
    Failed,
    /// `q`.
    Quit,
    /// `d`: loading ahead of a start.
    Preloading,
}

/// A type whose values are tokens.
pub trait Token: Copy + PartialEq + 'static {
    /// Each token and what it stands for.
    const NAMES: &'static [(&'static str, Self)];

    fn of(token: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(name, _)| *name == token).map(|(_, value)| *value)
    }

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, value)| *value == self).map_or("", |(name, _)| name)
    }
}

impl Token for ObjectType {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("m", Self::Manifest),
        ("a", Self::Audio),
        ("v", Self::Video),
        ("av", Self::Muxed),
        ("i", Self::Init),
        ("c", Self::Caption),
        ("tt", Self::TimedText),
        ("k", Self::Key),
        ("o", Self::Other),
    ];
}

impl Token for StreamingFormat {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("d", Self::Dash),
        ("h", Self::Hls),
        ("e", Self::Hesp),
        ("s", Self::Smooth),
        ("o", Self::Other),
    ];
}

impl Token for StreamType {
    const NAMES: &'static [(&'static str, Self)] =
        &[("v", Self::Vod), ("l", Self::Live), ("ll", Self::LowLatency)];
}

impl Token for PlayerState {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("s", Self::Starting),
        ("p", Self::Playing),
        ("k", Self::Seeking),
        ("r", Self::Rebuffering),
        ("a", Self::Paused),
        ("w", Self::Waiting),
        ("e", Self::Ended),
        ("f", Self::Failed),
        ("q", Self::Quit),
        ("d", Self::Preloading),
    ];
}
