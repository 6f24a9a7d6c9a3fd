//! What can go wrong: [`Error`] when the edge starts, [`Fault`] when a byte is wanted.

use crate::apart::Apart;
use std::sync::Arc;

/// The edge could not start. Each message says what to change.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port or a file.
    #[error(transparent)]
    Service(#[from] service::Error),
    /// The certificate or its key can't be used.
    #[error("edge TLS: {0}")]
    Tls(String),
    /// A listener can't start.
    #[error("edge: {0}")]
    Wire(#[from] wire::Error),
    /// The memory tier can't be set up.
    #[error("edge cache: {0}")]
    Cache(#[from] chunks::Error),
    /// A site's upstream can't be set up.
    #[error("edge upstream: {0}")]
    Upstream(#[from] upstream::Error),
    /// Heads or the purge log can't be set up.
    #[error("edge heads: {0}")]
    Heads(#[from] heads::Error),
    /// The metrics registry refused a metric.
    #[error("edge metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Error {
    /// An error about a file.
    pub(crate) fn file(path: impl Into<std::path::PathBuf>, source: std::io::Error) -> Self {
        Self::Service(service::Error::file(path, source))
    }
}

/// Bytes that were asked for could not be had. Cheap to clone: all who wait share it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Fault {
    /// The origin has no such title, version or file.
    #[error("the origin does not have it")]
    NotFound,
    /// No origin could be reached, or it answered something that can't be used.
    #[error("the origin failed: {0}")]
    Unavailable(Arc<str>),
    /// What an origin sent is not what the title's version stands for, as often as it was asked.
    #[error("the origin's bytes are not those of this version")]
    Corrupt,
    /// What an origin answers to a range is too little of it, as often as it was asked.
    #[error(
        "the origin sends fewer than {} bytes of a range at a time",
        crate::engine::ANSWER_BYTES_MIN
    )]
    Short,
    /// What an origin names as the place or the length of a part is too great to be counted.
    #[error("the origin tells of 2^64 - 1 bytes or more in Content-Range: expected fewer")]
    Uncounted,
    /// The origin fails: it has been asked as often as it may be.
    #[error("the origin answered {0}")]
    Answered(http::StatusCode),
    /// What the origin answered to bytes of a stored object is not kept with it.
    #[error("the origin answered {} to a part of what is stored, for one client alone", .0.status)]
    Apart(Arc<Apart>),
    /// The origin has another version of it by now.
    #[error("the origin has another version by now")]
    Changed,
    /// A part of what is stored, or of what another node was sending, is gone, and can't be fetched
    /// by itself.
    #[error("a part of what was here is gone, and the origin can't be asked for it alone")]
    Gone,
    /// An upstream failed.
    #[error(transparent)]
    Upstream(#[from] upstream::Fault),
    /// Too much is being fetched already.
    #[error("too many fetches wait for the origin")]
    Busy,
    /// An answer that is too large to be kept has gone on without this reader.
    #[error("it was read so slowly that others had to wait, and it is too large to be kept")]
    Behind,
    /// The task that fetched ended without a result.
    #[error("the fetch ended early")]
    Lost,
}

impl Fault {
    /// An origin failed, for this reason.
    pub(crate) fn unavailable(reason: impl std::fmt::Display) -> Self {
        Self::Unavailable(reason.to_string().into())
    }

    /// The status that an origin failed by, where it gave one.
    pub(crate) fn status(&self) -> Option<http::StatusCode> {
        match self {
            Self::Answered(status) => Some(*status),
            Self::Apart(apart) => Some(apart.status),
            _ => None,
        }
    }

    /// Whether the request starts over from what is stored, and asks for it alone in the end: what
    /// it was about to be answered from has changed, is gone, has gone on, or comes in crumbs only.
    pub(crate) fn starts_over(&self) -> bool {
        matches!(self, Self::Changed | Self::Gone | Self::Short | Self::Behind)
    }

    /// How the origin has taken the range that it was asked for, where that tells how else to ask.
    pub(crate) fn misread(&self) -> Option<upstream::Misread> {
        match self {
            Self::Upstream(upstream::Fault::Wrong { misread, .. }) => {
                misread.as_ref().map(|(misread, _)| *misread)
            }
            _ => None,
        }
    }

    /// Whether it is the rest of a body that did not come: bytes that are wrong are the fault of who
    /// sent them.
    pub(crate) fn is_cut(&self) -> bool {
        use upstream::Fault as F;
        matches!(self, Self::Upstream(F::Cut { .. } | F::TimedOut { .. }))
    }

    /// Whether another try may do better.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Corrupt | Self::Short => true,
            Self::Upstream(fault) => fault.is_retryable(),
            Self::NotFound
            | Self::Answered(_)
            | Self::Apart(_)
            | Self::Changed
            | Self::Gone
            | Self::Uncounted
            | Self::Busy
            | Self::Behind
            | Self::Lost => false,
        }
    }
}
