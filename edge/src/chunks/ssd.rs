//! Listens to foyer's own metrics for what it drops: it says so nowhere else.

use crate::metrics::SsdDrops;
use mixtrics::metrics::{
    BoxedCounter, BoxedCounterVec, BoxedGaugeVec, BoxedHistogramVec, CounterOps, CounterVecOps,
    RegistryOps,
};
use mixtrics::registry::noop::NoopMetricsRegistry;
use std::borrow::Cow;

type Text = Cow<'static, str>;

/// Takes the two counters that mean a lost write; ignores all others.
#[derive(Debug)]
pub(super) struct Registry(pub(super) SsdDrops);

#[derive(Debug)]
struct Operations(SsdDrops);

#[derive(Debug)]
struct Overflow(SsdDrops, &'static str);

impl RegistryOps for Registry {
    fn register_counter_vec(
        &self,
        name: Text,
        _: Text,
        _: &'static [&'static str],
    ) -> BoxedCounterVec {
        if name == "foyer_storage_inner_op_total" {
            return Box::new(Operations(self.0.clone()));
        }
        Box::new(NoopMetricsRegistry)
    }

    fn register_gauge_vec(&self, _: Text, _: Text, _: &'static [&'static str]) -> BoxedGaugeVec {
        Box::new(NoopMetricsRegistry)
    }

    fn register_histogram_vec(
        &self,
        _: Text,
        _: Text,
        _: &'static [&'static str],
    ) -> BoxedHistogramVec {
        Box::new(NoopMetricsRegistry)
    }

    fn register_histogram_vec_with_buckets(
        &self,
        _: Text,
        _: Text,
        _: &'static [&'static str],
        _: Vec<f64>,
    ) -> BoxedHistogramVec {
        Box::new(NoopMetricsRegistry)
    }
}

impl CounterVecOps for Operations {
    fn counter(&self, labels: &[Text]) -> BoxedCounter {
        match labels.last().map(AsRef::as_ref) {
            Some("buffer_overflow") => Box::new(Overflow(self.0.clone(), "buffer")),
            Some("channel_overflow") => Box::new(Overflow(self.0.clone(), "queue")),
            _ => Box::new(NoopMetricsRegistry),
        }
    }
}

impl CounterOps for Overflow {
    fn increase(&self, count: u64) {
        self.0.dropped(self.1, count);
    }
}
