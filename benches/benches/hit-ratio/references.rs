//! What the tiers are held against: LRU, S3-FIFO and Belady, each of as many chunks as memory
//! and SSD hold together. All chunks are of one size. `against-libcachesim.py` checks them.

use crate::trace::Trace;
use std::collections::BinaryHeap;

const NONE: u32 = u32::MAX;

/// Chunks in a line: new ones at the back, any can leave.
struct Line {
    before: Vec<u32>,
    after: Vec<u32>,
    front: u32,
    back: u32,
    length: usize,
}

impl Line {
    fn new(chunks: usize) -> Self {
        let (before, after) = (vec![NONE; chunks], vec![NONE; chunks]);
        Self { before, after, front: NONE, back: NONE, length: 0 }
    }

    fn push(&mut self, chunk: u32) {
        self.before[chunk as usize] = self.back;
        self.after[chunk as usize] = NONE;
        match self.back {
            NONE => self.front = chunk,
            back => self.after[back as usize] = chunk,
        }
        self.back = chunk;
        self.length += 1;
    }

    fn remove(&mut self, chunk: u32) {
        let (before, after) = (self.before[chunk as usize], self.after[chunk as usize]);
        match before {
            NONE => self.front = after,
            before => self.after[before as usize] = after,
        }
        match after {
            NONE => self.back = before,
            after => self.before[after as usize] = before,
        }
        self.length -= 1;
    }

    fn pop(&mut self) -> Option<u32> {
        let chunk = self.front;
        (chunk != NONE).then(|| {
            self.remove(chunk);
            chunk
        })
    }
}

/// Hits of an LRU of `capacity` chunks.
pub fn lru(trace: &Trace, capacity: usize) -> usize {
    let mut line = Line::new(trace.chunks.len());
    let mut held = vec![false; trace.chunks.len()];
    let mut hits = 0;
    for &chunk in &trace.requests {
        if held[chunk as usize] {
            hits += 1;
            line.remove(chunk);
        } else if line.length == capacity {
            let gone = line.pop().expect("it is full");
            held[gone as usize] = false;
        }
        held[chunk as usize] = true;
        line.push(chunk);
    }
    hits
}

#[derive(Clone, Copy, PartialEq)]
enum Queue {
    None,
    Small,
    Main,
    Ghost,
}

/// S3-FIFO as its authors' library has it: a tenth small, a ghost as long as main, two hits in
/// small to get to main, three chances there.
struct S3Fifo {
    small: Line,
    main: Line,
    ghost: Line,
    queue: Vec<Queue>,
    uses: Vec<u8>,
    small_max: usize,
    main_max: usize,
    evicted: bool,
}

impl S3Fifo {
    fn evict(&mut self) {
        self.evicted = true;
        if self.main.length > self.main_max || self.small.length == 0 {
            self.evict_main();
        } else {
            self.evict_small();
        }
    }

    fn evict_small(&mut self) {
        while let Some(chunk) = self.small.pop() {
            let place = chunk as usize;
            if self.uses[place] >= 2 {
                self.queue[place] = Queue::Main;
                self.uses[place] = 0;
                self.main.push(chunk);
                continue;
            }
            self.queue[place] = Queue::Ghost;
            self.ghost.push(chunk);
            if self.ghost.length > self.main_max {
                let gone = self.ghost.pop().expect("it is not empty");
                self.queue[gone as usize] = Queue::None;
            }
            return;
        }
    }

    fn evict_main(&mut self) {
        while let Some(chunk) = self.main.pop() {
            let place = chunk as usize;
            if self.uses[place] == 0 {
                self.queue[place] = Queue::None;
                return;
            }
            self.uses[place] -= 1;
            self.main.push(chunk);
        }
    }

    fn insert(&mut self, chunk: u32) {
        let place = chunk as usize;
        let known = self.queue[place] == Queue::Ghost;
        if known {
            self.ghost.remove(chunk);
        }
        self.uses[place] = 0;
        let filling = !self.evicted && self.small.length >= self.small_max;
        if known || filling {
            self.queue[place] = Queue::Main;
            self.main.push(chunk);
        } else {
            self.queue[place] = Queue::Small;
            self.small.push(chunk);
        }
    }
}

/// Hits of an S3-FIFO of `capacity` chunks.
pub fn s3_fifo(trace: &Trace, capacity: usize) -> usize {
    let chunks = trace.chunks.len();
    let line = || Line::new(chunks);
    let small_max = (capacity / 10).max(1);
    let mut cache = S3Fifo {
        small: line(),
        main: line(),
        ghost: line(),
        queue: vec![Queue::None; chunks],
        uses: vec![0; chunks],
        small_max,
        main_max: capacity - small_max,
        evicted: false,
    };
    let mut hits = 0;
    for &chunk in &trace.requests {
        let place = chunk as usize;
        if matches!(cache.queue[place], Queue::Small | Queue::Main) {
            hits += 1;
            cache.uses[place] = (cache.uses[place] + 1).min(3);
            continue;
        }
        while cache.small.length + cache.main.length >= capacity {
            cache.evict();
        }
        cache.insert(chunk);
    }
    hits
}

/// Hits of one that knows the future: what is asked for last goes, or does not come in.
pub fn belady(trace: &Trace, capacity: usize) -> usize {
    let requests = &trace.requests;
    let mut last = vec![NONE; trace.chunks.len()];
    let mut next = vec![NONE; requests.len()];
    for (at, chunk) in requests.iter().enumerate().rev() {
        next[at] = last[*chunk as usize];
        last[*chunk as usize] = at as u32;
    }
    let mut held = vec![false; trace.chunks.len()];
    // By next request; an entry that is not its chunk's latest is of the past.
    let mut latest: BinaryHeap<(u32, u32)> = BinaryHeap::new();
    let (mut hits, mut length) = (0, 0);
    for (at, &chunk) in requests.iter().enumerate() {
        let place = chunk as usize;
        if held[place] {
            hits += 1;
        } else {
            held[place] = true;
            length += 1;
        }
        latest.push((next[at], chunk));
        while length > capacity {
            let (due, gone) = latest.pop().expect("what is held is in it");
            // Requests in the past have come: such an entry was replaced.
            if held[gone as usize] && due > at as u32 {
                held[gone as usize] = false;
                length -= 1;
            }
        }
    }
    hits
}
