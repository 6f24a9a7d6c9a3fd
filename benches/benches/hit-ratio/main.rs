//! The byte hit ratio of the edge's reactive tiers beside LRU, S3-FIFO and Belady.
//!
//! `cargo bench -p nearcast-benches --bench hit-ratio -- [--quick | --real [--buffered]]
//! [--json FILE] [--traces DIR]`
//!
//! The requests are those that `trace.rs` states, in two readings of "40 % one-hit": 40 % of
//! the requests are for chunks requested exactly once (many titles that nobody plays again),
//! or 40 % of the chunks are. The SSD holds 1, 5 or 20 % of the distinct bytes, memory is a
//! tenth of that. LRU, S3-FIFO and Belady get memory and SSD together, all of it: the harder
//! reading, since the tiers keep hot chunks twice (memory loses its at a crash), leave an
//! eighth of memory to fetches, and lose a little of each block.
//!
//! It fails when in any line the tiers are below S3-FIFO, write more than half of the bytes
//! missed, or close less than 35 % of the gap from LRU to Belady. These tiers are simulated; the
//! real ones are held to the same by fewer requests of smaller chunks (`real.rs`).
//!
//! `--quick`: a million requests of a hundred titles, held to the same. `--real`: only the
//! real tiers, past the page cache, or with `--buffered` through it; with `--seed N` another trace.
//! `--traces`: the requests as files for `against-libcachesim.py`.

mod real;
mod references;
mod tiers;
mod trace;

use serde_json::{Value, json};
use std::fmt;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tiers::{Outcome, Sizes};
use trace::{Shape, Trace};

const WEEK: Duration = Duration::from_secs(7 * 86_400);
/// What is promised: of the gap from LRU to Belady, and of the bytes missed.
const CLOSED_MIN: f64 = 0.35;
const WRITTEN_MAX: f64 = 0.5;

/// What is meant by 40 % one-hit, and the share of plays that are of a title of its own.
const READINGS: [(&str, f64); 2] = [("requests", 0.384), ("chunks", 0.041)];
/// Of the distinct bytes, on the SSD.
const PERCENTS: [usize; 3] = [1, 5, 20];

/// What the command line asks for.
struct Ask {
    quick: bool,
    real: bool,
    buffered: bool,
    seed: u64,
    json: Option<PathBuf>,
    traces: Option<PathBuf>,
}

fn ask() -> Ask {
    let mut ask =
        Ask { quick: false, real: false, buffered: false, seed: 1, json: None, traces: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => ask.json = words.next().map(PathBuf::from),
            "--traces" => ask.traces = words.next().map(PathBuf::from),
            "--real" => ask.real = true,
            "--buffered" => ask.buffered = true,
            "--seed" => {
                ask.seed = words.next().and_then(|seed| seed.parse().ok()).expect("a number")
            }
            // As `cargo bench -- --test` asks every bench to be quick.
            "--quick" | "--test" => ask.quick = true,
            _ => {}
        }
    }
    ask
}

/// One line of the table.
struct Line {
    percent: usize,
    capacity: usize,
    lru: f64,
    s3_fifo: f64,
    belady: f64,
    ours: f64,
    memory: f64,
    /// Of the bytes missed.
    written: f64,
    written_anew: f64,
}

impl Line {
    /// What came of the tiers, beside what comes of the references.
    fn beside(trace: &Trace, percent: usize, ours: &Outcome) -> Self {
        let ssd = ssd_chunks(trace, percent);
        let capacity = ssd + ssd / 10;
        let all = trace.requests.len() as f64;
        Self {
            percent,
            capacity,
            lru: references::lru(trace, capacity) as f64 / all,
            s3_fifo: references::s3_fifo(trace, capacity) as f64 / all,
            belady: references::belady(trace, capacity) as f64 / all,
            ours: ours.hits() as f64 / all,
            memory: ours.memory_hits as f64 / all,
            written: ours.written as f64 / ours.missed as f64,
            written_anew: ours.written_anew as f64 / ours.written as f64,
        }
    }

    fn closed(&self, ratio: f64) -> f64 {
        (ratio - self.lru) / (self.belady - self.lru)
    }

    fn holds(&self) -> bool {
        let better = self.ours >= self.s3_fifo && self.closed(self.ours) >= CLOSED_MIN;
        better && self.written <= WRITTEN_MAX
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |ratio: f64| format!("{:.1} %", 100.0 * ratio);
        write!(
            f,
            "| {} % | {} | {} | **{}** | {} | {} | **{}** | {:.2} | {:.2} | {} |{}",
            self.percent,
            percent(self.lru),
            percent(self.s3_fifo),
            percent(self.ours),
            percent(self.belady),
            percent(self.closed(self.s3_fifo)),
            percent(self.closed(self.ours)),
            self.written,
            self.written_anew,
            percent(self.memory),
            if self.holds() { "" } else { " <- not as promised" },
        )
    }
}

