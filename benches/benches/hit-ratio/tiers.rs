//! The edge's tiers without their bytes: foyer's S3-FIFO memory, the SSD as blocks that go in
//! the order in which they were filled, and between them the policy that the edge runs
//! (`chunks::policy`, not a copy of it).
//!
//! What is left out: time (a chunk on its way to disk is there at once) and everything that
//! fails. `real.rs` shows how little that is.

use crate::trace::{Lot, Trace};
use chunks::policy::{ChunkId, Policy};
use std::collections::VecDeque;
use std::time::Duration;

/// Sizes, as the real tiers have them.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// Bytes of every chunk.
    pub chunk_bytes: u32,
    /// Bytes that one takes on disk.
    pub stored_bytes: u32,
    /// Chunks that the memory tier keeps, in `memory_shards` caches.
    pub memory_chunks: usize,
    pub memory_shards: usize,
    pub disk_bytes: u64,
    pub block_chunks: usize,
    pub blocks: usize,
}

/// The SSD's blocks, as `chunks` has them: a 256th each, of 8 to 64 whole chunks of 1 MiB as they
/// are stored.
const BLOCKS_MIN: u64 = 256;
const BLOCK_CHUNKS: (u64, u64) = (8, 64);
const CHUNK_STORED_BYTES: u64 = (1 << 20) + 4096;
/// Of each block.
const INDEX_BYTES: u64 = 16 << 10;

impl Sizes {
    /// Chunks of a block, and blocks, of an SSD that stores chunks in so many bytes.
    pub fn blocks(disk_bytes: u64, stored_bytes: u64) -> (usize, usize) {
        let (least, most) = BLOCK_CHUNKS;
        let chunks = (disk_bytes / BLOCKS_MIN / CHUNK_STORED_BYTES).clamp(least, most);
        let usable = chunks * CHUNK_STORED_BYTES;
        ((usable / stored_bytes) as usize, (disk_bytes / (usable + INDEX_BYTES)) as usize)
    }

    /// Of an edge with this much SSD and a tenth of that as memory; chunks of 1 MiB.
    pub fn of(ssd_chunks: usize) -> Self {
        let memory = ssd_chunks as u64 * (1 << 20) / 10;
        // An eighth of the memory is spare, for fetches; each cache has 256 MiB at least; a
        // chunk weighs 512 bytes more than it holds.
        let kept = memory - memory / 8;
        let disk_bytes = ssd_chunks as u64 * (1 << 20);
        let (block_chunks, blocks) = Self::blocks(disk_bytes, CHUNK_STORED_BYTES);
        Self {
            chunk_bytes: 1 << 20,
            stored_bytes: CHUNK_STORED_BYTES as u32,
            memory_chunks: (kept / ((1 << 20) + 512)) as usize,
            memory_shards: (kept / (256 << 20)).clamp(1, 16) as usize,
            disk_bytes,
            block_chunks,
            blocks,
        }
    }
}

/// What came of it, in chunks.
#[derive(Default)]
pub struct Outcome {
    pub memory_hits: usize,
    pub disk_hits: usize,
    pub missed: usize,
    /// Written to the SSD, those written anew included.
    pub written: usize,
    pub written_anew: usize,
}

