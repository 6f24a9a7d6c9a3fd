//! Small files, replaced whole or not at all.

use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Writes `bytes` to `path`: durable, and at no moment half there.
///
/// # Errors
/// What the disk said; the old file is then still whole.
pub fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}
