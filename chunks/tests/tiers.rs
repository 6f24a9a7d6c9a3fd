//! The tiers as an edge uses them: what goes to disk, and what comes back after a restart.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use nearcast_chunks::{Key, Sizes};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{MIB, Tiers, key, sizes};

const MEMORY: u64 = 64 << 20;
const DISK: u64 = 256 << 20;
const SMALL_DISK: u64 = 64 << 20;
/// No read of a disk is late, however busy the machine is.
const PATIENT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_disk_takes_what_is_asked_for_once_and_is_filled_once() {
    let tiers = Tiers::open(MEMORY, 1, SMALL_DISK).await;
    let once = key(1, 0);
    assert!(tiers.get(once, MIB).await.is_none());
    tiers.insert(once, MIB);
    tiers.written().await;
    tiers.forget_memory();
    assert!(tiers.find(once, MIB).await.is_some());

    tiers.fill().await;
    let written = tiers.metric("ssd_written_bytes_total", "");
    // Four of its seven blocks of 8 MiB are kept empty or being filled; what waited when the room was
    // gone took that of two at most.
    assert!(written > SMALL_DISK / 3 && written <= SMALL_DISK + (16 << 20), "{written}");
    assert!(tiers.metric("ssd_evicted_blocks_total", "") <= 2);
    // It is full after a restart, too.
    let tiers = tiers.crash().await;
    let other = key(2, 0);
    assert!(tiers.get(other, MIB).await.is_none());
    tiers.insert(other, MIB);
    tiers.written().await;
    assert_eq!(tiers.metric("ssd_written_bytes_total", ""), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_full_disk_a_chunk_asked_for_twice_comes_when_memory_forgot_it() {
    let tiers = Tiers::open(MEMORY, 1, SMALL_DISK).await;
    tiers.fill().await;
    let (once, twice) = (key(1, 0), key(1, 1));
    tiers.insert(once, MIB);
    tiers.keep(twice, MIB - 5).await;
    tiers.written().await;
    tiers.forget_memory();
    assert!(!tiers.chunks.is_in_memory(&twice));
    assert!(tiers.find(twice, MIB - 5).await.is_some());
    assert!(tiers.chunks.is_in_memory(&twice), "in memory from then on");
    assert!(tiers.get(once, MIB).await.is_none());

    // Asked for and fetched a second time, it goes to disk at once.
    assert!(tiers.get(once, MIB).await.is_none());
    tiers.insert(once, MIB);
    tiers.until("it is on its way", |tiers| tiers.chunks.may_be_on_disk(&once)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn derived_bytes_stay_in_memory() {
    let tiers = Tiers::open(MEMORY, 1, DISK).await;
    let key = key(1, 0);
    tiers.chunks.insert_in_memory(key, bytes::Bytes::from_static(b"a playlist"));
    for _ in 0..200 {
        assert!(tiers.chunks.in_memory(&key).is_some());
    }
    assert!(!tiers.chunks.may_be_on_disk(&key));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_disk_memory_serves() {
    let tiers = Tiers::open(MEMORY, 0, DISK).await;
    tiers.insert(key(1, 0), MIB);
    assert!(tiers.get(key(1, 0), MIB).await.is_some());
    assert!(tiers.get(key(1, 1), MIB).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_disk_gets_its_share() {
    let tiers = Tiers::open(MEMORY, 2, DISK).await;
    let keys: Vec<Key> = (0..200).map(|number| key(2, number)).collect();
    for key in &keys {
        tiers.keep(*key, 60_000).await;
    }
    let stored = |disk: usize| {
        let files = std::fs::read_dir(tiers.dir(disk)).unwrap();
        let blocks = |file: std::fs::DirEntry| {
            std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap())
        };
        files.map(|file| blocks(file.unwrap()) * 512).sum::<u64>()
    };
    tiers.written().await;
    for disk in 0..2 {
        assert!(stored(disk) > 60 * 60_000, "{}", stored(disk));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_every_chunk_that_reached_its_disk_is_a_hit() {
    let tiers = Tiers::open(MEMORY, 2, DISK).await;
    let keys: Vec<Key> = (0..150).map(|number| key(3, number)).collect();
    let length = |key: &Key| 1 + (key.number as usize * 7919) % MIB;
    for key in &keys {
        tiers.keep(*key, length(key)).await;
    }
    tiers.written().await;
    let tiers = tiers.crash().await;
    let mut hits = 0;
    for key in &keys {
        hits += usize::from(tiers.find(*key, length(key)).await.is_some());
    }
    assert!(hits * 100 >= keys.len() * 99, "{hits} of {}", keys.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_restart_writes_what_memory_held_and_warms_it_again() {
    let tiers = Tiers::open(MEMORY, 1, DISK).await;
    let keys: Vec<Key> = (0..40).map(|number| key(4, number)).collect();
    for key in &keys {
        tiers.insert(*key, MIB);
    }
    let hot = &keys[30..];
    for key in hot {
        assert!(tiers.get(*key, MIB).await.is_some());
    }
    let tiers = tiers.restart().await;
    let warm = |tiers: &Tiers| hot.iter().all(|key| tiers.chunks.is_in_memory(key));
    tiers.until("the hottest are warm", warm).await;
    for key in &keys {
        assert!(tiers.find(*key, MIB).await.is_some());
    }
}

/// Memory is smaller by then: what fits is what was used most, whenever it came.
#[tokio::test(flavor = "multi_thread")]
async fn the_hottest_chunks_come_back_first() {
    const USES: usize = 3;
    let tiers = Tiers::open(MEMORY, 1, DISK).await;
    let keys: Vec<Key> = (0..40).map(|number| key(5, number)).collect();
    for key in &keys {
        tiers.insert(*key, MIB);
    }
    let is_hot = |key: &&Key| key.number % 4 == 1;
    for _ in 0..USES {
        for key in keys.iter().filter(is_hot) {
            assert!(tiers.get(*key, MIB).await.is_some());
        }
    }
    // Ten are hot; all but two MiB of memory are filled.
    let small = |sizes: &mut Sizes| (sizes.memory_bytes, sizes.read_max) = (16 << 20, PATIENT);
    let tiers = tiers.restart_and(small).await;
    let in_memory = |tiers: &Tiers| {
        let there: Vec<Key> =
            keys.iter().filter(|key| tiers.chunks.is_in_memory(key)).copied().collect();
        there
    };
    tiers.until("memory is warm", |tiers| in_memory(tiers).len() >= 12).await;
    let there = in_memory(&tiers);
    assert!(keys.iter().filter(is_hot).all(|key| there.contains(key)), "{there:?}");
}

/// More than memory holds passes through it before anybody has asked for what came back.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_hot_before_restarts_outlives_a_scan() {
    let mut tiers = Tiers::open(MEMORY, 1, DISK).await;
    let keys: Vec<Key> = (0..40).map(|number| key(8, number)).collect();
    for key in &keys {
        tiers.insert(*key, MIB);
    }
    let hot = &keys[10..30];
    for key in hot {
        assert!(tiers.get(*key, MIB).await.is_some());
    }
    // As for an upgrade and for what it broke, without a request in between; and once more before
    // what was hot is here.
    for _ in 0..2 {
        tiers = tiers.restart_and(|sizes| sizes.read_max = PATIENT).await;
        tiers = tiers.restart_and(|sizes| sizes.read_max = PATIENT).await;
        let warm = |tiers: &Tiers| keys.iter().all(|key| tiers.chunks.is_in_memory(key));
        tiers.until("all are warm", warm).await;
    }
    for number in 0..100 {
        tiers.insert(key(9, number), MIB);
    }
    let held = |keys: &[Key]| keys.iter().filter(|key| tiers.chunks.is_in_memory(key)).count();
    assert_eq!(held(hot), hot.len());
    // What nobody had asked for is as new.
    assert_eq!(held(&keys[..10]) + held(&keys[30..]), 0);
}

/// The rate is a limit: however quick the disk is, it takes its time. A slow one takes longer.
#[tokio::test(flavor = "multi_thread")]
async fn memory_is_warmed_at_a_bounded_rate() {
    const BYTES_PER_S: f64 = (128 << 20) as f64;
    let tiers = Tiers::open(MEMORY, 1, DISK).await;
    let keys: Vec<Key> = (0..50).map(|number| key(6, number)).collect();
    for key in &keys {
        tiers.insert(*key, MIB);
    }
    let mut began = None;
    let begins = |sizes: &mut Sizes| {
        sizes.read_max = PATIENT;
        began = Some(Instant::now());
    };
    let tiers = tiers.restart_and(begins).await;
    let warm = |tiers: &Tiers| keys.iter().all(|key| tiers.chunks.is_in_memory(key));
    tiers.until("all are warm", warm).await;
    let (took, before_last) = (began.unwrap().elapsed(), (keys.len() - 1) * MIB);
    println!("{} chunks in {took:?}", keys.len());
    assert!(took.as_secs_f64() >= before_last as f64 / BYTES_PER_S, "{took:?}");
}

/// Blocks of a smaller disk may be smaller: chunks that lay beyond their ends can't be read.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_to_be_smaller_is_used_without_what_its_larger_blocks_held() {
    let tiers = Tiers::open(MEMORY, 1, 4 << 30).await;
    let keys: Vec<Key> = (0..15).map(|number| key(7, number)).collect();
    for key in &keys {
        tiers.keep(*key, MIB).await;
    }
    let tiers = tiers.restart_and(|sizes| sizes.disks[0].bytes = 2 << 30).await;
    for key in &keys {
        tiers.find(*key, MIB).await;
    }
    assert_eq!(tiers.metric("ssd_troubles_total", ""), 0);
    tiers.keep(keys[14], MIB).await;
    tiers.written().await;
    tiers.forget_memory();
    assert!(tiers.find(keys[14], MIB).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_again_stays_on_disk_while_others_pass_through() {
    let tiers = Tiers::open(32 << 20, 1, 64 << 20).await;
    let hot: Vec<Key> = (0..10).map(|number| key(10, number)).collect();
    let (mut passing, mut missed) = (100, 0);
    for round in 0..20 {
        for key in &hot {
            if tiers.find(*key, MIB).await.is_none() {
                // What is hot has to be learned first.
                missed += usize::from(round >= 10);
                tiers.insert(*key, MIB);
                assert!(tiers.get(*key, MIB).await.is_some());
            }
        }
        for _ in 0..20 {
            // Asked for twice, and never again.
            assert!(tiers.get(key(passing, 0), MIB).await.is_none());
            tiers.insert(key(passing, 0), MIB);
            assert!(tiers.get(key(passing, 0), MIB).await.is_some());
            passing += 1;
        }
        tiers.written().await;
    }
    let evicted = tiers.metric("ssd_evicted_blocks_total", "");
    let held = hot.iter().filter(|key| tiers.chunks.may_be_on_disk(key)).count();
    let kept = tiers.metric("ssd_kept_bytes_total", "");
    println!(
        "{evicted} blocks evicted, {kept} bytes kept, {missed} missed, {held} of 10 hot chunks on disk"
    );
    assert!(missed <= 20, "{missed} of the last 100 requests for hot chunks missed");
    assert!(evicted > 8);
    assert!(held >= 8, "{held} of 10 hot chunks are on disk");
}

/// A full disk after a start, and so many chunks of those that it has had for longest.
async fn on_a_full_disk(body: u32, count: u32, cleanly: bool) -> (Tiers, Vec<Key>) {
    let tiers = Tiers::open(32 << 20, 1, u64::from(count) << 23).await;
    // Of the first ones some may go before the disk takes no more.
    let written: Vec<Key> = (0..count + 24).map(|number| key(body, number)).collect();
    for key in &written {
        tiers.keep(*key, MIB).await;
    }
    tiers.fill().await;
    tiers.forget_memory();
    let tiers = if cleanly { tiers.restart().await } else { tiers.crash().await };
    let is_there = |key: &&Key| tiers.chunks.may_be_on_disk(key);
    let oldest: Vec<Key> = written.iter().filter(is_there).take(count as usize).copied().collect();
    assert_eq!(oldest.len(), count as usize);
    (tiers, oldest)
}

/// What was written before a restart, too.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_again_stays_on_disk_over_restarts_while_others_pass_through() {
    for cleanly in [true, false] {
        let (tiers, hot) = on_a_full_disk(12, 20, cleanly).await;
        for _ in 0..5 {
            for key in &hot {
                assert!(tiers.find(*key, MIB).await.is_some());
            }
        }
        // Each is asked for twice, and earns what writing it and one that is hot costs. The blocks that
        // held what is hot have their turn to go, and the next ones.
        let evicted = |tiers: &Tiers| tiers.metric("ssd_evicted_blocks_total", "");
        for passing in (0..100).take_while(|_| evicted(&tiers) < 6) {
            tiers.keep(key(100 + passing, 0), MIB).await;
            tiers.written().await;
        }
        let held = hot.iter().filter(|key| tiers.chunks.may_be_on_disk(key)).count();
        println!("{held} of 20 hot chunks on disk");
        assert!(evicted(&tiers) >= 6);
        assert!(held >= 16, "{held} of 20 hot chunks are on disk, closed cleanly: {cleanly}");
    }
}

/// What memory holds besides would take the place of what is hot.
#[tokio::test(flavor = "multi_thread")]
async fn a_clean_restart_over_a_full_disk_brings_back_what_is_hot() {
    let (mut tiers, hot) = on_a_full_disk(13, 16, true).await;
    for round in 0..3 {
        for key in hot.iter().cycle().take(5 * hot.len()) {
            assert!(tiers.find(*key, MIB).await.is_some(), "{round}");
        }
        // Some are asked for twice, and written at the end at the latest.
        for number in 0..12 {
            let other = key(200 + round, number);
            tiers.chunks.requested(&other, MIB);
            tiers.insert(other, MIB);
            if number < 6 {
                assert!(tiers.get(other, MIB).await.is_some());
            }
        }
        let is_here = |tiers: &Tiers, key: &Key| tiers.chunks.is_in_memory(key);
        let here: Vec<Key> = hot.iter().filter(|key| is_here(&tiers, key)).copied().collect();
        assert!(here.len() >= 12, "{round}: {} of 16 are hot", here.len());
        tiers = tiers.restart_and(|sizes| sizes.read_max = PATIENT).await;
        let warm = |tiers: &Tiers| here.iter().all(|key| is_here(tiers, key));
        tiers.until("what was hot is here", warm).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disks_are_spared_what_is_asked_for_once() {
    const REQUESTS: u32 = 3_000;
    const BYTES: usize = 200_000;
    let tiers = Tiers::open(32 << 20, 2, SMALL_DISK).await;
    tiers.fill().await;
    let filled = tiers.metric("ssd_written_bytes_total", "");
    let mut random = StdRng::seed_from_u64(1);
    let (mut missed, mut on_disk) = (0, 0);
    for number in 0..REQUESTS {
        // Six in ten are asked for once; of the other four hundred the first are far hotter.
        let often = key((400.0 * random.random::<f64>().powi(2)) as u32, 0);
        let key = if random.random_bool(0.6) { key(1_000 + number, 0) } else { often };
        let in_memory = tiers.chunks.is_in_memory(&key);
        match tiers.find(key, BYTES).await {
            Some(_) => on_disk += u32::from(!in_memory),
            None => {
                missed += BYTES as u64;
                tiers.insert(key, BYTES);
            }
        }
    }
    tiers.written().await;
    let written = tiers.metric("ssd_written_bytes_total", "") - filled;
    println!("{missed} bytes missed, {written} written, {on_disk} hits on disk");
    assert!(written * 2 <= missed, "{written} bytes written, {missed} missed");
    assert!(on_disk > 20, "{on_disk} hits on disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_makes_room_and_holds_the_newest() {
    let tiers = Tiers::open(MEMORY, 1, 64 << 20).await;
    let keys: Vec<Key> = (0..120).map(|number| key(5, number)).collect();
    for key in &keys {
        tiers.keep(*key, MIB).await;
        tiers.written().await;
    }
    assert!(tiers.metric("ssd_evicted_blocks_total", "") >= 8);
    // A block's list goes with what it held: the one being filled, and those that are kept empty, have
    // none.
    let files = |prefix: &str| {
        let names = std::fs::read_dir(tiers.dir(0)).unwrap();
        let names = names.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(prefix)).count()
    };
    let (lists, blocks) = (files("keys-0"), files("foyer-storage-direct-fs-"));
    assert!(lists > 0 && lists + 3 <= blocks, "{lists} lists of {blocks} blocks");
    tiers.forget_memory();
    let mut held = Vec::new();
    for key in &keys {
        held.push(tiers.find(*key, MIB).await.is_some());
    }
    assert!(held.iter().filter(|held| **held).count() < 64, "more than fits: {held:?}");
    assert!(held[112..].iter().all(|held| *held), "{held:?}");
    assert_eq!(tiers.metric("ssd_mismatches_total", ""), 0);
}

/// Where the process that is killed keeps its tiers.
const KILLED_DIR: &str = "NEARCAST_KILLED_DIR";

/// Not a test by itself: what the process does that the next test kills.
#[tokio::test(flavor = "multi_thread")]
async fn process_that_is_killed() {
    let Ok(dir) = std::env::var(KILLED_DIR) else { return };
    let tiers = Tiers::start(sizes(dir.as_ref(), MEMORY, 2, DISK)).await;
    for number in 0.. {
        tiers.keep(key(6, number), length(number)).await;
        if number % 10 == 9 {
            tiers.written().await;
            println!("\nstored {number}");
        }
    }
}

fn length(number: u32) -> usize {
    1 + (number as usize * 7919) % MIB
}

#[tokio::test(flavor = "multi_thread")]
async fn after_sigkill_in_the_middle_of_writing_what_was_complete_is_a_hit() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process_that_is_killed", "--nocapture"])
        .env(KILLED_DIR, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let stored = |line: String| line.strip_prefix("stored ")?.parse::<u32>().ok();
    let last = lines.map_while(Result::ok).filter_map(stored).find(|last| *last >= 250).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();

    let tiers = Tiers::start(sizes(dir.path(), MEMORY, 2, DISK)).await;
    let mut hits = 0;
    for number in 0..=last {
        hits += u32::from(tiers.find(key(6, number), length(number)).await.is_some());
    }
    assert!(hits * 100 >= (last + 1) * 99, "{hits} of {}", last + 1);
}