impl Outcome {
    pub fn hits(&self) -> usize {
        self.memory_hits + self.disk_hits
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Queue {
    None,
    Small,
    Main,
}

/// One cache of foyer 0.22.6 (`foyer-memory`, eviction/s3fifo.rs): a tenth small, one hit to
/// get to main, a ghost as long as the cache, hits counted to three.
struct Memory {
    capacity: usize,
    small: VecDeque<u32>,
    main: VecDeque<u32>,
    ghost: VecDeque<u32>,
}

/// What all caches know of their chunks.
struct Known {
    queue: Vec<Queue>,
    uses: Vec<u8>,
    ghost: Vec<bool>,
}

impl Memory {
    fn insert(&mut self, chunk: u32, known: &mut Known) {
        if self.small.len() + self.main.len() >= self.capacity {
            self.evict(known);
        }
        let place = chunk as usize;
        known.uses[place] = 0;
        if known.ghost[place] {
            known.queue[place] = Queue::Main;
            self.main.push_back(chunk);
        } else {
            known.queue[place] = Queue::Small;
            self.small.push_back(chunk);
        }
    }

    fn evict(&mut self, known: &mut Known) {
        while self.small.len() > self.capacity / 10 {
            let Some(chunk) = self.small.pop_front() else { break };
            let place = chunk as usize;
            if known.uses[place] >= 1 {
                known.queue[place] = Queue::Main;
                self.main.push_back(chunk);
                continue;
            }
            known.queue[place] = Queue::None;
            if self.ghost.len() >= self.capacity {
                let gone = self.ghost.pop_front().expect("it is full");
                known.ghost[gone as usize] = false;
            }
            self.ghost.push_back(chunk);
            known.ghost[place] = true;
            return;
        }
        while let Some(chunk) = self.main.pop_front() {
            let uses = &mut known.uses[chunk as usize];
            if *uses > 1 {
                *uses -= 1;
                self.main.push_back(chunk);
                continue;
            }
            known.queue[chunk as usize] = Queue::None;
            return;
        }
        if let Some(chunk) = self.small.pop_front() {
            known.queue[chunk as usize] = Queue::None;
        }
    }
}

/// No block.
const NOWHERE: u32 = u32::MAX;
/// Blocks kept empty for the writer.
const CLEAN: usize = 2;

struct Disk {
    /// The block that holds each chunk.
    block_of: Vec<u32>,
    blocks: Vec<Vec<u32>>,
    open: u32,
    clean: VecDeque<u32>,
    filled: VecDeque<u32>,
    block_chunks: usize,
}

impl Disk {
    fn new(chunks: usize, sizes: &Sizes) -> Self {
        Self {
            block_of: vec![NOWHERE; chunks],
            blocks: vec![Vec::new(); sizes.blocks],
            open: 0,
            clean: (1..sizes.blocks as u32).collect(),
            filled: VecDeque::new(),
            block_chunks: sizes.block_chunks,
        }
    }

    fn holds(&self, chunk: u32) -> bool {
        self.block_of[chunk as usize] != NOWHERE
    }

    fn has_room(&self) -> bool {
        self.clean.len() > CLEAN
    }

    /// Writes a chunk; `keep` says what is written anew of the blocks that go for it.
    fn write(&mut self, chunk: u32, keep: &mut dyn FnMut(u32) -> bool) -> usize {
        let mut queue = VecDeque::from([chunk]);
        let mut written = 0;
        while let Some(chunk) = queue.pop_front() {
            written += 1;
            self.block_of[chunk as usize] = self.open;
            self.blocks[self.open as usize].push(chunk);
            if self.blocks[self.open as usize].len() == self.block_chunks {
                self.filled.push_back(self.open);
                self.open = self.clean.pop_front().expect("some are kept clean");
                while self.clean.len() < CLEAN {
                    self.clear(&mut queue, keep);
                }
            }
        }
        written
    }

    /// Clears the block that was filled first.
    fn clear(&mut self, anew: &mut VecDeque<u32>, keep: &mut dyn FnMut(u32) -> bool) {
        let block = self.filled.pop_front().expect("all but a few are filled");
        for chunk in std::mem::take(&mut self.blocks[block as usize]) {
            if self.block_of[chunk as usize] == block {
                self.block_of[chunk as usize] = NOWHERE;
                if keep(chunk) {
                    anew.push_back(chunk);
                }
            }
        }
        self.clean.push_back(block);
    }
}

struct Tiers {
    ids: Vec<ChunkId>,
    /// The cache of each chunk.
    caches_of: Vec<u8>,
    sizes: Sizes,
    policy: Policy,
    caches: Vec<Memory>,
    known: Known,
    disk: Disk,
    outcome: Outcome,
}

impl Tiers {
    fn request(&mut self, chunk: u32, now: Duration) {
        let id = self.ids[chunk as usize];
        self.policy.requested(id, self.sizes.stored_bytes, now);
        if self.known.queue[chunk as usize] != Queue::None {
            self.outcome.memory_hits += 1;
            let uses = &mut self.known.uses[chunk as usize];
            *uses = (*uses + 1).min(3);
            self.offer(chunk);
            return;
        }
        if self.disk.holds(chunk) {
            self.outcome.disk_hits += 1;
        } else {
            self.outcome.missed += 1;
            self.policy.missed(self.sizes.chunk_bytes);
            self.offer(chunk);
        }
        let cache = self.caches_of[chunk as usize];
        self.caches[usize::from(cache)].insert(chunk, &mut self.known);
    }

    /// To the SSD, if it is not there and the policy wants it.
    fn offer(&mut self, chunk: u32) {
        let bytes = self.sizes.stored_bytes;
        if self.disk.holds(chunk)
            || !self.policy.admit(self.ids[chunk as usize], bytes, self.disk.has_room())
        {
            return;
        }
        let mut keep = |chunk: u32| self.policy.keep(self.ids[chunk as usize], bytes);
        let written = self.disk.write(chunk, &mut keep);
        self.outcome.written += written;
        self.outcome.written_anew += written - 1;
    }
}

/// A title's body.
pub fn body(title: u32) -> [u8; 16] {
    let mut body = [0; 16];
    body[..4].copy_from_slice(&title.to_le_bytes());
    body
}

/// The trace through tiers of these sizes, within `span` of time.
pub fn run(trace: &Trace, sizes: Sizes, span: Duration) -> Outcome {
    let chunks = trace.chunks.len();
    let policy = Policy::new(sizes.disk_bytes);
    let cache = |_| Memory {
        capacity: sizes.memory_chunks / sizes.memory_shards,
        small: VecDeque::new(),
        main: VecDeque::new(),
        ghost: VecDeque::new(),
    };
    let id = |(title, number): &(u32, u32)| ChunkId::new(&body(*title), *number);
    let mut lot = Lot(1);
    let mut tiers = Tiers {
        ids: trace.chunks.iter().map(id).collect(),
        caches_of: (0..chunks).map(|_| lot.below(sizes.memory_shards) as u8).collect(),
        sizes,
        policy,
        caches: (0..sizes.memory_shards).map(cache).collect(),
        known: Known {
            queue: vec![Queue::None; chunks],
            uses: vec![0; chunks],
            ghost: vec![false; chunks],
        },
        disk: Disk::new(chunks, &sizes),
        outcome: Outcome::default(),
    };
    for (at, chunk) in trace.requests.iter().enumerate() {
        let now = span.mul_f64(at as f64 / trace.requests.len() as f64);
        tiers.request(*chunk, now);
    }
    tiers.outcome
}
