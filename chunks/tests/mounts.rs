//! Disks that are unmounted, mounted again or by others, filled by others, and folders that vanish:
//! each is off meanwhile and comes back by itself.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use nearcast_chunks::{Disk, KeptFree, Sizes};
use std::os::unix::fs::{FileExt, MetadataExt};
use support::fuse::{self, FaultyDisk};
use support::{DISK, MEMORY, MIB, Tiers, comes_back, sizes, stored, takes_no_more, tiers_over};

/// See [`FaultyDisk::mount`].
const SERVER: &str = "process_that_serves_a_faulty_disk";

/// Not a test by itself: the process that other tests start.
#[test]
fn process_that_serves_a_faulty_disk() {
    fuse::serve();
}

/// A folder in memory, of a size; unmounted when dropped.
struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    fn mount(dir: std::path::PathBuf, mib: u32) -> Option<Self> {
        std::fs::create_dir_all(&dir).unwrap();
        let mut mount = std::process::Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "none"]).arg(&dir);
        match mount.output() {
            Ok(output) if output.status.success() => Some(Self(dir)),
            other => {
                fuse::skipped(&format!("mount: {other:?}"));
                None
            }
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_far_smaller_than_its_setting_is_used_as_it_is() {
    let data = tempfile::tempdir().unwrap();
    let Some(disk) = Tmpfs::mount(data.path().join("small"), 400) else { return };
    let sizes = Sizes {
        disks: vec![Disk { dir: disk.0.clone(), bytes: 4 << 40, direct: true }],
        ..sizes(data.path(), MEMORY, 0, DISK)
    };
    let tiers = Tiers::start(sizes).await;
    for key in stored(&tiers, 1).await {
        assert!(tiers.get(key, MIB).await.is_some(), "{key:?}");
    }
}

/// Writes all that the tier's files on a disk may take. Returns that.
fn fill(dir: &std::path::Path) -> u64 {
    let mut bytes = 0;
    for file in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
        let len = file.metadata().unwrap().len();
        file.write_all_at(&vec![1; len as usize], 0).unwrap();
        bytes += len;
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_of_the_tier_leaves_others_as_much_after_each_restart() {
    const KEPT: u64 = 50 << 20;
    let data = tempfile::tempdir().unwrap();
    let Some(disk) = Tmpfs::mount(data.path().join("small"), 400) else { return };
    let sizes = Sizes {
        disks: vec![Disk { dir: disk.0.clone(), bytes: 4 << 40, direct: true }],
        kept_free: KeptFree::new(|_, _| KEPT),
        ..sizes(data.path(), MEMORY, 0, DISK)
    };
    let mut left = Vec::new();
    for _ in 0..3 {
        let tiers = Tiers::start(sizes.clone()).await;
        let device = std::fs::metadata(&disk.0).unwrap().dev();
        assert_eq!(tiers.chunks.bytes_to_come(device + 1), 0);
        let to_come = tiers.chunks.bytes_to_come(device);
        let bytes = fill(&disk.0);
        // It is all to come, at first.
        assert!(
            to_come <= bytes && (to_come > bytes / 2 || !left.is_empty()),
            "{to_come}, {bytes}"
        );
        tiers.chunks.close(std::time::Duration::from_secs(5)).await;
        drop(tiers);
        let disk = rustix::fs::statvfs(&disk.0).unwrap();
        left.push(disk.f_bavail * disk.f_frsize);
    }
    let (least, most) = (*left.iter().min().unwrap(), *left.iter().max().unwrap());
    // Some pages are the others'.
    assert!(most - least < MIB as u64 && least >= KEPT, "{left:?}");
}

/// Each would else take what is free for its own.
#[tokio::test(flavor = "multi_thread")]
async fn folders_of_one_disk_share_what_it_has_and_do_so_after_each_restart() {
    const DISK_MIB: u32 = 600;
    let data = tempfile::tempdir().unwrap();
    let Some(disk) = Tmpfs::mount(data.path().join("one"), DISK_MIB) else { return };
    let folder = |name| Disk { dir: disk.0.join(name), bytes: 4 << 40, direct: true };
    let sizes =
        Sizes { disks: vec![folder("a"), folder("b")], ..sizes(data.path(), MEMORY, 0, DISK) };
    let length = |folder: &Disk| -> u64 {
        let files = std::fs::read_dir(&folder.dir).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    };
    let mut lengths = Vec::new();
    for _ in 0..2 {
        let tiers = Tiers::start(sizes.clone()).await;
        lengths.extend(sizes.disks.iter().map(length));
        tiers.chunks.close(std::time::Duration::from_secs(5)).await;
        drop(tiers);
        fill(&sizes.disks[0].dir);
    }
    println!("{lengths:?}");
    let (least, most) = (*lengths.iter().min().unwrap(), *lengths.iter().max().unwrap());
    let all = u64::from(DISK_MIB) << 20;
    assert!(
        most - least < 16 * MIB as u64 && 2 * most <= all && 2 * least > all / 2,
        "{lengths:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_others_fill_comes_back_with_the_space_there_is() {
    let data = tempfile::tempdir().unwrap();
    let Some(disk) = Tmpfs::mount(data.path().join("small"), 160) else { return };
    let sizes = Sizes {
        disks: vec![Disk { dir: disk.0.clone(), bytes: DISK, direct: true }],
        ..sizes(data.path(), MEMORY, 0, DISK)
    };
    let tiers = Tiers::start(sizes).await;
    let keys = stored(&tiers, 1).await;
    // All but some MiB.
    let filler = disk.0.join("others");
    let free = || rustix::fs::statvfs(&disk.0).unwrap();
    let bytes = (free().f_bavail * free().f_frsize) as usize - 3 * MIB;
    std::fs::write(&filler, vec![1; bytes]).unwrap();
    takes_no_more(&tiers, &keys, || std::fs::remove_file(&filler).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_vanishes_is_given_up_and_used_again_when_it_is_back() {
    let tiers = Tiers::open(MEMORY, 2, DISK).await;
    let keys = stored(&tiers, 1).await;
    let (dir, away) = (tiers.dir(0), tiers.dir(0).with_extension("away"));
    std::fs::rename(&dir, &away).unwrap();
    tiers.until("the disk is off", |tiers| tiers.disks_up() == 1).await;
    assert_eq!(tiers.metric("ssd_troubles_total", "gone"), 1);
    assert_eq!(tiers.metric("ssd_up", &dir.display().to_string()), 0);
    // The other disk's share is where it was.
    let mut hits = 0;
    for key in &keys {
        hits += usize::from(tiers.find(*key, MIB).await.is_some());
    }
    assert!((1..keys.len()).contains(&hits), "{hits} of {}", keys.len());

    // It may be made anew meanwhile: what is there counts, then.
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::rename(&away, &dir).unwrap();
    let back = |tiers: &Tiers| keys.iter().all(|key| tiers.chunks.may_be_on_disk(key));
    tiers.until("its chunks are back", back).await;
}

/// Waits until the one disk, which is off, was tried once more in vain.
async fn tried_in_vain(tiers: &Tiers) {
    let before = tiers.metric("ssd_troubles_total", "gone");
    let tried = |tiers: &Tiers| tiers.metric("ssd_troubles_total", "gone") > before;
    tiers.until("another try", tried).await;
    assert_eq!(tiers.disks_up(), 0);
}

fn names(dir: &std::path::Path) -> Vec<std::ffi::OsString> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_mounted_again_as_another_device_is_used_with_all_that_it_has() {
    let Some(mut disk) = FaultyDisk::mount(SERVER) else { return };
    let data = tempfile::tempdir().unwrap();
    let tiers = tiers_over(&disk, data.path(), 0).await;
    let keys = stored(&tiers, 1).await;
    let device = |disk: &FaultyDisk| std::fs::metadata(&disk.dir).unwrap().dev();
    let before = device(&disk);
    // Its number is not given to the next one.
    let _held = std::fs::File::open(&disk.dir).unwrap();
    disk.unmount();
    tiers.until("the disk is off", |tiers| tiers.disks_up() == 0).await;
    tried_in_vain(&tiers).await;
    assert!(names(&disk.dir).is_empty(), "the folder below is not used");

    disk.mount_back(SERVER);
    assert_ne!(device(&disk), before);
    comes_back(&tiers, &keys).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_disk_in_the_place_of_another_is_used_as_new_and_one_with_others_files_is_not() {
    let data = tempfile::tempdir().unwrap();
    let dir = data.path().join("disk");
    let Some(first) = Tmpfs::mount(dir.clone(), 160) else { return };
    let sizes = Sizes {
        disks: vec![Disk { dir: dir.clone(), bytes: DISK, direct: true }],
        ..sizes(data.path(), MEMORY, 0, DISK)
    };
    let tiers = Tiers::start(sizes).await;
    let keys = stored(&tiers, 1).await;
    // Its device's number is not given to the next one.
    let _held = std::fs::File::open(dir.join("lock")).unwrap();
    drop(first);
    tiers.until("the disk is off", |tiers| tiers.disks_up() == 0).await;

    let _second = Tmpfs::mount(dir.clone(), 160).unwrap();
    std::fs::write(dir.join("film"), "of others").unwrap();
    tried_in_vain(&tiers).await;
    assert_eq!(names(&dir), ["film"]);
    std::fs::remove_file(dir.join("film")).unwrap();
    tiers.until("the disk is back", |tiers| tiers.disks_up() == 1).await;
    assert!(!tiers.chunks.may_be_on_disk(&keys[0]));
    tiers.keep(keys[0], MIB).await;
    tiers.written().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_a_folders_place_is_told_from_files_that_are_gone() {
    let tiers = Tiers::open(MEMORY, 1, DISK).await;
    let dir = tiers.dir(0);
    // The disk's next try may make the folder anew.
    while std::fs::write(&dir, "").is_err() {
        let _ = std::fs::remove_dir_all(&dir);
    }
    let failed = |tiers: &Tiers| tiers.metric("ssd_troubles_total", "failed") > 0;
    tiers.until("the file is told of", failed).await;
    std::fs::remove_file(&dir).unwrap();
    tiers.until("the disk is back", |tiers| tiers.disks_up() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_folder_is_used_again() {
    let tiers = Tiers::open(MEMORY, 1, DISK).await;
    let keys = stored(&tiers, 1).await;
    std::fs::remove_dir_all(tiers.dir(0)).unwrap();
    tiers.until("the disk is off", |tiers| tiers.disks_up() == 0).await;
    tiers.until("the disk is back", |tiers| tiers.disks_up() == 1).await;
    assert!(!tiers.chunks.may_be_on_disk(&keys[0]));
    tiers.keep(keys[0], MIB).await;
}
