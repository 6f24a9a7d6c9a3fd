//! What a server's processes have used, from `/proc`: theirs and their children's.

use crate::Error;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

/// CPU time and memory of some processes at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// In user mode, all threads, in seconds.
    pub user_s: f64,
    /// In the kernel.
    pub system_s: f64,
    /// Resident memory; what processes share counts for each.
    pub rss_bytes: u64,
}

/// Fields of `/proc/PID/stat` by proc(5), counted from the state (field 3), which is behind the
/// name.
const PARENT: usize = 4 - 3;
const USER: usize = 14 - 3;
const SYSTEM: usize = 15 - 3;
const RSS_PAGES: usize = 24 - 3;

/// What these processes and all below them have used so far.
///
/// # Errors
/// [`Error::BadLoad`] when one of `pids` is gone.
pub fn usage(pids: &[u32]) -> Result<Usage, Error> {
    usage_in(Path::new("/proc"), pids)
}

fn usage_in(proc: &Path, pids: &[u32]) -> Result<Usage, Error> {
    let mut sum = Usage::default();
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let page = rustix::param::page_size() as u64;
    for pid in family(proc, pids)? {
        let Some(stat) = stat(proc, pid) else {
            if pids.contains(&pid) {
                return Err(Error::BadLoad {
                    what: format!("server process {pid}"),
                    reason: "expected one that runs".to_owned(),
                });
            }
            continue;
        };
        sum.user_s += stat[USER] as f64 / ticks;
        sum.system_s += stat[SYSTEM] as f64 / ticks;
        sum.rss_bytes += stat[RSS_PAGES] * page;
    }
    Ok(sum)
}

/// The processes and all below them.
fn family(proc: &Path, pids: &[u32]) -> Result<BTreeSet<u32>, Error> {
    let unreadable = |error: std::io::Error| Error::BadLoad {
        what: proc.display().to_string(),
        reason: error.to_string(),
    };
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    if !pids.is_empty() {
        for entry in std::fs::read_dir(proc).map_err(unreadable)? {
            let name = entry.map_err(unreadable)?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            let Some(stat) = stat(proc, pid) else { continue };
            children.entry(u32::try_from(stat[PARENT]).unwrap_or(0)).or_default().push(pid);
        }
    }
    let mut family = BTreeSet::new();
    let mut queue = pids.to_vec();
    while let Some(pid) = queue.pop() {
        if family.insert(pid) {
            queue.extend(children.remove(&pid).unwrap_or_default());
        }
    }
    Ok(family)
}

/// The numbers behind the name; a state, which is a letter, is 0.
fn stat(proc: &Path, pid: u32) -> Option<Vec<u64>> {
    let text = std::fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    let numbers: Vec<u64> =
        rest.split_whitespace().map(|number| number.parse().unwrap_or(0)).collect();
    (numbers.len() > RSS_PAGES).then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_count_and_a_process_that_is_gone_is_named() {
        let own = usage(&[std::process::id()]).unwrap();
        assert!(own.rss_bytes > 1 << 20, "{own:?}");
        let parent = std::os::unix::process::parent_id();
        assert!(family(Path::new("/proc"), &[parent]).unwrap().contains(&std::process::id()));
        let error = usage(&[u32::MAX]).unwrap_err().to_string();
        assert!(error.contains("4294967295"), "{error}");
        assert_eq!(usage(&[]).unwrap(), Usage::default());
    }
}
