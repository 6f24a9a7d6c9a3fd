//! A disk that fails on command: a folder behind the kernel's own FUSE. One flat folder, and
//! only what the tiers ask of a filesystem (protocol 7.31, linux/fuse.h).
//!
//! It is served by a process of its own, this test's program again: one that serves itself
//! can't end while it waits for its own answer. That process ends with this one.
//!
//! Needs root and /dev/fuse: [`skipped`] says why a story ends early without them, or fails it.

#![allow(dead_code, reason = "each story uses its part")]

use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Lines, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use tempfile::TempDir;

const ENOENT: i32 = 2;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const ENOSYS: i32 = 38;
/// Of the mounted folder.
const ROOT: u64 = 1;
const REQUEST_BYTES_MAX: usize = 1 << 20;
const WRITE_BYTES_MAX: u32 = 128 << 10;
/// Bytes that the disk says are free, unless it is full.
const FREE_BYTES: u64 = 1 << 30;

/// Where the serving process mounts the disk, beside its files.
const DIR: &str = "NEARCAST_FAULTY_DISK";

const BACKING: &str = "backing";

/// What the disk does from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Sound,
    /// Nothing is answered.
    Hangs,
    /// Reads are not answered.
    ReadsHang,
    /// Writes are not answered.
    WritesHang,
    ReadsFail,
    /// Reads at [`BAD`] of any file fail, until something is written there.
    ReadsFailInPart,
    WritesFail,
    /// Writes to files of an odd number fail, and those to others are not answered.
    WritesFailOrHang,
    Full,
}

const MODES: [Mode; 9] = [
    Mode::Sound,
    Mode::Hangs,
    Mode::ReadsHang,
    Mode::WritesHang,
    Mode::ReadsFail,
    Mode::ReadsFailInPart,
    Mode::WritesFail,
    Mode::WritesFailOrHang,
    Mode::Full,
];

/// Where files can't be read in part.
pub const BAD: std::ops::Range<u64> = 3 << 20..4 << 20;

/// Says that a story has no disk to run on. `./check` sets `NEARCAST_DISKS` where disks can be
/// mounted.
///
/// # Panics
/// It is set: a story that ends early has tested nothing.
pub fn skipped(reason: &str) {
    assert!(std::env::var_os("NEARCAST_DISKS").is_none(), "no disk to test on: {reason}");
    println!("skipped: {reason}");
}

/// A mounted disk.
pub struct FaultyDisk {
    pub dir: PathBuf,
    /// Where its files really are.
    pub backing: PathBuf,
    server: Child,
    answers: Lines<BufReader<ChildStdout>>,
    /// Where it was mounted before.
    dead: Vec<PathBuf>,
    dirs: TempDir,
}

impl FaultyDisk {
    /// Mounts a sound one; `None` where that can't be, see [`skipped`].
    /// `server` is the name of a test that calls [`serve`].
    pub fn mount(server: &str) -> Option<Self> {
        let dirs = tempfile::tempdir().unwrap();
        let dir = dirs.path().join("disk");
        let (server, answers) = start(server, &dir);
        let backing = dir.with_file_name(BACKING);
        let mut disk = Self { dir, backing, server, answers, dead: Vec::new(), dirs };
        let answer = disk.answer();
        if answer != "mounted" {
            skipped(&answer);
            return None;
        }
        Some(disk)
    }

    /// The server's next word, past what the test program prints.
    fn answer(&mut self) -> String {
        let mut answers = self.answers.by_ref().map(Result::unwrap);
        answers.find_map(|line| line.strip_prefix("disk: ").map(str::to_owned)).unwrap()
    }

    /// Changes what the disk does, also to requests that it has not answered.
    pub fn set(&mut self, mode: Mode) {
        writeln!(self.server.stdin.as_mut().unwrap(), "{mode:?}").unwrap();
        assert_eq!(self.answer(), "set");
    }

    /// Reads and writes that failed so far.
    pub fn failures(&mut self) -> usize {
        writeln!(self.server.stdin.as_mut().unwrap(), "failures").unwrap();
        self.answer().parse().unwrap()
    }

