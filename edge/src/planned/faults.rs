//! Planned files that lie: bits flipped, bytes overwritten, zeroed, moved, cut off, files gone,
//! checksums torn or of another time, below a tier that runs and below one that is stopped; and disks
//! that fail to read and to write.
//!
//! Whatever happens, a chunk's bytes are right or it is not there; and what the puller does
//! mends all of it. `NEARCAST_FAULTS` sets how many faults (2,000), and `NEARCAST_SEED` which.

#[path = "../../../chunks/tests/support/fuse.rs"]
mod fuse;

use super::*;
use fuse::{FaultyDisk, Mode};
use model::index::{Facts, Kind, VideoRange};
use model::plan::PlannedTitle;
use model::{ByteRange, FillPlan, TitleIndex, Track, Version, chunk};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use tempfile::TempDir;

const FAULTS: usize = 2_000;
/// Faults between two readings of everything.
const FAULTS_A_ROUND: usize = 20;
/// Of the tracks' files: some chunks and a rest, whole chunks, less than one.
const FILE_BYTES: [usize; 3] = [(4 << 20) + 12_345, 2 << 20, 300_000];
/// Neighbours stored at a time: a crash falls between two of them.
const RUN_CHUNKS: u64 = 2;
/// Rounds of mending until all is whole.
const HEALING_ROUNDS: usize = 50;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// A track whose file these bytes are.
pub(crate) fn track(id: &str, bytes: &[u8]) -> Track {
    let kind = Kind::Video { width: 1, height: 1, frame_rate: (25, 1), range: VideoRange::Sdr };
    Track {
        facts: Facts {
            id: id.parse().unwrap(),
            kind,
            codec: "avc1.64001f".to_owned(),
            language: None,
            label: None,
            timescale: 1000,
            file_bytes: bytes.len() as u64,
            init: ByteRange::new(0, 100),
            sidx: ByteRange::new(100, 100),
            media_start: 200,
            first_decode_time: 0,
            presentation_offset: 0,
            duration: 4000,
        },
        segments: vec![model::index::Segment {
            start: 0,
            duration: 4000,
            range: ByteRange::new(200, bytes.len() as u64 - 200),
        }],
        digests: bytes
            .chunks(chunk::CHUNK_BYTES as usize)
            .map(|chunk| *blake3::hash(chunk).as_bytes())
            .collect(),
    }
}

/// A planned title, its true bytes, and the folder that holds what a disk makes of them.
struct World {
    dir: TempDir,
    title: Arc<Title>,
    files: Vec<Bytes>,
    planned: Arc<Planned>,
    /// A file as it was at some time, to come back at another.
    earlier: Option<(PathBuf, Vec<u8>)>,
}

impl World {
    fn new(random: &mut StdRng) -> Self {
        Self::on(random, None)
    }

