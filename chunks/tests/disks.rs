//! Disks that fail while they are in use: each is switched off within a second, no request
//! fails or waits for it, and it comes back by itself.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use nearcast_chunks::{Disk, Key, Sizes};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::fuse::{FaultyDisk, Mode};
use support::{MIB, Tiers, key, sizes};

const MEMORY: u64 = 64 << 20;
const DISK: u64 = 64 << 20;
/// Far more than the second in which a disk that fails is off: a busy machine fails no test.
const OFF_MAX: Duration = Duration::from_secs(10);
/// As that, for a disk whose writes hang: what it is allowed is most of the second.
const WRITES_OFF_MAX: Duration = Duration::from_secs(2);
/// Far more than the 50 ms after which a read is bypassed.
const BYPASSED_MAX: Duration = Duration::from_secs(2);

/// See [`FaultyDisk::mount`].
const SERVER: &str = "process_that_serves_a_faulty_disk";

/// Not a test by itself: the process that other tests start.
#[test]
fn process_that_serves_a_faulty_disk() {
    support::fuse::serve();
}

/// Tiers over one faulty disk and, if need be, a sound one.
async fn tiers_over(faulty: &FaultyDisk, data: &std::path::Path, sound: usize) -> Tiers {
    let sound = sizes(data, MEMORY, sound, DISK);
    let disks =
        [vec![Disk { dir: faulty.dir.clone(), bytes: DISK, direct: true }], sound.disks].concat();
    Tiers::start(Sizes { disks, ..sound }).await
}

/// Puts chunks on disk and makes memory forget them.
async fn stored(tiers: &Tiers, body: u32) -> Vec<Key> {
    let keys: Vec<Key> = (0..12).map(|number| key(body, number)).collect();
    for key in &keys {
        tiers.keep(*key, MIB).await;
    }
    tiers.written().await;
    tiers.forget_memory();
    keys
}

