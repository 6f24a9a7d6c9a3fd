//! Disks that lie: bits flipped, bytes overwritten, moved, zeroed, cut off, files gone, below a
//! store that runs and below one that is stopped; and reads and writes that fail, or find the
//! disk full, where the kernel lets a test mount a disk of its own.
//!
//! Whatever happens, a chunk's bytes are right or it is not there; and once the faults end,
//! every chunk is on disk again. `NEARCAST_FAULTS` sets how many faults (2,000), and
//! `NEARCAST_SEED` which.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use nearcast_chunks::Key;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use support::fuse::{FaultyDisk, Mode};
use support::{Tiers, key, sizes};

const FAULTS: usize = 2_000;
/// Faults between two readings of everything.
const FAULTS_A_ROUND: usize = 20;
const CHUNKS: u32 = 60;
const MEMORY: u64 = 32 << 20;
const DISK: u64 = 64 << 20;
/// In one round of so many, every read or every write of a disk fails.
const ROUNDS_A_FAILURE: u32 = 12;
/// Chunks that are written while writes fail.
const WRITTEN: u32 = 8;
const BYTES: usize = 100_000;
/// See [`FaultyDisk::mount`].
const SERVER: &str = "process_that_serves_a_faulty_disk";
/// Times that everything is asked for until all of it is on disk again.
const HEALING_ROUNDS: usize = 50;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn length(key: Key) -> usize {
    1 + key.number as usize * 65_537 % 200_000
}

fn keys() -> impl Iterator<Item = Key> {
    (0..CHUNKS).map(|number| key(9, number))
}

/// What an edge does: from the tiers, else from the origin. Says how many the tiers had.
async fn ask_for_all(tiers: &Tiers) -> usize {
    let mut hits = 0;
    for key in keys() {
        match tiers.find(key, length(key)).await {
            Some(_) => hits += 1,
            None => tiers.insert(key, length(key)),
        }
    }
    hits
}

/// A disk's files, with as many bytes as have been written from their beginning.
fn files(dir: &Path) -> Vec<(PathBuf, u64)> {
    let file = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        let written = std::fs::metadata(&path).unwrap().blocks() * 512;
        (path, written)
    };
    let files = std::fs::read_dir(dir).unwrap().map(file);
    let mut files: Vec<_> = files
        .filter(|(path, written)| *written > 0 && path.file_name().unwrap() != "lock")
        .collect();
    files.sort();
    files
}

/// Overwrites `length` bytes at `at` with what `change` makes of them.
fn change(path: &Path, at: u64, length: usize, change: impl FnOnce(&mut [u8])) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut bytes = vec![0; length];
    let length = file.read_at(&mut bytes, at).unwrap();
    change(&mut bytes[..length]);
    file.write_all_at(&bytes[..length], at).unwrap();
}

/// Does one damage to a disk, unless nothing is there; says whether it did. `stopped` allows what
/// a store that runs would take for a disk that is gone.
fn damage(dir: &Path, random: &mut StdRng, stopped: bool) -> bool {
    let files = files(dir);
    if files.is_empty() {
        return false;
    }
    let (path, written) = &files[random.random_range(0..files.len())];
    let at = random.random_range(0..*written);
    let length = 1 << random.random_range(0..18);
    match random.random_range(0..if stopped { 7 } else { 5 }) {
        0 | 1 => change(path, at, 1, |bytes| {
            bytes.iter_mut().for_each(|byte| *byte ^= 1 << random.random_range(0..8));
        }),
        2 => change(path, at, length, |bytes| random.fill(bytes)),
        3 => change(path, at / 4096 * 4096, length.max(4096), |bytes| bytes.fill(0)),
        4 => {
            // A write that went to the wrong place: bytes that are whole, but of others.
            let (other, written) = &files[random.random_range(0..files.len())];
            let from = random.random_range(0..*written) / 4096 * 4096;
            let mut moved = vec![0; length.max(4096)];
            let length = File::open(other).unwrap().read_at(&mut moved, from).unwrap();
            change(path, at / 4096 * 4096, length, |bytes| {
                let length = bytes.len();
                bytes.copy_from_slice(&moved[..length]);
            });
        }
        5 => OpenOptions::new().write(true).open(path).unwrap().set_len(at).unwrap(),
        _ => std::fs::remove_file(path).unwrap(),
    }
    true
}

