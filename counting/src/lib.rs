//! How an edge's parts name and register what they count: `nearcast_edge_<what>_<unit>[_total]`,
//! each once in one registry; and how what is counted gets into the log ([`Untold`]). It knows
//! nothing of what is counted.
//!
//! All metrics fail only when the name is taken already, or is none.

mod untold;

pub use untold::{TOLD_EVERY, Untold};

use prometheus::core::Collector;
use prometheus::{
    Error, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

/// Before each name.
const PREFIX: &str = "nearcast_edge_";

fn named(name: &str, help: &str) -> Opts {
    Opts::new(format!("{PREFIX}{name}"), help)
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C, Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// A count that only rises.
///
/// # Errors
/// The name is taken, or is none.
pub fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, Error> {
    registered(registry, IntCounter::with_opts(named(name, help))?)
}

/// Counts that only rise, by labels.
///
/// # Errors
/// The name is taken, or is none.
pub fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, Error> {
    registered(registry, IntCounterVec::new(named(name, help), labels)?)
}

/// With all that it will count, so that an alarm sees the first one as a rise from 0. They have
/// one label, these are its values.
#[must_use]
pub fn from_zero(counters: IntCounterVec, values: &[&str]) -> IntCounterVec {
    for value in values {
        counters.with_label_values(&[value]).inc_by(0);
    }
    counters
}

/// A number that rises and falls.
///
/// # Errors
/// The name is taken, or is none.
pub fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, Error> {
    registered(registry, unregistered_gauge(name, help)?)
}

/// One that its owner's own collector tells.
///
/// # Errors
/// The name is none.
pub fn unregistered_gauge(name: &str, help: &str) -> Result<IntGauge, Error> {
    IntGauge::with_opts(named(name, help))
}

/// A gauge of fractions.
///
/// # Errors
/// The name is taken, or is none.
pub fn ratio(registry: &Registry, name: &str, help: &str) -> Result<Gauge, Error> {
    registered(registry, Gauge::with_opts(named(name, help))?)
}

/// Numbers that rise and fall, by labels.
///
/// # Errors
/// The name is taken, or is none.
pub fn gauges(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, Error> {
    registered(registry, unregistered_gauges(name, help, labels)?)
}

/// Such that their owner's own collector tells.
///
/// # Errors
/// The name is none.
pub fn unregistered_gauges(name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
    IntGaugeVec::new(named(name, help), labels)
}

/// How many were below each of the upper bounds.
///
/// # Errors
/// The name is taken, or is none.
pub fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    bounds: &[f64],
) -> Result<Histogram, Error> {
    let options = HistogramOpts::from(named(name, help)).buckets(bounds.to_vec());
    registered(registry, Histogram::with_opts(options)?)
}

/// Histograms, by labels.
///
/// # Errors
/// The name is taken, or is none.
pub fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    bounds: &[f64],
    labels: &[&str],
) -> Result<HistogramVec, Error> {
    let options = HistogramOpts::from(named(name, help)).buckets(bounds.to_vec());
    registered(registry, HistogramVec::new(options, labels)?)
}
