//! What is aimed at, and whether the rows reach it.

use crate::cases::{Source, shown};
use crate::table::Row;
use serde::Serialize;
use std::fmt::Write as _;

/// Memory of 1,000 slow readers.
const SLOW_BYTES_MAX: u64 = 300 << 20;

/// One aim and what was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Goal {
    pub what: String,
    pub measured: f64,
    pub wanted: f64,
    /// `measured` is to be at least `wanted`; at most, otherwise.
    pub is_least: bool,
    pub is_met: bool,
}

impl Goal {
    fn most(what: String, measured: f64, wanted: f64) -> Self {
        Self { what, measured, wanted, is_least: false, is_met: measured <= wanted }
    }

    fn least(what: String, measured: f64, wanted: f64) -> Self {
        Self { what, measured, wanted, is_least: true, is_met: measured >= wanted }
    }
}

/// CPU per byte beside nginx, at 16 connections, from memory; none for other sizes.
fn ratio_max(case: &str, body_bytes: u64) -> Option<f64> {
    let small = match body_bytes {
        0x1_0000 => true,
        0x10_0000..=0x40_0000 => false,
        _ => return None,
    };
    Some(match (case, small) {
        ("h1", _) => 1.0,
        ("h1-tls", _) => 0.50,
        ("h2-tls", true) => 0.55,
        ("h2-tls", false) => 0.45,
        ("h3", true) => 0.70,
        _ => 0.75,
    })
}

/// All that the rows tell.
pub fn of(rows: &[Row]) -> Vec<Goal> {
    rows.iter().filter(|row| row.source == Source::Memory.name()).flat_map(of_row).collect()
}

fn of_row(row: &Row) -> Vec<Goal> {
    let cell = format!("{} {}", row.case, shown(row.body_bytes));
    if row.slow {
        let is_bound = matches!(row.case, "h2-tls" | "h3");
        let what = format!("{cell}: MiB of memory with {} slow readers", row.connections);
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let goal = Goal::most(what, mib(row.rss_bytes), mib(SLOW_BYTES_MAX));
        return is_bound.then_some(goal).into_iter().collect();
    }
    if row.peer == format!("{} at 16", row.server) {
        let what = format!("{cell}: CPU per byte at {} connections beside 16", row.connections);
        let is_bound = row.connections == 256;
        return is_bound.then(|| Goal::most(what, row.ratio, 1.2)).into_iter().collect();
    }
    if row.peer == format!("{}, 1 shard", row.server) {
        let what = format!("{cell}: CPU per byte on two shards beside one");
        return vec![Goal::most(what, row.ratio, 1.1)];
    }
    if !row.peer.starts_with("nginx") || row.connections != 16 {
        return Vec::new();
    }
    let mut goals = Vec::new();
    if let Some(wanted) = ratio_max(row.case, row.body_bytes) {
        goals.push(Goal::most(format!("{cell}: CPU per byte beside nginx"), row.ratio, wanted));
    }
    if row.body_bytes == 2 << 10 {
        let limit = if row.client_limited { ", limited by the client" } else { "" };
        let what = format!("{cell}: requests a second beside nginx{limit}");
        goals.push(Goal::least(what, row.requests_ratio, 1.3));
    }
    if let (Some(own), Some(peer)) = (row.ttfb_p99_at_70_ms, row.peer_ttfb_p99_at_70_ms) {
        let what = format!("{cell}: p99 ms to the first byte at 70 % load, wanted: nginx's");
        goals.push(Goal::most(what, own, peer));
    }
    goals
}

/// As a table for people.
pub fn shown_goals(goals: &[Goal]) -> String {
    let mut text = String::new();
    if goals.is_empty() {
        return text;
    }
    let met = goals.iter().filter(|goal| goal.is_met).count();
    let _ = writeln!(text, "\nGoals: {met} of {} met", goals.len());
    for goal in goals {
        let sign = if goal.is_least { ">=" } else { "<=" };
        let (measured, wanted) = (goal.measured, goal.wanted);
        let verdict = if goal.is_met { "met" } else { "missed" };
        let _ = writeln!(text, "  {verdict:<6}  {}: {measured:.2} ({sign} {wanted:.2})", goal.what);
    }
    text
}
