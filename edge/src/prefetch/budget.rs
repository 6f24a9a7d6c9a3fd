//! How much may be fetched ahead: a share of what clients took of late. Pure: the time is passed in.

use super::Settings;
use std::time::{Duration, Instant};

/// Bytes being prefetched at a time: what a gigabit brings in a quarter of a second.
pub(super) const IN_FLIGHT_BYTES_MAX: u64 = 32 << 20;
/// What may be prefetched before anybody took anything: four segments of 2 MiB.
pub(super) const FLOOR_BYTES: f64 = (8 << 20) as f64;
/// A request costs an origin as much as this many bytes, however few it brings.
pub(super) const REQUEST_BYTES: u64 = 64 << 10;
/// Demand and prefetches of this long ago count half.
pub(super) const HALF_LIFE: Duration = Duration::from_secs(60);

/// Why something is not prefetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The edge has no room to spare.
    Pressed,
    /// It was prefetched, and not used since, or in vain.
    Known,
    /// It would come to nothing: it is known not to be kept, or the last hints at its like brought
    /// nothing that is.
    InVain,
    /// Enough is in flight.
    InFlight,
    /// Enough was prefetched for what was taken.
    OverShare,
}

impl Refusal {
    pub(super) const ALL: [Self; 5] =
        [Self::Pressed, Self::Known, Self::InVain, Self::InFlight, Self::OverShare];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Pressed => "pressed",
            Self::Known => "known",
            Self::InVain => "in-vain",
            Self::InFlight => "in-flight",
            Self::OverShare => "over-share",
        }
    }
}

/// Bytes of late: older ones fade.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recent {
    pub(super) bytes: f64,
    pub(super) at: Instant,
}

impl Recent {
    pub(super) fn at(self, now: Instant) -> f64 {
        let halves = now.saturating_duration_since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.bytes * (-halves).exp2()
    }

    pub(super) fn add(&mut self, now: Instant, bytes: f64) {
        *self = Self { bytes: (self.at(now) + bytes).max(0.0), at: self.at.max(now) };
    }
}

/// What is spent and what was taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    pub(super) demand: Recent,
    pub(super) spent: Recent,
    pub(super) in_flight_bytes: u64,
}

/// Whether `bytes` more may be prefetched.
pub(super) fn decide(
    budget: &Budget,
    settings: &Settings,
    now: Instant,
    bytes: u64,
) -> Result<(), Refusal> {
    if budget.in_flight_bytes.saturating_add(bytes) > IN_FLIGHT_BYTES_MAX {
        return Err(Refusal::InFlight);
    }
    let share = f64::from(settings.demand_percent) / 100.0;
    let allowed =
        FLOOR_BYTES.mul_add(f64::from(u8::from(share > 0.0)), share * budget.demand.at(now));
    if budget.spent.at(now) + bytes as f64 > allowed { Err(Refusal::OverShare) } else { Ok(()) }
}
