//! Why a plan run failed.

use service::client;
use std::path::PathBuf;

/// An error of a plan run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A date that is none.
    #[error("--date {given:?}: expected a day, as 2026-11-21")]
    BadDate {
        /// As given.
        given: String,
    },
    /// The credential's file can't be read, or is empty.
    #[error("{path}: {reason}")]
    CredentialFile {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The control plane does not answer.
    #[error("the control plane can't be reached: {0}")]
    Unreachable(#[source] client::Error),
    /// The control plane does not take the credential.
    #[error("the control plane refuses the credential in {path}: expected the operator's")]
    Refused {
        /// Which file.
        path: PathBuf,
    },
    /// The control plane answered with another error.
    #[error("the control plane failed: {0}")]
    Failed(#[source] client::Error),
    /// No edge has ever been heard: there is nothing to plan for.
    #[error("the control plane knows no edge: start the edges, then plan again")]
    NoEdges,
    /// A client can't be made.
    #[error(transparent)]
    Service(#[from] service::Error),
    /// The plan can't be shown.
    #[error("the plan can't be written out: {0}")]
    Output(#[from] std::io::Error),
    /// Stopped by a signal; nothing was published.
    #[error("stopped: nothing was published")]
    Stopped,
}