    /// Ends what serves it: whatever is asked of it fails, also what is open.
    pub fn vanish(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }

    /// As [`FaultyDisk::vanish`], and nothing is mounted at its folder any more.
    pub fn unmount(&mut self) {
        self.vanish();
        unmount(&self.dir);
    }

    /// Mounts one that was unmounted where it was: another device, with the same files.
    pub fn mount_back(&mut self, server: &str) {
        (self.server, self.answers) = start(server, &self.dir);
        assert_eq!(self.answer(), "mounted");
    }

    /// Mounts one that has vanished, elsewhere: `dir` is another, its files are the same.
    pub fn mount_again(&mut self, server: &str) {
        let dir = self.dirs.path().join("again");
        self.dead.push(std::mem::replace(&mut self.dir, dir));
        (self.server, self.answers) = start(server, &self.dir);
        assert_eq!(self.answer(), "mounted");
    }
}

fn start(server: &str, dir: &Path) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", server, "--nocapture"])
        .env(DIR, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let answers = BufReader::new(server.stdout.take().unwrap()).lines();
    (server, answers)
}

fn unmount(dir: &Path) {
    let _ = Command::new("umount").arg("-l").arg(dir).status();
}

impl Drop for FaultyDisk {
    fn drop(&mut self) {
        drop(self.server.stdin.take());
        let _ = self.server.wait();
        self.dead.iter().for_each(|dir| unmount(dir));
    }
}

/// Serves a disk, if this is the process that is to; ends when its parent does.
pub fn serve() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let backing = dir.with_file_name(BACKING);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::create_dir_all(&backing).unwrap();
    let device = match mount(&dir) {
        Ok(device) => device,
        Err(error) => {
            println!("\ndisk: {error}");
            return;
        }
    };
    let mode = Arc::new((Mutex::new(Mode::Sound), Condvar::new()));
    let failures = Arc::new(AtomicUsize::new(0));
    let (device, counted) = (Arc::new(device), Arc::clone(&failures));
    let server = Server { device, backing, mode: Arc::clone(&mode), failures: counted };
    thread::spawn(move || server.run());
    println!("\ndisk: mounted");
    for line in std::io::stdin().lines().map_while(Result::ok) {
        if line == "failures" {
            println!("disk: {}", failures.load(Ordering::Relaxed));
            continue;
        }
        let named = MODES.into_iter().find(|mode| format!("{mode:?}") == line);
        *mode.0.lock().unwrap() = named.unwrap();
        mode.1.notify_all();
        println!("disk: set");
    }
    unmount(&dir);
    // The device is closed with the process: what others wait for ends with an error.
    std::process::exit(0);
}

fn mount(dir: &Path) -> Result<File, String> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    let device = device.map_err(|error| format!("/dev/fuse: {error}"))?;
    // mount(8) hands its standard input on to the kernel as the device.
    let output = Command::new("mount")
        .args(["-i", "-t", "fuse", "-o", "fd=0,rootmode=40000,user_id=0,group_id=0", "faulty"])
        .arg(dir)
        .stdin(Stdio::from(device.try_clone().map_err(|error| error.to_string())?))
        .output()
        .map_err(|error| format!("mount: {error}"))?;
    let refused = || Err(format!("mount: {}", String::from_utf8_lossy(&output.stderr)));
    if output.status.success() { Ok(device) } else { refused() }
}

#[derive(Clone)]
struct Server {
    device: Arc<File>,
    backing: PathBuf,
    mode: Arc<(Mutex<Mode>, Condvar)>,
    failures: Arc<AtomicUsize>,
}

/// A request of the kernel's.
struct Request {
    opcode: u32,
    unique: u64,
    node: u64,
    body: Vec<u8>,
}

type Nodes = Arc<Mutex<HashMap<u64, String>>>;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn name_at(bytes: &[u8], at: usize) -> String {
    let name = bytes[at..].split(|byte| *byte == 0).next().unwrap();
    String::from_utf8(name.to_vec()).unwrap()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}

