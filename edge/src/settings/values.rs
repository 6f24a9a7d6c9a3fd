//! Values that several settings share: listeners, sizes, times, URLs, the secret.

use super::{Listen, Secret, Settings};
use chunks::SSD_BYTES_MIN;
use service::config::ConfigError;
use service::value::{ByteSize, Span};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;
use url::Url;
use wire::{Levers, Patience, SHARDS_MAX};

/// Longer than that, a client that does nothing keeps its place for nothing.
const PATIENCE_MAX: Duration = Duration::from_secs(600);

pub(super) fn parse_listen(key: &str, text: &str) -> Result<Listen, ConfigError> {
    let expected = "http://IP:PORT or https://IP:PORT";
    let bad = || ConfigError::value(key, text, expected);
    let (tls, addr) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
        (Some(addr), _) => (false, addr),
        (_, Some(addr)) => (true, addr),
        _ => return Err(bad()),
    };
    Ok(Listen { tls, addr: addr.trim_end_matches('/').parse().map_err(|_| bad())? })
}

pub(super) fn size(
    key: &str,
    given: Option<ByteSize>,
    default: ByteSize,
    allowed: RangeInclusive<u64>,
) -> Result<u64, ConfigError> {
    let size = given.unwrap_or(default);
    if allowed.contains(&size.0) {
        return Ok(size.0);
    }
    let (min, max) = allowed.into_inner();
    Err(ConfigError::value(key, size, format!("{} to {}", ByteSize(min), ByteSize(max))))
}

/// The SSD tier, which its folders share; 0 for none.
pub(super) fn ssd(size: ByteSize, folders: usize, max: u64) -> Result<u64, ConfigError> {
    let each = SSD_BYTES_MIN;
    let min = each.saturating_mul(folders.max(1) as u64);
    if size.0 == 0 || (min..=max).contains(&size.0) {
        return Ok(size.0);
    }
    let (each, max) = (ByteSize(each), ByteSize(max));
    let expected = format!("{each} for each folder to {max}, or 0 for none");
    Err(ConfigError::value("edge.ssd", size, expected))
}

/// An `http` or `https` URL with a host and without query; a trailing slash is taken off.
pub(super) fn base_url(key: &str, text: &str) -> Result<String, ConfigError> {
    let url = Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none()
    });
    let trimmed = text.trim_end_matches('/').to_owned();
    url.map(|_| trimmed).ok_or_else(|| ConfigError::value(key, text, "an http:// or https:// URL"))
}

/// A URL that names a host alone, since players are moved between edges by host.
pub(super) fn site_url(key: &str, text: &str) -> Result<String, ConfigError> {
    let base = base_url(key, text)?;
    let bare = Url::parse(&base).is_ok_and(|url| url.path() == "/");
    let expected = "an http:// or https:// URL without a path";
    if bare { Ok(base) } else { Err(ConfigError::value(key, text, expected)) }
}

pub(super) fn join_secret(
    given: Option<Secret>,
    file: Option<PathBuf>,
) -> Result<Option<Secret>, ConfigError> {
    let Some(path) = file.filter(|_| given.is_none()) else { return Ok(given) };
    let text = std::fs::read_to_string(&path)
        .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
    let expected = "a file that holds one line, the secret";
    let bad = |_| ConfigError::value("edge.join-secret-file", path.display(), expected);
    text.parse().map(Some).map_err(bad)
}

pub(super) fn levers(off: &[String]) -> Result<Levers, ConfigError> {
    off.iter().try_fold(Levers::default(), |levers, name| {
        let bad = || ConfigError::value("edge.write-path-off", name, Levers::NAMES);
        levers.off(name).ok_or_else(bad)
    })
}

/// A number within bounds.
pub(super) fn count(
    key: &str,
    given: Option<usize>,
    default: usize,
    max: usize,
) -> Result<usize, ConfigError> {
    let count = given.unwrap_or(default);
    if (1..=max).contains(&count) {
        return Ok(count);
    }
    Err(ConfigError::value(key, count, format!("1 to {max}")))
}

/// How long clients are waited for.
pub(super) fn patience(settings: &Settings) -> Result<Patience, ConfigError> {
    let time = |key: &str, given: Option<Span>, default: Duration| {
        let time = given.map_or(default, |Span(time)| time);
        if !time.is_zero() && time <= PATIENCE_MAX {
            return Ok(time);
        }
        let expected = format!("1ms to {}s", PATIENCE_MAX.as_secs());
        Err(ConfigError::value(key, Span(time), expected))
    };
    let usual = Patience::default();
    Ok(Patience {
        handshake: time("edge.handshake-timeout", settings.handshake_timeout, usual.handshake)?,
        head: time("edge.head-timeout", settings.head_timeout, usual.head)?,
        send: time("edge.send-timeout", settings.send_timeout, usual.send)?,
        quiet: usual.quiet,
        linger: usual.linger,
    })
}

/// Nothing is named twice.
pub(super) fn once<T: PartialEq>(
    key: &str,
    given: &[T],
    shown: impl Fn(&T) -> String,
) -> Result<(), ConfigError> {
    let twice = given.iter().enumerate().find(|(place, one)| given[..*place].contains(one));
    twice.map_or(Ok(()), |(_, one)| Err(ConfigError::value(key, shown(one), "each once")))
}

/// Each folder once, and none that holds the edge's own files: both would lock it.
pub(super) fn ssd_dirs(dirs: &[PathBuf], data_dir: &Path) -> Result<(), ConfigError> {
    once("edge.ssd-dir", dirs, |dir| dir.display().to_string())?;
    // As far as they are there; else as they are written.
    let real = |dir: &Path| dir.canonicalize().unwrap_or_else(|_| plain(dir));
    let data = real(data_dir);
    dirs.iter().find(|dir| real(dir) == data).map_or(Ok(()), |dir| {
        let expected = "a folder of its own, apart from edge.data-dir";
        Err(ConfigError::value("edge.ssd-dir", dir.display(), expected))
    })
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, component| {
        match component {
            Component::CurDir => {}
            Component::ParentDir => _ = plain.pop(),
            _ => plain.push(component),
        }
        plain
    })
}

/// As many as given, or as there are cores for this process.
pub(super) fn shards(given: Option<usize>) -> Result<NonZeroUsize, ConfigError> {
    let Some(given) = given else {
        return Ok(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
    };
    let count = NonZeroUsize::new(given).filter(|count| count.get() <= SHARDS_MAX);
    count.ok_or_else(|| ConfigError::value("edge.shards", given, format!("1 to {SHARDS_MAX}")))
}