    /// The title's folder is this one, if there is one: with its index, since no file can be renamed
    /// there.
    fn on(random: &mut StdRng, disk: Option<&Path>) -> Self {
        let files: Vec<Bytes> = FILE_BYTES
            .iter()
            .map(|bytes| {
                let mut file = vec![0; *bytes];
                random.fill(&mut file[..]);
                file.into()
            })
            .collect();
        let tracks = files.iter().enumerate();
        let tracks = tracks.map(|(n, file)| track(&format!("v{n}"), file)).collect();
        let encoded = TitleIndex { segment_target_ms: 4000, tracks }.encode();
        let name: Name = ("film".parse().unwrap(), Version::of_index(&encoded));
        let title = Arc::new(Title::decode(&name, &encoded).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let bytes = FILE_BYTES.iter().sum::<usize>() as u64;
        let plan = FillPlan {
            number: 1,
            date: "2026-11-21".to_owned(),
            edge: "edge-a".parse().unwrap(),
            titles: vec![PlannedTitle {
                title: name.0.clone(),
                version: name.1,
                bytes,
                predicted_bytes: bytes,
            }],
        };
        std::fs::write(dir.path().join("plan.json"), serde_json::to_vec(&plan).unwrap()).unwrap();
        if let Some(disk) = disk {
            let folder = title_dir(dir.path(), &name);
            std::fs::create_dir_all(folder.parent().unwrap()).unwrap();
            std::fs::write(disk.join("index"), &encoded).unwrap();
            std::os::unix::fs::symlink(disk, folder).unwrap();
        }
        let planned = open(dir.path());
        Self { dir, title, files, planned, earlier: None }
    }

    /// The tier anew over what lies there, as after a crash.
    fn crash(&mut self, damage: impl FnOnce(&mut Self)) {
        self.planned = open(&self.dir.path().join("elsewhere"));
        damage(self);
        self.planned = open(self.dir.path());
    }

    fn chunk(&self, track: usize, number: u64) -> Bytes {
        let range = chunk::range(number, self.files[track].len() as u64);
        self.files[track].slice(range.start as usize..range.end() as usize)
    }

    fn chunks(&self) -> impl Iterator<Item = (usize, u64)> {
        let counts = FILE_BYTES.map(|bytes| chunk::count(bytes as u64));
        (0..FILE_BYTES.len()).flat_map(move |track| (0..counts[track]).map(move |n| (track, n)))
    }

    /// Reads all that is said to be here: how much of it was whole, and how much was not.
    async fn read_all(&self) -> (usize, usize) {
        let (mut whole, mut damaged) = (0, 0);
        for (track, number) in self.chunks() {
            let held = self.planned.holds(&self.title, track, number);
            match self.planned.read(&self.title, track, number).await {
                Some(bytes) => {
                    assert_eq!(bytes, self.chunk(track, number), "{track}/{number} is wrong");
                    whole += 1;
                }
                None => damaged += usize::from(held),
            }
        }
        (whole, damaged)
    }

    /// What the puller does with the bytes that the origin gives it.
    fn mend(&self, runs_max: usize) {
        self.mend_some(runs_max).unwrap();
    }

    /// The same on a disk that may fail.
    fn mend_some(&self, runs_max: usize) -> io::Result<()> {
        let open = self.planned.open_title(&self.title)?;
        let mut runs = 0;
        for (track, file) in open.files.iter().enumerate() {
            if !file.is_complete() {
                file.adopt(&self.title.index.tracks[track])?;
            }
            while let Some(missing) = file.missing(0, RUN_CHUNKS) {
                if runs == runs_max {
                    return Ok(());
                }
                let chunks: Vec<_> =
                    missing.map(|number| (number, self.chunk(track, number))).collect();
                file.store(&chunks)?;
                runs += 1;
            }
        }
        Ok(())
    }

    /// The files of the title, `index` and checksums among them.
    fn on_disk(&self) -> Vec<PathBuf> {
        let dir = title_dir(self.dir.path(), &self.title.name());
        let entries = std::fs::read_dir(dir).into_iter().flatten();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    /// Does one damage to a file.
    fn damage(&mut self, random: &mut StdRng) {
        let files = self.on_disk();
        if files.is_empty() {
            return;
        }
        let path = &files[random.random_range(0..files.len())];
        let mut bytes = std::fs::read(path).unwrap();
        if bytes.is_empty() {
            return;
        }
        let at = random.random_range(0..bytes.len());
        let end = bytes.len().min(at + (1 << random.random_range(0..18)));
        match random.random_range(0..8) {
            0 | 1 => change(path, at, &[bytes[at] ^ 1 << random.random_range(0..8)]),
            2 => {
                random.fill(&mut bytes[at..end]);
                change(path, at, &bytes[at..end]);
            }
            3 => change(path, at, &vec![0; end - at]),
            // A write that went to the wrong place: bytes that are whole, but of others.
            4 => {
                let other = std::fs::read(&files[random.random_range(0..files.len())]).unwrap();
                change(path, at, &other[..other.len().min(end - at)]);
            }
            5 => set_len(path, at as u64),
            6 => std::fs::remove_file(path).unwrap(),
            // Data, or its checksums, of another time: a write that was lost at a crash.
            _ => match self.earlier.replace((path.clone(), bytes)) {
                Some((path, bytes)) if path.exists() => {
                    set_len(&path, bytes.len() as u64);
                    change(&path, 0, &bytes);
                }
                _ => {}
            },
        }
    }
}

fn open(dir: &Path) -> Arc<Planned> {
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    // What a busy machine takes its time for is no fault here.
    let planned = Planned::new(dir.to_owned(), u64::MAX, Duration::from_secs(60), metrics);
    planned.attach().unwrap();
    Arc::new(planned)
}

fn change(path: &Path, at: usize, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, at as u64).unwrap();
}

fn set_len(path: &Path, bytes: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_of_a_planned_file_gives_a_wrong_byte_and_all_is_mended_afterwards() {
    let (faults, seed) = (number("NEARCAST_FAULTS", FAULTS), number("NEARCAST_SEED", 1) as u64);
    println!("NEARCAST_SEED={seed} NEARCAST_FAULTS={faults}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::new(&mut random);
    let (mut done, mut hits, mut found) = (0, 0, 0);
    while done < faults {
        let round = FAULTS_A_ROUND.min(faults - done);
        done += round;
        // Some rounds end, by a crash or not, before everything is here.
        world.mend(if random.random_bool(0.3) { 2 } else { usize::MAX });
        let damage = |world: &mut World, random: &mut StdRng| {
            (0..round).for_each(|_| world.damage(random));
        };
        if random.random_bool(0.4) {
            world.crash(|world| damage(world, &mut random));
        } else {
            damage(&mut world, &mut random);
        }
        // Readers do not wait for who mends.
        let counts = std::thread::scope(|scope| {
            scope.spawn(|| world.mend(usize::MAX));
            let reading = || tokio::runtime::Handle::current().block_on(world.read_all());
            tokio::task::block_in_place(reading)
        });
        hits += counts.0;
        found += counts.1;
    }
    println!("{hits} hits between the faults, {found} damaged chunks found");
    assert!(hits > 0 && found > 0, "{hits} hits, {found} damaged: no test");

    for _ in 0..HEALING_ROUNDS {
        world.crash(|_| {});
        world.mend(usize::MAX);
        if world.read_all().await == (world.chunks().count(), 0) {
            return;
        }
    }
    panic!("not mended after {HEALING_ROUNDS} rounds");
}

const SERVER: &str = "planned::faults::process_that_serves_a_faulty_disk";
/// Of the faults, those of this kind: each of them costs as much as several others.
const FAILURES_SHARE: usize = 20;

/// Not a test by itself: the process that others start.
#[test]
fn process_that_serves_a_faulty_disk() {
    fuse::serve();
}

/// One bit, or the file's rest, of a file that is behind the disk; the index stays.
fn damage_behind(disk: &Path, random: &mut StdRng) {
    let name = format!("v{}.mp4", random.random_range(0..FILE_BYTES.len()));
    let path = disk.join(if random.random() { name } else { format!("{name}.have") });
    let bytes = std::fs::read(&path).unwrap_or_default();
    if bytes.is_empty() {
        return;
    }
    let at = random.random_range(0..bytes.len());
    match random.random_range(0..4) {
        0 => set_len(&path, at as u64),
        _ => change(&path, at, &[bytes[at] ^ 1 << random.random_range(0..8)]),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_failure_of_a_planned_disk_gives_a_wrong_byte_and_all_is_written_afterwards() {
    let (faults, seed) = (number("NEARCAST_FAULTS", FAULTS), number("NEARCAST_SEED", 1) as u64);
    let Some(mut disk) = FaultyDisk::mount(SERVER) else { return };
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::on(&mut random, Some(&disk.dir));
    let (mut hits, mut found, mut offs) = (0, 0, 0);
    while disk.failures() < faults.div_ceil(FAILURES_SHARE) {
        world.mend(if random.random_bool(0.3) { 2 } else { usize::MAX });
        damage_behind(&disk.backing, &mut random);
        let modes = [Mode::ReadsFail, Mode::ReadsFailInPart, Mode::WritesFail, Mode::Full];
        disk.set(modes[random.random_range(0..modes.len())]);
        let counts = std::thread::scope(|scope| {
            scope.spawn(|| world.mend_some(usize::MAX));
            let reading = || tokio::runtime::Handle::current().block_on(world.read_all());
            tokio::task::block_in_place(reading)
        });
        hits += counts.0;
        found += counts.1;
        offs += usize::from(!world.planned.is_up());
        disk.set(Mode::Sound);
        if random.random_bool(0.3) {
            world.crash(|_| {});
        } else {
            // As who looks after a disk that is off does.
            world.planned.attach().unwrap();
        }
    }
    println!("{hits} hits beside the failures, {found} chunks not read, off {offs} times");
    assert!(hits > 0 && found > 0 && offs > 0, "{hits} hits, {found} lost, {offs} off: no test");
    for _ in 0..HEALING_ROUNDS {
        world.mend(usize::MAX);
        if world.read_all().await == (world.chunks().count(), 0) {
            return;
        }
    }
    panic!("not mended after {HEALING_ROUNDS} rounds");
}

/// The window of a crash: chunks are written, that they are here is not.
#[tokio::test]
async fn what_was_written_and_not_yet_noted_is_taken_over_without_the_origin() {
    let mut world = World::new(&mut StdRng::seed_from_u64(7));
    world.mend(usize::MAX);
    let have = |world: &World| {
        let files = world.on_disk().into_iter();
        files.filter(|path| path.extension().is_some_and(|end| end == "have")).collect::<Vec<_>>()
    };
    world.crash(|world| {
        // As long as they were, with no chunk noted.
        for path in have(world) {
            let length = std::fs::metadata(&path).unwrap().len() as usize - 16;
            change(&path, 16, &vec![0; length]);
        }
    });
    assert_eq!(world.read_all().await, (0, 0));
    world.mend(0);
    assert_eq!(world.read_all().await, (world.chunks().count(), 0));
    // Half of a checksum written: that chunk alone is taken over again.
    world.crash(|world| change(&have(world)[0], 16, &[0; 4]));
    assert_eq!(world.read_all().await, (world.chunks().count() - 1, 1));
    world.mend(0);
    assert_eq!(world.read_all().await, (world.chunks().count(), 0));
}