/// Asks for chunks as long as `more`; says how long the longest answer took.
async fn ask_while(tiers: &Tiers, keys: &[Key], more: impl Fn(&Tiers) -> bool) -> Duration {
    let (began, mut longest) = (Instant::now(), Duration::ZERO);
    while more(tiers) && began.elapsed() < 2 * OFF_MAX {
        for key in keys {
            let asked = Instant::now();
            if tiers.get(*key, MIB).await.is_none() {
                // The next source has it; not kept, so that the disk is asked again.
                tokio::task::yield_now().await;
            }
            longest = longest.max(asked.elapsed());
        }
        tiers.forget_memory();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    longest
}

/// A disk that reads are asked of goes wrong as `mode` says: it is off within a second, and
/// back with all its chunks once it is sound.
async fn goes_wrong(mode: Mode, reason: &str) {
    let Some(mut disk) = FaultyDisk::mount(SERVER) else { return };
    let data = tempfile::tempdir().unwrap();
    let tiers = tiers_over(&disk, data.path(), 0).await;
    let keys = stored(&tiers, 1).await;
    assert!(tiers.find(keys[0], MIB).await.is_some());
    tiers.forget_memory();

    let began = Instant::now();
    disk.set(mode);
    let longest = ask_while(&tiers, &keys, |tiers| tiers.disks_up() == 1).await;
    let off = began.elapsed();
    println!("{mode:?}: off after {off:?}, the longest read took {longest:?}");
    assert!(off < OFF_MAX, "{mode:?}: off after {off:?}");
    assert!(longest < BYPASSED_MAX, "{mode:?}: a read waited {longest:?}");
    assert!(tiers.metric("ssd_troubles_total", reason) > 0);
    // Off: no one waits for it any more.
    assert!(tiers.get(keys[0], MIB).await.is_none());

    disk.set(Mode::Sound);
    tiers.until("the disk is back", |tiers| tiers.disks_up() == 1).await;
    let hits = |tiers: &Tiers| keys.iter().all(|key| tiers.chunks.may_be_on_disk(key));
    tiers.until("its chunks are back", hits).await;
    assert_eq!(tiers.metric("ssd_mismatches_total", ""), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_is_bypassed_switched_off_and_comes_back() {
    goes_wrong(Mode::Hangs, "slow").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_whose_reads_hang_is_bypassed_switched_off_and_comes_back() {
    goes_wrong(Mode::ReadsHang, "slow").await;
}

/// Asks for a chunk whose read hangs: it is passed by, and counted. What `meanwhile` changes, the
/// read finds when it comes to its end.
async fn late(disk: &mut FaultyDisk, tiers: &Tiers, key: Key, meanwhile: impl FnOnce()) {
    let slow = tiers.metric("ssd_reads_total", "slow");
    disk.set(Mode::ReadsHang);
    let asked = Instant::now();
    assert!(tiers.get(key, MIB).await.is_none());
    assert!(asked.elapsed() < BYPASSED_MAX, "passed by after {:?}", asked.elapsed());
    assert!(tiers.chunks.in_memory(&key).is_none());
    assert_eq!(tiers.metric("ssd_reads_total", "slow"), slow + 1);
    meanwhile();
    disk.set(Mode::Sound);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_read_brings_too_late_is_kept_if_it_is_whole_and_of_no_harm_if_it_is_not() {
    let Some(mut disk) = FaultyDisk::mount(SERVER) else { return };
    let data = tempfile::tempdir().unwrap();
    let tiers = tiers_over(&disk, data.path(), 0).await;
    let keys = stored(&tiers, 1).await;
    late(&mut disk, &tiers, keys[0], || ()).await;
    let come = |tiers: &Tiers| tiers.chunks.in_memory(&keys[0]).is_some();
    tiers.until("the late chunk", come).await;
    assert!(tiers.get(keys[0], MIB).await.is_some(), "its bytes are right");

    let reads = |tiers: &Tiers| tiers.metric("ssd_reads_total", "");
    let before = reads(&tiers);
    let backing = disk.backing.clone();
    late(&mut disk, &tiers, keys[1], || overwrite(&backing)).await;
    // The one that was too slow, and the same when it has come to its end.
    tiers.until("the end of the late read", |tiers| reads(tiers) >= before + 2).await;
    assert!(tiers.chunks.in_memory(&keys[1]).is_none());
    assert!(tiers.find(keys[1], MIB).await.is_none(), "it is asked for elsewhere");
}

/// Every byte that is stored turns into another.
fn overwrite(backing: &std::path::Path) {
    for entry in std::fs::read_dir(backing).unwrap() {
        let path = entry.unwrap().path();
        let bytes: Vec<u8> = std::fs::read(&path).unwrap().iter().map(|byte| !byte).collect();
        std::fs::write(path, bytes).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_whose_reads_fail_is_switched_off_and_comes_back() {
    goes_wrong(Mode::ReadsFail, "failed").await;
}

/// Offers chunks that can't be written until the disk is off; it comes back when `mend`ed.
async fn takes_no_more(tiers: &Tiers, keys: &[Key], mend: impl FnOnce()) {
    let mut body = 100;
    while tiers.disks_up() == 1 {
        for number in 0..8 {
            assert!(tiers.get(key(body, number), MIB).await.is_none());
            tiers.insert(key(body, number), MIB);
            assert!(tiers.get(key(body, number), MIB).await.is_some());
        }
        body += 1;
        assert!(body < 200, "never off");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(tiers.metric("ssd_troubles_total", "failed") > 0);
    assert!(tiers.metric("ssd_drops_total", "") > 0);
    assert!(tiers.metric("ssd_drops_total", "failed") > 0);

    mend();
    tiers.until("the disk is back", |tiers| tiers.disks_up() == 1).await;
    tiers.forget_memory();
    for key in keys {
        assert!(tiers.find(*key, MIB).await.is_some());
    }
    tiers.keep(key(99, 0), MIB).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_whose_writes_fail_is_switched_off_and_comes_back() {
    let Some(mut disk) = FaultyDisk::mount(SERVER) else { return };
    let data = tempfile::tempdir().unwrap();
    let tiers = tiers_over(&disk, data.path(), 0).await;
    let keys = stored(&tiers, 1).await;
    disk.set(Mode::WritesFail);
    takes_no_more(&tiers, &keys, || disk.set(Mode::Sound)).await;
}

/// Panics of foyer's writer so far, of any test here.
static WRITERS_PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let is_writers = panic.location().is_some_and(|at| at.file().ends_with("flusher.rs"));
            WRITERS_PANICS.fetch_add(usize::from(is_writers), Ordering::SeqCst);
            told(panic);
        }));
    });
}

/// foyer's writer has no buffer for the next batch while a write of one that failed is under way,
/// and panics if it is asked for anything. It was, by the store's end.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_where_one_write_of_a_batch_fails_and_one_hangs_is_switched_off_and_comes_back() {
    count_panics();
    let Some(mut disk) = FaultyDisk::mount(SERVER) else { return };
    let data = tempfile::tempdir().unwrap();
    let tiers = tiers_over(&disk, data.path(), 0).await;
    // The block that is being filled is the second; a full batch goes on to the third.
    let keys = stored(&tiers, 1).await;
    disk.set(Mode::WritesFailOrHang);
    takes_no_more(&tiers, &keys, || disk.set(Mode::Sound)).await;
    assert_eq!(WRITERS_PANICS.load(Ordering::SeqCst), 0);
}

/// Reads still work, and so do looks: nothing but the batch tells that this disk hangs.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_whose_writes_hang_is_switched_off_and_comes_back() {
    let Some(mut disk) = FaultyDisk::mount(SERVER) else { return };
    let data = tempfile::tempdir().unwrap();
    let tiers = tiers_over(&disk, data.path(), 0).await;
    let keys = stored(&tiers, 1).await;
    disk.set(Mode::WritesHang);
    tiers.keep(key(100, 0), MIB).await;
    let off = tiers.until("the disk is off", |tiers| tiers.disks_up() == 0).await;
    println!("off after {off:?}");
    assert!(off < WRITES_OFF_MAX, "off after {off:?}");
    assert_eq!(tiers.metric("ssd_troubles_total", "slow"), 1);
    // What waited for it is served, and no longer waits.
    assert!(tiers.get(key(100, 0), MIB).await.is_some());
    assert_eq!(tiers.metric("ssd_queue_bytes", ""), 0);

    disk.set(Mode::Sound);
    tiers.until("the disk is back", |tiers| tiers.disks_up() == 1).await;
    tiers.forget_memory();
    for key in &keys {
        assert!(tiers.find(*key, MIB).await.is_some());
    }
    tiers.keep(key(99, 0), MIB).await;
    tiers.written().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_space_is_switched_off_and_comes_back() {
    let Some(mut disk) = FaultyDisk::mount(SERVER) else { return };
    let data = tempfile::tempdir().unwrap();
    let tiers = tiers_over(&disk, data.path(), 0).await;
    let keys = stored(&tiers, 1).await;
    disk.set(Mode::Full);
    takes_no_more(&tiers, &keys, || disk.set(Mode::Sound)).await;
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
                support::fuse::skipped(&format!("mount: {other:?}"));
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
    tiers.until("the disk is back", |tiers| tiers.disks_up() == 1).await;
    tiers.forget_memory();
    for key in &keys {
        assert!(tiers.find(*key, MIB).await.is_some());
    }
    tiers.keep(key(99, 0), MIB).await;
    tiers.written().await;
    assert_eq!(tiers.metric("ssd_mismatches_total", ""), 0);
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

#[tokio::test(flavor = "multi_thread")]
async fn one_hanging_disk_of_two_costs_its_share_alone() {
    let Some(mut disk) = FaultyDisk::mount(SERVER) else { return };
    let data = tempfile::tempdir().unwrap();
    let tiers = tiers_over(&disk, data.path(), 1).await;
    let keys = stored(&tiers, 1).await;
    disk.set(Mode::Hangs);
    ask_while(&tiers, &keys, |tiers| tiers.disks_up() == 2).await;
    let mut hits = 0;
    for key in &keys {
        hits += usize::from(tiers.find(*key, MIB).await.is_some());
    }
    assert!((1..keys.len()).contains(&hits), "{hits} of {}", keys.len());
    // New chunks go to the disk that is left.
    for key in stored(&tiers, 2).await {
        assert!(tiers.find(key, MIB).await.is_some());
    }
}