fn main() -> ExitCode {
    let ask = ask();
    let started = Instant::now();
    if ask.real {
        return ended(real::hold(ask.seed, !ask.buffered));
    }
    let shape = if ask.quick {
        Shape { requests: 1_000_000, titles: 100, ..Shape::WEEK }
    } else {
        Shape::WEEK
    };
    let mut holds = true;
    let mut report = Vec::new();
    for (reading, once) in READINGS {
        let trace = trace::trace(&Shape { once, seed: ask.seed, ..shape });
        describe(reading, &trace);
        if let Some(dir) = &ask.traces {
            save(&trace, dir, reading);
        }
        let lines: Vec<Line> = PERCENTS.map(|percent| line(&trace, percent)).into();
        for line in &lines {
            println!("{line}");
            holds &= line.holds();
        }
        report.push(summary(reading, &trace, &lines));
    }
    holds &= real::hold(ask.seed, true);
    println!("\n{:.0} s", started.elapsed().as_secs_f64());
    if let Some(path) = &ask.json {
        let report = json!({ "readings": report, "quick": ask.quick });
        std::fs::write(path, report.to_string()).expect("the report can be written");
    }
    ended(holds)
}

fn ended(holds: bool) -> ExitCode {
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Chunks that an SSD of so many percent of the distinct bytes has.
fn ssd_chunks(trace: &Trace, percent: usize) -> usize {
    trace.chunks.len() * percent / 100
}

fn line(trace: &Trace, percent: usize) -> Line {
    let ours = tiers::run(trace, Sizes::of(ssd_chunks(trace, percent)), WEEK);
    Line::beside(trace, percent, &ours)
}

fn describe(reading: &str, trace: &Trace) {
    let (requests, chunks) = (trace.requests.len() as f64, trace.chunks.len() as f64);
    println!(
        "\n40 % of the {reading} one-hit: {} requests of {} chunks; {:.1} % of the requests, {:.1} % of the \
         chunks are asked for once",
        trace.requests.len(),
        trace.chunks.len(),
        100.0 * trace.once as f64 / requests,
        100.0 * trace.once as f64 / chunks,
    );
    println!(
        "| SSD | LRU | S3-FIFO | tiers | Belady | gap closed: S3-FIFO | tiers | written/missed | \
         anew | of memory |\n|---|---|---|---|---|---|---|---|---|---|"
    );
}

fn summary(reading: &str, trace: &Trace, lines: &[Line]) -> Value {
    let line = |line: &Line| {
        json!({
            "ssd_percent": line.percent,
            "capacity_chunks": line.capacity,
            "lru": line.lru,
            "s3_fifo": line.s3_fifo,
            "belady": line.belady,
            "tiers": line.ours,
            "gap_closed": line.closed(line.ours),
            "gap_closed_s3_fifo": line.closed(line.s3_fifo),
            "written_per_missed": line.written,
        })
    };
    json!({
        "one_hit": format!("40 % of the {reading}"),
        "trace": reading,
        "requests": trace.requests.len(),
        "chunks": trace.chunks.len(),
        "once": trace.once,
        "lines": lines.iter().map(line).collect::<Vec<_>>(),
    })
}

/// A trace as libcachesim reads it ("oracleGeneral"): time `u32`, object `u64`, bytes `u32`,
/// place of its next request `i64` (-1 for none), little-endian.
fn save(trace: &Trace, dir: &Path, name: &str) {
    std::fs::create_dir_all(dir).expect("the folder can be made");
    let mut next = vec![-1i64; trace.requests.len()];
    let mut last = vec![-1i64; trace.chunks.len()];
    for (at, chunk) in trace.requests.iter().enumerate().rev() {
        next[at] = std::mem::replace(&mut last[*chunk as usize], at as i64);
    }
    let path = dir.join(format!("{name}.oracleGeneral"));
    let mut file = BufWriter::new(std::fs::File::create(path).expect("the file can be made"));
    for (at, chunk) in trace.requests.iter().enumerate() {
        let mut record = Vec::with_capacity(24);
        record.extend((at as u32).to_le_bytes());
        record.extend((u64::from(*chunk) + 1).to_le_bytes());
        record.extend(1u32.to_le_bytes());
        record.extend(next[at].to_le_bytes());
        file.write_all(&record).expect("the trace can be written");
    }
}
