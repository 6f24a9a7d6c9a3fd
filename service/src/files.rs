//! The limit of open files (`RLIMIT_NOFILE`): each connection takes one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit to the most that this process may set; returns it, none where there is none.
///
/// The soft limit is 1,024 nearly everywhere, for programs that use `select`. Nothing here does.
pub fn raise() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, ?current, ?maximum, "the limit of open files can't be raised");
            current
        }
    }
}