/// Not a test by itself: the process that other tests start.
#[test]
fn process_that_serves_a_faulty_disk() {
    support::fuse::serve();
}

/// What is read and written while a disk fails is right, or comes from elsewhere. Says how many
/// troubles the tiers had with it.
async fn with_failures(tiers: &Tiers, disk: &mut FaultyDisk, mode: Mode, round: u32) -> u64 {
    disk.set(mode);
    tiers.forget_memory();
    ask_for_all(tiers).await;
    for number in 0..WRITTEN {
        let key = key(8, round * WRITTEN + number);
        // Twice: worth a disk.
        tiers.chunks.requested(&key, BYTES);
        tiers.chunks.requested(&key, BYTES);
        tiers.insert(key, BYTES);
    }
    tiers.written().await;
    tiers.forget_memory();
    ask_for_all(tiers).await;
    tiers.metric("ssd_troubles_total", "failed")
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_of_a_disk_gives_a_wrong_byte_and_all_is_healed_afterwards() {
    let (faults, seed) = (number("NEARCAST_FAULTS", FAULTS), number("NEARCAST_SEED", 1) as u64);
    println!("NEARCAST_SEED={seed} NEARCAST_FAULTS={faults}");
    let mut random = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut sizes = sizes(folder.path(), MEMORY, 2, DISK);
    let mut dirs = [sizes.disks[0].dir.clone(), sizes.disks[1].dir.clone()];
    let mut faulty = FaultyDisk::mount(SERVER);
    if let Some(disk) = &faulty {
        sizes.disks[1].dir.clone_from(&disk.dir);
        // Where its files really are.
        dirs[1] = disk.dir.with_file_name("backing");
    }
    let mut tiers = Tiers::start(sizes).await;
    let (mut done, mut hits, mut damaged) = (0, 0, 0);
    let (mut rounds, mut failures, mut troubles) = (0, 0, 0);
    while done < faults {
        ask_for_all(&tiers).await;
        let round = FAULTS_A_ROUND.min(faults - done);
        let mut did = 0;
        if let Some(disk) = faulty.as_mut().filter(|_| random.random_ratio(1, ROUNDS_A_FAILURE)) {
            let mode = [Mode::ReadsFail, Mode::WritesFail, Mode::Full][random.random_range(0..3)];
            let before = disk.failures();
            troubles += with_failures(&tiers, disk, mode, rounds).await;
            rounds += 1;
            let failed = disk.failures() - before;
            failures += failed;
            done += failed;
            damaged += tiers.metric("ssd_mismatches_total", "");
            tiers = tiers.crash_and(|| disk.set(Mode::Sound)).await;
            continue;
        }
        let stopped = random.random_bool(0.3);
        let mut damage = || {
            for _ in 0..round {
                let dir = &dirs[random.random_range(0..2)];
                did += usize::from(damage(dir, &mut random, stopped));
            }
        };
        if stopped {
            damaged += tiers.metric("ssd_mismatches_total", "");
            tiers = tiers.crash_and(damage).await;
        } else {
            damage();
            tiers.forget_memory();
        }
        done += did;
        hits += ask_for_all(&tiers).await;
    }
    damaged += tiers.metric("ssd_mismatches_total", "");
    println!(
        "{done} faults, {hits} hits between them, {damaged} damaged chunks found; {failures} of the \
         faults were reads and writes that failed, for which a disk was off {troubles} times in \
         {rounds} rounds"
    );
    assert!(hits > 0 && damaged > 0, "{hits} hits, {damaged} damaged: no test");
    assert!(faulty.is_none() || (failures > 0 && troubles > 0), "no failure was seen: no test");

    for _ in 0..HEALING_ROUNDS {
        tiers.forget_memory();
        let hits = ask_for_all(&tiers).await;
        if hits == CHUNKS as usize {
            return;
        }
    }
    panic!("not healed after asking {HEALING_ROUNDS} times for everything");
}
