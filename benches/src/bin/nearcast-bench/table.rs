//! The figures of all cells, as JSON and as a table for people.

use crate::cases::{Cell, shown};
use crate::floor::Floor;
use crate::goals::{self, Goal};
use crate::handshakes::Handshakes;
use crate::limits::Limits;
use crate::pair::Pair;
use loadtest::load::Report;
use serde::Serialize;
use std::fmt::Write as _;

/// One cell's figures: medians over the pairs. Fields that begin with `peer_` are the peer's.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub case: &'static str,
    pub body_bytes: u64,
    pub connections: usize,
    /// The connections read a trickle.
    pub slow: bool,
    pub streams: usize,
    pub source: &'static str,
    pub server: String,
    pub peer: String,
    /// Server CPU-seconds for 10^9 bytes of bodies.
    pub cpu_s_per_gb: f64,
    pub peer_cpu_s_per_gb: f64,
    /// Of these two: the median over the pairs, the least, the most.
    pub ratio: f64,
    pub ratio_min: f64,
    pub ratio_max: f64,
    pub pairs: usize,
    /// In any run the client was busy for 95 % of the time.
    pub client_limited: bool,
    /// Of bodies, 10^9 bytes a second.
    pub gb_per_s: f64,
    pub peer_gb_per_s: f64,
    pub requests_per_s: f64,
    pub peer_requests_per_s: f64,
    /// The server's requests a second over the peer's.
    pub requests_ratio: f64,
    pub ttfb_p50_ms: f64,
    pub peer_ttfb_p50_ms: f64,
    pub ttfb_p99_ms: f64,
    pub peer_ttfb_p99_ms: f64,
    /// The same in an open loop at 70 % of the slower one's rate; absent unless asked for.
    pub ttfb_p99_at_70_ms: Option<f64>,
    pub peer_ttfb_p99_at_70_ms: Option<f64>,
    /// Resident memory, the most.
    pub rss_bytes: u64,
    pub peer_rss_bytes: u64,
    /// CPU-seconds a second; below 1, the server was not what limited the load.
    pub busy: f64,
    pub peer_busy: f64,
    pub client_busy: f64,
    pub peer_client_busy: f64,
}

/// A cell without figures, and why.
#[derive(Debug, Clone, Serialize)]
pub struct Skipped {
    pub case: &'static str,
    pub body_bytes: u64,
    pub connections: usize,
    pub source: &'static str,
    pub peer: String,
    pub reason: String,
}

impl Skipped {
    fn cell(&self) -> String {
        format!("{} {} x {}", self.case, shown(self.body_bytes), self.connections)
    }
}

/// All of it.
#[derive(Debug, Serialize)]
pub struct Table {
    pub rows: Vec<Row>,
    pub limits: Limits,
    pub skipped: Vec<Skipped>,
    pub handshakes: Vec<Handshakes>,
    pub floors: Vec<Floor>,
    pub goals: Vec<Goal>,
}

impl Table {
    /// Empty.
    pub fn new(limits: Limits) -> Self {
        let (rows, skipped) = (Vec::new(), Vec::new());
        let (handshakes, floors, goals) = (Vec::new(), Vec::new(), Vec::new());
        Self { rows, limits, skipped, handshakes, floors, goals }
    }
}

/// The middle of some values; 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

/// Server CPU-seconds for 10^9 bytes of bodies.
pub fn cpu_s_per_gb(report: &Report) -> f64 {
    report.server.and_then(|server| server.cpu_s_per_gb).unwrap_or(f64::NAN)
}

impl Row {
    /// From a cell's pairs, of which there is at least one.
    pub fn new(cell: Cell, server: &str, peer: &str, streams: usize, pairs: &[Pair]) -> Self {
        let of = |get: &dyn Fn(&Pair) -> f64| median(pairs.iter().map(get).collect());
        let a = |get: &dyn Fn(&Report) -> f64| of(&|pair| get(&pair.server));
        let b = |get: &dyn Fn(&Report) -> f64| of(&|pair| get(&pair.peer));
        let ratios: Vec<f64> = pairs
            .iter()
            .map(|pair| cpu_s_per_gb(&pair.server) / cpu_s_per_gb(&pair.peer))
            .collect();
        let loaded = |get: &dyn Fn(&(Report, Report)) -> f64| {
            let all: Vec<f64> =
                pairs.iter().filter_map(|pair| pair.loaded.as_ref()).map(get).collect();
            (!all.is_empty()).then(|| median(all))
        };
        let rss = |report: &Report| report.server.map_or(0, |server| server.rss_max_bytes);
        let busy = |report: &Report| report.server.map_or(0.0, |server| server.busy);
        Self {
            case: cell.case.name(),
            body_bytes: cell.body_bytes,
            connections: cell.connections,
            slow: cell.slow,
            streams,
            source: cell.source.name(),
            server: server.to_owned(),
            peer: peer.to_owned(),
            cpu_s_per_gb: a(&cpu_s_per_gb),
            peer_cpu_s_per_gb: b(&cpu_s_per_gb),
            ratio: median(ratios.clone()),
            ratio_min: ratios.iter().copied().fold(f64::INFINITY, f64::min),
            ratio_max: ratios.iter().copied().fold(0.0, f64::max),
            pairs: pairs.len(),
            client_limited: pairs
                .iter()
                .any(|pair| pair.server.client_limited || pair.peer.client_limited),
            gb_per_s: a(&|report| report.gb_per_s),
            peer_gb_per_s: b(&|report| report.gb_per_s),
            requests_per_s: a(&|report| report.requests_per_s),
            peer_requests_per_s: b(&|report| report.requests_per_s),
            requests_ratio: of(&|pair| pair.server.requests_per_s / pair.peer.requests_per_s),
            ttfb_p50_ms: a(&|report| report.first_byte.p50_ms),
            peer_ttfb_p50_ms: b(&|report| report.first_byte.p50_ms),
            ttfb_p99_ms: a(&|report| report.first_byte.p99_ms),
            peer_ttfb_p99_ms: b(&|report| report.first_byte.p99_ms),
            ttfb_p99_at_70_ms: loaded(&|both| both.0.first_byte.p99_ms),
            peer_ttfb_p99_at_70_ms: loaded(&|both| both.1.first_byte.p99_ms),
            rss_bytes: pairs.iter().map(|pair| rss(&pair.server)).max().unwrap_or(0),
            peer_rss_bytes: pairs.iter().map(|pair| rss(&pair.peer)).max().unwrap_or(0),
            busy: a(&busy),
            peer_busy: b(&busy),
            client_busy: a(&|report| report.client_busy),
            peer_client_busy: b(&|report| report.client_busy),
        }
    }
}

