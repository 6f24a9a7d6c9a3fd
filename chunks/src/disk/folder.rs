//! A disk's folder: who uses it, how large its files may become, when they were written. Every
//! function here blocks.

use super::contents;
use super::layout::block_bytes;
use rustix::fs::OFlags;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Smallest disk, in bytes: enough blocks to write one while another is cleared.
pub const SSD_BYTES_MIN: u64 = 256 << 20;
/// One part in so many of what a disk has for the tier is left to others.
const SPARE_SHARE: u64 = 16;
/// What is left free of a disk for others, beside that.
#[derive(Clone, Default)]
pub struct KeptFree(Option<Arc<OfFolder>>);

type OfFolder = dyn Fn(&Path, u64) -> u64 + Send + Sync;

impl KeptFree {
    /// So many bytes as `of` says of a folder and of the bytes that its files take and could take
    /// together, asked whenever that is opened. It may block.
    pub fn new(of: impl Fn(&Path, u64) -> u64 + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(of)))
    }

    fn of(&self, dir: &Path, room: u64) -> u64 {
        self.0.as_ref().map_or(0, |of| of(dir, room))
    }
}

impl std::fmt::Debug for KeptFree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeptFree")
    }
}

/// What direct I/O is aligned to.
pub(super) const PAGE_BYTES: usize = 4096;
/// How foyer names its files.
const FILE_PREFIX: &str = "foyer-storage-direct-fs-";

/// The file whose presence tells that a disk is still there.
pub(super) fn first_file(dir: &Path) -> PathBuf {
    file(dir, 0)
}

/// Keeps all others out of the folder.
pub(super) fn lock(dir: &Path) -> Result<File, String> {
    let file = File::create(dir.join("lock")).map_err(|error| error.to_string())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err("it is in use, by another process or a thread that hangs".into())
        }
        Err(std::fs::TryLockError::Error(error)) => Err(error.to_string()),
    }
}

/// Whether files here can be read and written past the page cache: tried with one page, since
/// some filesystems say no only then. If not, that is logged.
pub(super) fn takes_direct(dir: &Path) -> bool {
    let path = dir.join("direct");
    let tried = try_direct(&path);
    if let Err(error) = &tried {
        tracing::warn!(dir = %dir.display(), %error, "no direct I/O here: through the page cache");
    }
    // Not made where it was refused; else a file that nobody reads.
    let _ = std::fs::remove_file(path);
    tried.is_ok()
}

fn try_direct(path: &Path) -> std::io::Result<()> {
    let flags = OFlags::DIRECT | OFlags::NOATIME;
    let flags = i32::try_from(flags.bits()).map_err(std::io::Error::other)?;
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(true).custom_flags(flags);
    let file = file.open(path)?;
    let mut bytes = vec![0; 2 * PAGE_BYTES];
    let at = bytes.as_ptr().align_offset(PAGE_BYTES);
    let page = &mut bytes[at..at + PAGE_BYTES];
    file.write_all_at(page, 0)?;
    file.read_exact_at(page, 0)
}

fn file(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{FILE_PREFIX}{number:08}"))
}

/// Bytes that the files here may grow to on this disk: most of what they take and what is free, less
/// what is kept free, and what the tier's folders `beside` it on the disk have of that, by what each is
/// to have. How much of it they take already makes no difference: a restart changes nothing, and a
/// disk that others fill comes back smaller.
pub(super) fn usable(
    dir: &Path,
    wanted: u64,
    beside: &[crate::Disk],
    kept: &KeptFree,
) -> Result<u64, String> {
    let failed = |error: std::io::Error| error.to_string();
    let free = bytes_free(dir).map_err(failed)?;
    let total = bytes_total(dir).map_err(failed)?;
    let wanted_by = |other: &crate::Disk| other.bytes.min(total);
    let taken_by = |other: &crate::Disk| taken(&other.dir, blocks_of(wanted_by(other)));
    let taken = beside.iter().map(taken_by).sum::<u64>() + taken(dir, blocks_of(wanted));
    let room = taken + free;
    let room = room.saturating_sub(kept.of(dir, room));
    let theirs = beside.iter().map(wanted_by).sum();
    let usable = share(room - room / SPARE_SHARE, wanted, theirs);
    let needed = wanted.min(SSD_BYTES_MIN);
    if usable < needed {
        let beside: Vec<_> = beside.iter().map(|other| other.dir.display().to_string()).collect();
        let beside = match &beside[..] {
            [] => String::new(),
            beside => format!(", beside {} on the same disk", beside.join(", ")),
        };
        return Err(format!("{usable} bytes can be used{beside}, {needed} are needed"));
    }
    Ok(usable.min(wanted))
}

