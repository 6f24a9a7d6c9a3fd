//! What is counted of upstream traffic.

mod breakers;

use crate::breaker::State;
use crate::pulse;
use crate::s3::Reason;
use breakers::Breakers;
use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};

/// Upper bounds, in seconds: from a sibling in the same rack to a blocking playlist reload.
const HEAD_SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// Of one edge.
#[derive(Clone)]
pub(crate) struct Metrics {
    requests: IntCounterVec,
    bytes: IntCounterVec,
    head: HistogramVec,
    retries: IntCounterVec,
    hedges: IntCounterVec,
    exhausted: IntCounterVec,
    in_flight: IntGaugeVec,
    queued: IntGaugeVec,
    pub(crate) breakers: Breakers,
    healthy: IntGaugeVec,
    skew: IntGaugeVec,
    refreshes: IntCounterVec,
    refusals: IntCounterVec,
    node_up: IntGaugeVec,
    probes: IntCounterVec,
    anew: IntCounterVec,
}

/// Of one hop of one site.
pub(crate) struct Meter {
    pub(crate) site: String,
    hop: String,
    requests: IntCounterVec,
    pub(crate) bytes: IntCounter,
    pub(crate) head: Histogram,
    pub(crate) retries: IntCounter,
    pub(crate) in_flight: IntGauge,
    pub(crate) queued: IntGauge,
    breaker: IntGauge,
    pub(crate) healthy: IntGauge,
    pub(crate) skew: IntGauge,
    refusals: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let name = |name: &str| format!("upstream_{name}");
        let counters = |what: &str, help: &str, labels: &[&str]| {
            counting::counters(registry, &name(what), help, labels)
        };
        let gauges = |what: &str, help: &str| {
            counting::gauges(registry, &name(what), help, &["site", "hop"])
        };
        let head = counting::histograms(
            registry,
            &name("head_seconds"),
            "Time to the head of an answer.",
            &HEAD_SECONDS,
            &["site", "hop"],
        )?;
        Ok(Self {
            requests: counters(
                "requests_total",
                "Exchanges with a hop, by how they ended: a class of status, or a fault.",
                &["site", "hop", "outcome"],
            )?,
            bytes: counters("bytes_total", "Bytes of bodies received.", &["site", "hop"])?,
            head,
            retries: counters("retries_total", "Tries on top of the first.", &["site", "hop"])?,
            hedges: counters(
                "hedges_total",
                "Requests sent a second time since the first took long: won, lost or failed.",
                &["site", "outcome"],
            )?,
            exhausted: counters(
                "retry_budget_exhausted_total",
                "Tries and hedges that were not sent since the budget was spent.",
                &["site"],
            )?,
            in_flight: gauges("in_flight_requests", "Exchanges under way.")?,
            queued: gauges("queued_requests", "Requests that wait for one to end.")?,
            breakers: Breakers::registered(
                registry,
                &name("breaker_state"),
                "0 closed, 1 half-open, 2 open.",
            )?,
            healthy: gauges("healthy", "1 if the active health check says so, or there is none.")?,
            skew: gauges(
                "clock_skew_seconds",
                "How far an origin's clock was ahead of this one at its last answer, at least.",
            )?,
            refreshes: counters(
                "credential_refreshes_total",
                "Times that credentials for S3 were asked for, by outcome.",
                &["site", "outcome"],
            )?,
            refusals: counters(
                "key_refusals_total",
                "Requests that a bucket refused for who asked, by its reason.",
                &["site", "hop", "reason"],
            )?,
            node_up: counting::gauges(
                registry,
                &name("node_up"),
                "0 while another node gives no sign of life, and is asked for nothing.",
                &["hop"],
            )?,
            anew: counters(
                "anew_total",
                "Requests sent anew since their connection had been given up, or did not take them.",
                &["hop"],
            )?,
            probes: counters(
                "probes_total",
                "Times that a node of which nothing came was asked whether it is there.",
                &["hop", "outcome"],
            )?,
        })
    }

    /// Requests sent anew over another connection to a hop.
    pub(crate) fn anew(&self, hop: &str) -> IntCounter {
        self.anew.with_label_values(&[hop])
    }

    /// Of a node's life.
    pub(crate) fn pulse(&self, hop: &str) -> pulse::Meter {
        let probes = |outcome| self.probes.with_label_values(&[hop, outcome]);
        let (answered, unanswered) = (probes("answered"), probes("unanswered"));
        pulse::Meter { up: self.node_up.with_label_values(&[hop]), answered, unanswered }
    }

    pub(crate) fn meter(&self, site: &str, hop: &str) -> Meter {
        let labels = &[site, hop];
        let meter = Meter {
            site: site.to_owned(),
            hop: hop.to_owned(),
            requests: self.requests.clone(),
            bytes: self.bytes.with_label_values(labels),
            head: self.head.with_label_values(labels),
            retries: self.retries.with_label_values(labels),
            in_flight: self.in_flight.with_label_values(labels),
            queued: self.queued.with_label_values(labels),
            breaker: self.breakers.gauge(labels),
            healthy: self.healthy.with_label_values(labels),
            skew: self.skew.with_label_values(labels),
            refusals: self.refusals.clone(),
        };
        meter.healthy.set(1);
        // An alarm sees the first one as a rise from 0.
        self.requests.with_label_values(&[site, hop, "5xx"]).inc_by(0);
        meter
    }

    /// A site whose counters begin at 0, so that an alarm sees the first one as a rise.
    pub(crate) fn site(&self, site: &str) {
        self.exhausted.with_label_values(&[site]).inc_by(0);
        for outcome in ["won", "lost", "failed"] {
            self.hedges.with_label_values(&[site, outcome]).inc_by(0);
        }
    }

    pub(crate) fn hedge(&self, site: &str, outcome: &str) {
        self.hedges.with_label_values(&[site, outcome]).inc();
    }

    pub(crate) fn exhausted(&self, site: &str) {
        self.exhausted.with_label_values(&[site]).inc();
    }

    /// A bucket of a site: likewise.
    pub(crate) fn bucket(&self, site: &str, hop: &str) {
        for reason in Reason::ALL {
            self.refusals.with_label_values(&[site, hop, reason.name()]).inc_by(0);
        }
    }

    /// A site with credentials: likewise.
    pub(crate) fn refreshes(&self, site: &str) {
        for outcome in ["good", "failed"] {
            self.refreshes.with_label_values(&[site, outcome]).inc_by(0);
        }
    }

    pub(crate) fn refreshed(&self, site: &str, good: bool) {
        let outcome = if good { "good" } else { "failed" };
        self.refreshes.with_label_values(&[site, outcome]).inc();
    }
}

impl Meter {
    pub(crate) fn ended(&self, outcome: &str) {
        self.requests.with_label_values(&[&self.site, &self.hop, outcome]).inc();
    }

    pub(crate) fn refused(&self, reason: Reason) {
        self.refusals.with_label_values(&[&self.site, &self.hop, reason.name()]).inc();
    }

    pub(crate) fn breaker(&self, state: State) {
        self.breaker.set(match state {
            State::Closed => 0,
            State::HalfOpen => 1,
            State::Open => 2,
        });
    }
}
