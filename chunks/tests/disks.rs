//! Disks that fail while they are in use: each is switched off within a second, no request
//! fails or waits for it, and it comes back by itself.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use nearcast_chunks::Key;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::fuse::{FaultyDisk, Mode};
use support::{MIB, Tiers, comes_back, key, stored, takes_no_more, tiers_over};

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
    comes_back(&tiers, &keys).await;
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
    comes_back(&tiers, &keys).await;
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