/// Of what there is for all, by what is wanted here and what others want.
fn share(room: u64, wanted: u64, theirs: u64) -> u64 {
    let all = u128::from(wanted) + u128::from(theirs);
    let share = u128::from(room) * u128::from(wanted) / all.max(1);
    u64::try_from(share).unwrap_or(room)
}

/// Bytes that the files of so many blocks take on the disk.
fn taken(dir: &Path, blocks: u64) -> u64 {
    let taken = |number| std::fs::metadata(file(dir, number)).map_or(0, |file| file.blocks() * 512);
    (0..blocks).map(taken).sum()
}

/// Blocks of a disk of so many bytes.
fn blocks_of(bytes: u64) -> u64 {
    bytes / block_bytes(bytes)
}

/// Bytes that are free on a folder's disk. Blocks.
///
/// # Errors
/// What the disk said.
pub fn bytes_free(dir: &Path) -> std::io::Result<u64> {
    let disk = rustix::fs::statvfs(dir)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Bytes of a folder's disk, used and free.
pub(super) fn bytes_total(dir: &Path) -> std::io::Result<u64> {
    let disk = rustix::fs::statvfs(dir)?;
    Ok(disk.f_blocks.saturating_mul(disk.f_frsize))
}

/// Removes what a larger setting left: files beyond the last block, and those of larger blocks,
/// whose chunks may lie beyond their new ends.
pub(super) fn remove_surplus(dir: &Path, blocks: u64, block_bytes: u64) {
    for path in (0..blocks).map(|number| file(dir, number)) {
        if std::fs::metadata(&path).is_ok_and(|file| file.len() > block_bytes) {
            // What is left of it is checked when it is read.
            let _ = std::fs::remove_file(path);
        }
    }
    for number in blocks.. {
        if std::fs::remove_file(file(dir, number)).is_err() {
            break;
        }
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        // None of a block that was never full.
        let _ = std::fs::remove_file(contents::path(dir, contents::Of::Block(number)));
    }
}

/// When each block was written last, in nanoseconds since 1970: foyer has forgotten their
/// order.
pub(super) fn written_last(dir: &Path, blocks: u64) -> Vec<u128> {
    let written = |number| {
        let time = std::fs::metadata(file(dir, number)).ok()?.modified().ok()?;
        time.duration_since(std::time::UNIX_EPOCH).ok().map(|since| since.as_nanos())
    };
    (0..blocks).map(|number| written(number).unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_one_disk_share_it_by_what_each_is_to_have() {
        assert_eq!(share(1000, 400, 0), 1000);
        assert_eq!((share(1000, 400, 400), share(1000, 600, 200)), (500, 750));
        assert_eq!(share(u64::MAX, u64::MAX, u64::MAX), u64::MAX / 2);
    }

    #[test]
    fn a_filesystem_without_direct_io_is_found_out_and_left_clean() {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        let mounted = mount.args(["-t", "ramfs", "none"]).arg(dir.path()).output();
        if !mounted.as_ref().is_ok_and(|output| output.status.success()) {
            assert!(std::env::var_os("NEARCAST_DISKS").is_none(), "mount: {mounted:?}");
            println!("skipped: mount: {mounted:?}");
            return;
        }
        let takes = takes_direct(dir.path());
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        std::process::Command::new("umount").arg(dir.path()).status().unwrap();
        assert!(!takes && left == 0, "direct: {takes}, {left} files left");
    }
}
