//! The requests that the caches are held against: ten million of 1 MiB chunks, the same on
//! every machine.
//!
//! - A week. 28 players run at any time, so that each takes a chunk every 1.7 s (5 Mbit/s);
//!   who is next is drawn by lot.
//! - A player plays one title after another. It begins at chunk 0 (70 % of plays) or anywhere
//!   in the title with equal chance (30 %), and takes one chunk after another: to the end
//!   (30 %), or until it leaves, after 1 + exp(200) chunks or at the end.
//! - 1,000 titles of 200 to 1,800 chunks (equal chance) share what is played by their ranks'
//!   Zipf weights, rank^-0.9.
//! - Popularity drifts: each title has a popularity whose logarithm begins at -0.9 ln(rank)
//!   and takes a normal step of sigma 0.1 / sqrt(24) each hour (so 10 % a day); ranks are
//!   taken anew each hour. Each day half a percent of the titles are replaced by new ones, at
//!   ranks drawn by lot; what they replace is played no more.
//! - One hits: some plays are of a title of its own (same lengths) that nobody plays again.
//!   Their share is set so that 40 % of all requests, or else 40 % of all chunks, are for (or
//!   are) chunks requested exactly once, the unpopular titles' own included.

/// Drawn numbers: splitmix64.
pub struct Lot(pub u64);

impl Lot {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// In [0, 1).
    fn share(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.draw()) * end as u128) >> 64) as usize
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.share()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.share()).cos()
    }
}

/// What a trace is made of.
#[derive(Clone, Copy)]
pub struct Shape {
    pub requests: usize,
    pub titles: usize,
    pub players: usize,
    /// Share of plays that are of a title of its own.
    pub once: f64,
    /// Share of the titles that are replaced each day.
    pub fresh_per_day: f64,
    /// What a title's popularity moves by in a day: sigma of its logarithm.
    pub drift_per_day: f64,
    pub seed: u64,
}

impl Shape {
    pub const WEEK: Self = Self {
        requests: 10_000_000,
        titles: 1000,
        players: 28,
        once: 0.0,
        fresh_per_day: 0.005,
        drift_per_day: 0.1,
        seed: 1,
    };
}

const HOURS: usize = 7 * 24;
const SKEW: f64 = 0.9;
const TITLE_CHUNKS_MIN: usize = 200;
const TITLE_CHUNKS_MAX: usize = 1800;
const FROM_START: f64 = 0.7;
const TO_END: f64 = 0.3;
const LEAVES_AFTER: f64 = 200.0;

/// Requests, in order.
pub struct Trace {
    /// The chunk asked for, as a place in `chunks`.
    pub requests: Vec<u32>,
    /// Title and number of each chunk, in the order in which they were first asked for.
    pub chunks: Vec<(u32, u32)>,
    /// Chunks that were asked for exactly once.
    pub once: usize,
}

/// A player's title, next chunk and end.
#[derive(Clone, Copy, Default)]
struct Play {
    title: u32,
    next: u32,
    end: u32,
}

struct Catalogue {
    lot: Lot,
    /// Chunks of every title that there ever was.
    lengths: Vec<u32>,
    /// Popularity's logarithm and title, by rank.
    ranks: Vec<(f64, u32)>,
    /// Sums of the ranks' weights.
    weights: Vec<f64>,
    fresh_due: f64,
}

impl Catalogue {
    fn new(shape: &Shape) -> Self {
        let mut sum = 0.0;
        let weight = |rank: usize| (rank as f64).powf(-SKEW);
        let weights = (1..=shape.titles).map(|rank| {
            sum += weight(rank);
            sum
        });
        let weights = weights.collect();
        let lot = Lot(shape.seed);
        let mut new = Self { lot, lengths: Vec::new(), ranks: Vec::new(), weights, fresh_due: 0.0 };
        for rank in 1..=shape.titles {
            let title = new.release();
            new.ranks.push((weight(rank).ln(), title));
        }
        new
    }

    fn release(&mut self) -> u32 {
        let length = TITLE_CHUNKS_MIN + self.lot.below(TITLE_CHUNKS_MAX - TITLE_CHUNKS_MIN + 1);
        self.lengths.push(length as u32);
        self.lengths.len() as u32 - 1
    }

    fn hour(&mut self, shape: &Shape) {
        let sigma = shape.drift_per_day / 24f64.sqrt();
        for rank in 0..self.ranks.len() {
            self.ranks[rank].0 += sigma * self.lot.normal();
        }
        self.ranks.sort_by(|a, b| b.0.total_cmp(&a.0));
        self.fresh_due += shape.titles as f64 * shape.fresh_per_day / 24.0;
        while self.fresh_due >= 1.0 {
            self.fresh_due -= 1.0;
            let rank = self.lot.below(self.ranks.len());
            self.ranks[rank].1 = self.release();
        }
    }

    fn play(&mut self, once: f64) -> Play {
        let title = if self.lot.share() < once {
            self.release()
        } else {
            let drawn = self.lot.share() * self.weights.last().expect("there are titles");
            self.ranks[self.weights.partition_point(|sum| *sum <= drawn)].1
        };
        let length = self.lengths[title as usize];
        let from_start = self.lot.share() < FROM_START;
        let next = if from_start { 0 } else { self.lot.below(length as usize) as u32 };
        let to_end = self.lot.share() < TO_END;
        let takes = 1 + (-(1.0 - self.lot.share()).ln() * LEAVES_AFTER) as u32;
        let end = if to_end { length } else { length.min(next + takes) };
        Play { title, next, end }
    }
}

/// The requests of this shape.
pub fn trace(shape: &Shape) -> Trace {
    let mut catalogue = Catalogue::new(shape);
    let mut plays = vec![Play::default(); shape.players];
    let mut asked = Vec::with_capacity(shape.requests);
    let hour = shape.requests / HOURS;
    for request in 0..shape.requests {
        if request > 0 && request % hour == 0 {
            catalogue.hour(shape);
        }
        let player = catalogue.lot.below(plays.len());
        let play = &mut plays[player];
        if play.next >= play.end {
            *play = catalogue.play(shape.once);
        }
        asked.push((play.title, play.next));
        play.next += 1;
    }
    number(&asked, &catalogue.lengths)
}

/// Numbers the chunks in the order of their first requests.
fn number(asked: &[(u32, u32)], lengths: &[u32]) -> Trace {
    let mut starts = Vec::with_capacity(lengths.len());
    let mut all = 0;
    for length in lengths {
        starts.push(all);
        all += *length as usize;
    }
    let mut places = vec![u32::MAX; all];
    let mut counts: Vec<u32> = Vec::new();
    let (mut chunks, mut requests) = (Vec::new(), Vec::with_capacity(asked.len()));
    for (title, number) in asked {
        let place = &mut places[starts[*title as usize] + *number as usize];
        if *place == u32::MAX {
            *place = chunks.len() as u32;
            chunks.push((*title, *number));
            counts.push(0);
        }
        counts[*place as usize] += 1;
        requests.push(*place);
    }
    let once = counts.iter().filter(|count| **count == 1).count();
    Trace { requests, chunks, once }
}