/// The table's head.
pub fn head() -> String {
    format!(
        "| {:<7} | {:<7} | {:>7} | {:>5} | {:<16} | {:>8} | {:>8} | {:>5} | {:<12} | {:>15} | {:>15} | {:>13} | {:>9} | {} |\n{}",
        "case",
        "source",
        "body",
        "conns",
        "peer",
        "CPU-s/GB",
        "peer",
        "ratio",
        "min..max",
        "requests/s, peer",
        "p99 ms, peer",
        "RSS MiB, peer",
        "busy",
        "notes",
        line(),
    )
}

fn line() -> String {
    let widths = [7, 7, 7, 5, 16, 8, 8, 5, 12, 15, 15, 13, 9, 5];
    widths.iter().map(|width| format!("|{}", "-".repeat(width + 2))).collect::<String>() + "|"
}

/// One line of it.
pub fn shown_row(row: &Row) -> String {
    let mib = |bytes: u64| bytes >> 20;
    let mut notes = Vec::new();
    if row.client_limited {
        notes.push("client limited".to_owned());
    }
    if row.slow {
        notes.push("slow readers".to_owned());
    }
    if let (Some(own), Some(peer)) = (row.ttfb_p99_at_70_ms, row.peer_ttfb_p99_at_70_ms) {
        notes.push(format!("p99 at 70 %: {own:.2}, {peer:.2} ms"));
    }
    format!(
        "| {:<7} | {:<7} | {:>7} | {:>5} | {:<16} | {:>8.3} | {:>8.3} | {:>5.2} | {:<12} | {:>15} | {:>15} | {:>13} | {:>9} | {} |",
        row.case,
        row.source,
        shown(row.body_bytes),
        row.connections,
        row.peer,
        row.cpu_s_per_gb,
        row.peer_cpu_s_per_gb,
        row.ratio,
        format!("{:.2}..{:.2}", row.ratio_min, row.ratio_max),
        format!("{:.0}, {:.0}", row.requests_per_s, row.peer_requests_per_s),
        format!("{:.2}, {:.2}", row.ttfb_p99_ms, row.peer_ttfb_p99_ms),
        format!("{}, {}", mib(row.rss_bytes), mib(row.peer_rss_bytes)),
        format!("{:.2}, {:.2}", row.busy, row.peer_busy),
        notes.join("; "),
    )
}

/// What stands below the table.
pub fn foot(table: &Table) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "\nOne core of this machine: AES-128-GCM {:.2} GB/s ({:.3} s/GB), memory copy {:.2} GB/s ({:.3} s/GB).",
        table.limits.aes_gcm_gb_s,
        1.0 / table.limits.aes_gcm_gb_s,
        table.limits.memcpy_gb_s,
        1.0 / table.limits.memcpy_gb_s,
    );
    for handshakes in &table.handshakes {
        let _ = writeln!(text, "{handshakes}");
    }
    for floor in &table.floors {
        let _ = writeln!(text, "Floor of {floor}");
    }
    text += &goals::shown_goals(&table.goals);
    for (number, skipped) in table.skipped.iter().enumerate() {
        let same = |other: &&Skipped| {
            (&other.peer, &other.reason, other.source)
                == (&skipped.peer, &skipped.reason, skipped.source)
        };
        // One line for each reason, at its first cell.
        if table.skipped[..number].iter().any(|other| same(&other)) {
            continue;
        }
        let all: Vec<String> = table.skipped.iter().filter(same).map(Skipped::cell).collect();
        let (first, peer, source) = (&all[0], &skipped.peer, skipped.source);
        let more =
            if all.len() > 1 { format!(" and {} more", all.len() - 1) } else { String::new() };
        let reason = skipped.reason.trim();
        let _ = writeln!(text, "Not measured: {source}, {peer}, {first}{more}: {reason}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-12);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-12);
    }
}
