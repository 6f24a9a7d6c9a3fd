//! What a load came to.

use super::server::Usage;
use super::tally::Tally;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A client whose thread was busy for this share of the time was what limited the load.
pub(super) const BUSY_LIMIT: f64 = 0.95;

/// Times in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// How many were taken.
    pub count: u64,
    /// Half were at most this.
    pub p50_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// 999 of 1,000.
    pub p999_ms: f64,
    /// 9,999 of 10,000.
    pub p9999_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Times {
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            count: histogram.len(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            p9999_ms: at(0.9999),
            max_ms: histogram.max() as f64 / 1000.0,
        }
    }
}

/// What a load came to. Its figures are of the measured time; what went wrong, of the warm-up
/// as well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// `h1`, `h1-tls`, `h2` or `h3`.
    pub protocol: String,
    /// Connections that read as fast as they can.
    pub connections: usize,
    /// Requests at a time on each.
    pub streams: usize,
    /// Connections that read a trickle.
    pub slow: usize,
    /// How long was measured.
    pub seconds: f64,
    /// Whole answers with the right body.
    pub answers: u64,
    /// Bodies whose content was checked, the warm-up's included.
    pub checked: u64,
    /// Bodies of another length or content than expected.
    pub wrong: u64,
    /// Other statuses, resets, broken connections.
    pub failures: u64,
    /// Requests of an open loop for which there was no room.
    pub dropped: u64,
    /// The first of what went wrong.
    pub texts: Vec<String>,
    /// Of bodies.
    pub body_bytes: u64,
    /// Answers a second.
    pub requests_per_s: f64,
    /// Bytes of bodies a second, in 10^9.
    pub gb_per_s: f64,
    /// From a request's intended start to its body's first byte.
    pub first_byte: Times,
    /// To its body's last byte.
    pub whole: Times,
    /// The share of the time in which the client's thread was busy.
    pub client_busy: f64,
    /// The client was busy for 95 % or more: the server could have done more.
    pub client_limited: bool,
    /// Of the server's processes; absent without any.
    pub server: Option<ServerReport>,
}

/// What a load cost the server.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ServerReport {
    /// In user mode, all threads and children.
    pub user_s: f64,
    /// In the kernel.
    pub system_s: f64,
    /// Both, for each 10^9 bytes of bodies; absent when none came.
    pub cpu_s_per_gb: Option<f64>,
    /// Both, for each answer, in microseconds; absent when none came whole.
    pub cpu_us_per_answer: Option<f64>,
    /// CPU time for each second of the load.
    pub busy: f64,
    /// Resident memory before the first connection.
    pub rss_before_bytes: u64,
    /// The most that was seen.
    pub rss_max_bytes: u64,
}

/// What was measured beside the tally.
pub(super) struct Measured {
    pub protocol: String,
    pub connections: usize,
    pub streams: usize,
    pub slow: usize,
    pub dropped: u64,
    pub seconds: f64,
    pub client_s: f64,
    /// At the start and at the end of the measured time; none without processes.
    pub server: Option<(Usage, Usage)>,
    pub rss_before_bytes: u64,
    pub rss_max_bytes: u64,
}

impl Report {
    pub(super) fn new(tally: &Tally, measured: &Measured) -> Self {
        let (answers, body_bytes) = (tally.answers.get(), tally.body_bytes.get());
        let seconds = measured.seconds.max(1e-9);
        let busy = measured.client_s / seconds;
        Self {
            protocol: measured.protocol.clone(),
            connections: measured.connections,
            streams: measured.streams,
            slow: measured.slow,
            seconds,
            answers,
            checked: tally.checked.get(),
            wrong: tally.wrong.get(),
            failures: tally.failures.get(),
            dropped: measured.dropped,
            texts: tally.texts.borrow().clone(),
            body_bytes,
            requests_per_s: answers as f64 / seconds,
            gb_per_s: body_bytes as f64 / 1e9 / seconds,
            first_byte: Times::of(&tally.first_byte.borrow()),
            whole: Times::of(&tally.whole.borrow()),
            client_busy: busy,
            client_limited: busy >= BUSY_LIMIT,
            server: measured.server.map(|(start, end)| {
                let (user_s, system_s) = (end.user_s - start.user_s, end.system_s - start.system_s);
                let cpu = user_s + system_s;
                ServerReport {
                    user_s,
                    system_s,
                    cpu_s_per_gb: (body_bytes > 0).then(|| cpu / (body_bytes as f64 / 1e9)),
                    cpu_us_per_answer: (answers > 0).then(|| cpu * 1e6 / answers as f64),
                    busy: cpu / seconds,
                    rss_before_bytes: measured.rss_before_bytes,
                    rss_max_bytes: measured.rss_max_bytes,
                }
            }),
        }
    }

    /// Whether every answer was right.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.wrong == 0 && self.failures == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} connections x {} streams, {} slow, {:.2} s",
            self.protocol, self.connections, self.streams, self.slow, self.seconds
        )?;
        writeln!(
            f,
            "  {} answers, {:.0}/s, {:.3} GB/s; {} bodies checked, {} wrong, {} failures",
            self.answers,
            self.requests_per_s,
            self.gb_per_s,
            self.checked,
            self.wrong,
            self.failures
        )?;
        for text in &self.texts {
            writeln!(f, "  ! {text}")?;
        }
        for (name, times) in [("first byte", &self.first_byte), ("whole body", &self.whole)] {
            writeln!(
                f,
                "  {name}: p50 {:.2} ms, p99 {:.2}, p99.9 {:.2}, p99.99 {:.2}, max {:.2}",
                times.p50_ms, times.p99_ms, times.p999_ms, times.p9999_ms, times.max_ms
            )?;
        }
        let limited = if self.client_limited { " (the client was the limit)" } else { "" };
        writeln!(f, "  client {:.0} % busy{limited}", self.client_busy * 100.0)?;
        let Some(server) = &self.server else { return Ok(()) };
        writeln!(
            f,
            "  server {:.0} % of a core: {:.2} s user, {:.2} s system; {:.4} CPU-s/GB, {:.1} us an answer; RSS {:.1} MiB at most",
            server.busy * 100.0,
            server.user_s,
            server.system_s,
            server.cpu_s_per_gb.unwrap_or(f64::NAN),
            server.cpu_us_per_answer.unwrap_or(f64::NAN),
            server.rss_max_bytes as f64 / f64::from(1 << 20)
        )
    }
}