/// Ends with the mount.
impl Server {
    fn run(self) {
        let nodes = Nodes::default();
        let mut buffer = vec![0; REQUEST_BYTES_MAX];
        loop {
            let length = match (&*self.device).read(&mut buffer) {
                Ok(length) => length,
                // A request was interrupted before it was read.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            let bytes = &buffer[..length];
            let request = Request {
                opcode: u32_at(bytes, 4),
                unique: u64_at(bytes, 8),
                node: u64_at(bytes, 16),
                body: bytes[40..].to_vec(),
            };
            let (server, nodes) = (self.clone(), Arc::clone(&nodes));
            // What hangs must not keep the others.
            thread::spawn(move || server.serve(&request, &nodes));
        }
    }

    fn serve(&self, request: &Request, nodes: &Nodes) {
        // FORGET and its like want no answer.
        if matches!(request.opcode, 2 | 42) {
            return;
        }
        let hangs = |mode: &mut Mode| match *mode {
            Mode::Hangs => true,
            Mode::ReadsHang => request.opcode == 15,
            Mode::WritesHang => request.opcode == 16,
            Mode::WritesFailOrHang => request.opcode == 16 && !is_odd(request.node, nodes),
            _ => false,
        };
        let mode = *self.mode.1.wait_while(self.mode.0.lock().unwrap(), hangs).unwrap();
        let answer = self.answer(request, nodes, mode);
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(error) => {
                let is_counted = matches!(request.opcode, 15 | 16);
                self.failures.fetch_add(usize::from(is_counted), Ordering::Relaxed);
                (-error, Vec::new())
            }
        };
        let mut bytes = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend_from_slice(&error.to_ne_bytes());
        bytes.extend_from_slice(&request.unique.to_ne_bytes());
        bytes.extend_from_slice(&body);
        // Fails for what was interrupted.
        let _ = (&*self.device).write(&bytes);
    }

    fn answer(&self, request: &Request, nodes: &Nodes, mode: Mode) -> Result<Vec<u8>, i32> {
        let (node, body) = (request.node, &request.body[..]);
        match request.opcode {
            // LOOKUP
            1 => self.entry(&name_at(body, 0), nodes),
            // GETATTR
            3 => self.attributes(node, nodes),
            // SETATTR, of which the length matters
            4 => {
                if u32_at(body, 0) & 8 != 0 {
                    self.open(node, nodes)?.set_len(u64_at(body, 16)).map_err(errno)?;
                }
                self.attributes(node, nodes)
            }
            // READLINK
            5 => {
                let target = std::fs::read_link(self.path(node, nodes)?).map_err(errno)?;
                Ok(target.into_os_string().into_vec())
            }
            // UNLINK
            10 => {
                std::fs::remove_file(self.backing.join(name_at(body, 0))).map_err(errno)?;
                Ok(Vec::new())
            }
            // RENAME, in the one folder
            12 => {
                let from = name_at(body, 8);
                let to = name_at(body, 8 + from.len() + 1);
                let [from, path] = [&from, &to].map(|name| self.backing.join(name));
                std::fs::rename(from, path).map_err(errno)?;
                self.entry(&to, nodes).map(|_| Vec::new())
            }
            // OPEN, past the page cache
            14 => Ok([longs(&[0]), words(&[1, 0])].concat()),
            // READ
            15 if mode == Mode::ReadsFail => Err(EIO),
            15 if mode == Mode::ReadsFailInPart && BAD.contains(&u64_at(body, 8)) => Err(EIO),
            15 => {
                let mut bytes = vec![0; u32_at(body, 16) as usize];
                let read = self.open(node, nodes)?.read_at(&mut bytes, u64_at(body, 8));
                bytes.truncate(read.map_err(errno)?);
                Ok(bytes)
            }
            // WRITE
            16 if matches!(mode, Mode::WritesFail | Mode::WritesFailOrHang) => Err(EIO),
            16 if mode == Mode::Full => Err(ENOSPC),
            16 => {
                if mode == Mode::ReadsFailInPart && BAD.contains(&u64_at(body, 8)) {
                    *self.mode.0.lock().unwrap() = Mode::Sound;
                }
                let bytes = &body[40..];
                self.open(node, nodes)?.write_all_at(bytes, u64_at(body, 8)).map_err(errno)?;
                Ok(words(&[u32::try_from(bytes.len()).unwrap(), 0]))
            }
            // STATFS
            17 => {
                let free = if mode == Mode::Full { 0 } else { FREE_BYTES / 4096 };
                let counts = longs(&[FREE_BYTES / 4096, free, free, 1000, 1000]);
                Ok([counts, words(&[4096, 255, 4096, 0]), vec![0; 24]].concat())
            }
            // RELEASE, FSYNC, FLUSH, RELEASEDIR, ACCESS, DESTROY
            18 | 20 | 25 | 29 | 34 | 38 => Ok(Vec::new()),
            // INIT
            26 => {
                let [major, minor, ahead, big_writes] = [7, 31, 0, 1 << 5];
                let head = words(&[major, minor, ahead, big_writes]);
                let background = [16u16.to_ne_bytes(), 12u16.to_ne_bytes()].concat();
                Ok([head, background, words(&[WRITE_BYTES_MAX, 1]), vec![0; 36]].concat())
            }
            // OPENDIR, READDIR: nothing to be seen
            27 => Ok([longs(&[0]), words(&[0, 0])].concat()),
            28 => Ok(Vec::new()),
            // CREATE
            35 => {
                let name = name_at(body, 16);
                File::create(self.backing.join(&name)).map_err(errno)?;
                Ok([self.entry(&name, nodes)?, longs(&[0]), words(&[1, 0])].concat())
            }
            _ => Err(ENOSYS),
        }
    }

