//! What becomes of one request: counted while it is answered, logged when it has ended.

use crate::error::Fault;
use crate::metrics::Metrics;
use crate::verdict::Verdict;
use std::time::Instant;
use tokio::sync::OwnedSemaphorePermit;

/// A request's account; it is settled when dropped, which is when the body ended or was left.
pub struct Account {
    metrics: Metrics,
    method: http::Method,
    /// The path below the token: no log line may hold the token.
    path: String,
    protocol: &'static str,
    started: Instant,
    verdict: Verdict,
    status: u16,
    expected: u64,
    sent: u64,
    cut: Option<Fault>,
    /// Held while media is sent.
    place: Option<OwnedSemaphorePermit>,
}

impl Account {
    /// Opens the account of a request that starts now.
    pub fn open(
        metrics: Metrics,
        method: http::Method,
        path: String,
        protocol: &'static str,
    ) -> Self {
        Self {
            metrics,
            method,
            path,
            protocol,
            started: Instant::now(),
            verdict: Verdict::Failed,
            status: 0,
            expected: 0,
            sent: 0,
            cut: None,
            place: None,
        }
    }

    /// The head of the answer is ready.
    pub fn answered(&mut self, verdict: Verdict, status: u16) {
        (self.verdict, self.status) = (verdict, status);
        self.metrics.answered(verdict, self.protocol, status);
        self.metrics.first_byte(self.started.elapsed());
    }

    /// Media of `bytes` will be sent; `place` is given back at the end.
    pub fn media(&mut self, bytes: u64, place: OwnedSemaphorePermit) {
        self.expected = bytes;
        self.place = Some(place);
        self.metrics.responses.inc();
    }

    /// Media bytes were handed to the connection.
    pub fn sent(&mut self, source: Verdict, bytes: u64) {
        self.sent += bytes;
        self.metrics.sent(source, bytes);
    }

    /// The body was cut: the bytes could not be had.
    pub fn cut(&mut self, fault: &Fault) {
        self.metrics.bodies_cut.inc();
        self.cut = Some(fault.clone());
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if self.place.is_some() {
            self.metrics.responses.dec();
        }
        let (method, path) = (&self.method, &self.path);
        let (protocol, status, verdict) = (self.protocol, self.status, self.verdict.name());
        let micros = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let (bytes, expected) = (self.sent, self.expected);
        match &self.cut {
            Some(fault) => tracing::warn!(
                %method, path, protocol, status, verdict, bytes, expected, micros, %fault, "cut"
            ),
            None => tracing::debug!(
                %method, path, protocol, status, verdict, bytes, expected, micros, "request"
            ),
        }
    }
}
