//! The state of each breaker, read when the metrics are: some of its changes come with the time
//! alone, or with a node that other sites use as well.

use crate::hop::Way;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Error, IntGauge, IntGaugeVec, Registry};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The gauges, and whose breakers they are of. Clones share them.
#[derive(Clone)]
pub(crate) struct Breakers {
    gauges: IntGaugeVec,
    ways: Arc<Mutex<Vec<Weak<Way>>>>,
}

impl Breakers {
    /// # Errors
    /// The name is taken.
    pub(super) fn registered(registry: &Registry, name: &str, help: &str) -> Result<Self, Error> {
        let gauges = counting::unregistered_gauges(name, help, &["site", "hop"])?;
        let breakers = Self { gauges, ways: Arc::default() };
        registry.register(Box::new(breakers.clone()))?;
        Ok(breakers)
    }

    pub(super) fn gauge(&self, labels: &[&str; 2]) -> IntGauge {
        self.gauges.with_label_values(labels)
    }

    /// Tells of it as long as it is there.
    pub(crate) fn tell_of(&self, way: &Arc<Way>) {
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        ways.retain(|way| way.strong_count() > 0);
        ways.push(Arc::downgrade(way));
    }
}

impl Collector for Breakers {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        for way in ways.iter().filter_map(Weak::upgrade) {
            way.meter.breaker(way.hop.breaker());
        }
        drop(ways);
        self.gauges.collect()
    }
}