    fn path(&self, node: u64, nodes: &Nodes) -> Result<PathBuf, i32> {
        if node == ROOT {
            return Ok(self.backing.clone());
        }
        let nodes = nodes.lock().unwrap();
        nodes.get(&node).map(|name| self.backing.join(name)).ok_or(ENOENT)
    }

    fn open(&self, node: u64, nodes: &Nodes) -> Result<File, i32> {
        let path = self.path(node, nodes)?;
        OpenOptions::new().read(true).write(true).open(path).map_err(errno)
    }

    fn attributes(&self, node: u64, nodes: &Nodes) -> Result<Vec<u8>, i32> {
        let file = std::fs::symlink_metadata(self.path(node, nodes)?).map_err(errno)?;
        Ok([longs(&[0, 0]), attributes(&file)].concat())
    }

    /// A file's node is its number on the disk behind.
    fn entry(&self, name: &str, nodes: &Nodes) -> Result<Vec<u8>, i32> {
        let path = self.backing.join(Path::new(name));
        let file = std::fs::symlink_metadata(path).map_err(errno)?;
        nodes.lock().unwrap().insert(file.ino(), name.to_owned());
        Ok([longs(&[file.ino(), 0, 0, 0, 0]), attributes(&file)].concat())
    }
}

/// Whether the number that ends the file's name is odd.
fn is_odd(node: u64, nodes: &Nodes) -> bool {
    let nodes = nodes.lock().unwrap();
    let last = nodes.get(&node).and_then(|name| name.chars().last()?.to_digit(10));
    last.is_some_and(|digit| digit % 2 == 1)
}

fn errno(error: std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(EIO)
}

fn attributes(file: &Metadata) -> Vec<u8> {
    let [atime, mtime, ctime] = [file.atime(), file.mtime(), file.ctime()].map(|at| at as u64);
    let nanos = [file.atime_nsec(), file.mtime_nsec(), file.ctime_nsec()].map(|at| at as u32);
    let links = u32::try_from(file.nlink()).unwrap();
    let head = longs(&[file.ino(), file.size(), file.blocks(), atime, mtime, ctime]);
    [head, words(&nanos), words(&[file.mode(), links, 0, 0, 0, 4096, 0])].concat()
}
