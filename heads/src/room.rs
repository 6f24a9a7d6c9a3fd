//! How much the database may take: of its own limit, and of a disk that purges need as well.
//!
//! Invariant: heads never take a disk's last bytes. Where there is less free than a reserve, the file
//! no longer grows: what is longest unused goes, and new rows, and such as are of another length by
//! now, take its place within the file.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bytes that stay free for purges, what is removed, and the journal: of those, 250,000 purges of usual
/// length. Of a small disk it is [`RESERVE_SHARE`].
const RESERVE_BYTES: u64 = 64 << 20;
const RESERVE_SHARE: u64 = 4;
/// Bytes within the file that are kept empty for new rows on a disk that is short of room: several
/// batches. Of a small file it is a quarter.
const SPARE_BYTES: u64 = 16 << 20;
const SPARE_SHARE: u64 = 4;
/// One part in so many of what there is is left to a database that is still to grow, and no more.
const GROWTH_SHARE: u64 = 8;

/// What other files of the same disk are to leave free, so that heads and purges are still written once
/// those have taken the rest.
#[derive(Debug, Clone)]
pub struct DiskShare {
    path: PathBuf,
    bytes_max: u64,
}

impl DiskShare {
    /// Of the database at `path`, which may grow to `bytes_max` bytes. It need not be there yet, its
    /// folder must.
    #[must_use]
    pub fn new(path: &Path, bytes_max: u64) -> Self {
        Self { path: path.to_owned(), bytes_max }
    }

    /// Bytes to leave free on the disk of `other`, a file or folder that takes and could take `room`
    /// bytes together, if nobody else took more: the reserve, a journal, and what the database may
    /// still grow by, so that the sum of what is free and what the database has stays as it is while
    /// that grows. None where `other` is on another disk, or either does not say. Blocks.
    #[must_use]
    pub fn on_disk_of(&self, other: &Path, room: u64) -> u64 {
        let device = |path: &Path| std::fs::metadata(path).ok().map(|file| file.dev());
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let own = device(folder.unwrap_or(Path::new(".")));
        if own.is_none() || own != device(other) {
            return 0;
        }
        let Ok(disk) = rustix::fs::statvfs(other) else { return 0 };
        let total = disk.f_blocks.saturating_mul(disk.f_frsize);
        self.of(total, room, std::fs::metadata(&self.path).map_or(0, |file| file.len()))
    }

    fn of(&self, total: u64, room: u64, file: u64) -> u64 {
        // A disk that strangers have filled counts as what they left.
        let shared = total.min(room.saturating_add(file));
        // What ends a shortage, which a journal of usual length fits beside the reserve.
        let reserve = enough(reserve(total));
        reserve + self.bytes_max.min(shared / GROWTH_SHARE).saturating_sub(file)
    }
}

fn reserve(total: u64) -> u64 {
    RESERVE_BYTES.min(total / RESERVE_SHARE)
}

/// Free bytes that end a shortage: a little more than begin it, so that it does not come and go.
fn enough(reserve: u64) -> u64 {
    reserve + reserve / 4
}

/// What the database takes, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Size {
    /// The file, once the journal is taken over.
    pub(crate) file: u64,
    /// Of that, what holds nothing.
    pub(crate) spare: u64,
}

impl Size {
    pub(crate) fn used(self) -> u64 {
        self.file.saturating_sub(self.spare)
    }

    fn spare_wanted(self) -> u64 {
        SPARE_BYTES.min(self.file / SPARE_SHARE)
    }
}

/// What a disk has, in bytes.
#[derive(Debug, Clone, Copy)]
struct Disk {
    free: u64,
    reserve: u64,
}

impl Disk {
    /// That of the database at `path`, less what is still to come out of its journal; `None`: the disk
    /// does not say, and a write will.
    fn of(path: &Path, size: Size) -> Option<Self> {
        let file = std::fs::metadata(path).ok()?.len();
        let disk = rustix::fs::statvfs(path).ok()?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let total = disk.f_blocks.saturating_mul(disk.f_frsize);
        let free = free.saturating_sub(size.file.saturating_sub(file));
        Some(Self { free, reserve: reserve(total) })
    }
}

/// What is known of the disk.
#[derive(Debug, Default)]
pub(crate) struct Room {
    is_short: bool,
}

impl Room {
    /// Whether rows may be added to the database at `path`, or become longer.
    pub(crate) fn may_add(&mut self, path: &Path, size: Size) -> bool {
        Disk::of(path, size).is_none_or(|disk| self.allows(disk, size, path))
    }

    fn allows(&mut self, disk: Disk, size: Size, path: &Path) -> bool {
        let Disk { free, reserve } = disk;
        let was_short = self.is_short;
        self.is_short = free < if was_short { enough(reserve) } else { reserve };
        if self.is_short != was_short {
            let path = path.display();
            match self.is_short {
                true => tracing::warn!(%path, free, reserve, "the disk of heads is short of room: \
                    new ones take the place of old ones, or stay in memory"),
                false => tracing::info!(%path, free, "the disk of heads has room again"),
            }
        }
        !self.is_short || (free >= reserve / 2 && size.spare >= size.spare_wanted() / 2)
    }

    /// Bytes of rows that are to go.
    pub(crate) fn excess(&self, size: Size, bytes_max: u64) -> u64 {
        let wanted = if self.is_short { size.spare_wanted() } else { 0 };
        size.used().saturating_sub(bytes_max).max(wanted.saturating_sub(size.spare))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn others_leave_what_is_needed_and_no_more_than_a_part_of_a_small_disk() {
        let share = DiskShare::new(Path::new("heads.db"), 1 << 30);
        for (total, room, file, left) in [
            (1 << 20, 1 << 20, 0, 80 + 1024),
            (1 << 20, 1 << 20, 1000, 80 + 24),
            (1 << 20, 1 << 20, 1100, 80),
            (1 << 20, 400, 0, 80 + 50),
            (1 << 20, 380, 20, 80 + 50 - 20),
            (400, 400, 0, 80 + 50),
            (400, 340, 60, 80),
            (24, 24, 0, 6 + 3),
        ] {
            let found = share.of(total * MIB, room * MIB, file * MIB) / MIB;
            assert!(found.abs_diff(left) <= 1, "{total} {room} {file}: {found}, expected {left}");
        }
    }

    #[test]
    fn a_disk_that_is_short_of_room_is_not_filled() {
        let (path, mut room) = (Path::new("heads.db"), Room::default());
        let disk = |free| Disk { free: free * MIB, reserve: 64 * MIB };
        let size = |spare| Size { file: 400 * MIB, spare: spare * MIB };
        assert!(room.allows(disk(64), size(0), path));
        assert_eq!(room.excess(size(0), 400 * MIB), 0);
        assert_eq!(room.excess(size(0), 390 * MIB), 10 * MIB);
        assert!(!room.allows(disk(63), size(0), path));
        // Old rows make room for new ones.
        assert_eq!(room.excess(size(1), 400 * MIB), 15 * MIB);
        assert!(room.allows(disk(63), size(16), path));
        assert!(!room.allows(disk(31), size(16), path), "the journal has no room");
        assert!(!room.allows(disk(79), size(0), path), "too little more");
        assert!(room.allows(disk(80), size(0), path) && room.excess(size(0), 400 * MIB) == 0);
    }
}
