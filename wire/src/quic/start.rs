//! How a connection finds out what its path takes: HyStart++ (RFC 9406) before quinn's cubic. A
//! slow start without it ends by loss alone, when all queues on the way are full: a path then has
//! many times under way what it carries, which costs memory and caches at both ends, and what is
//! lost is sent again.
//!
//! Invariant: the window grows no faster than by slow start, and from the first loss on it is
//! cubic's (RFC 9438).

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;
use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A round trip longer than the round's before by an eighth of that, within these, means a queue
/// (RFC 9406 section 4.3: `MIN_RTT_THRESH`, `MAX_RTT_THRESH`).
const LONGER: [Duration; 2] = [Duration::from_millis(4), Duration::from_millis(16)];
/// Packets of a round whose round trips are known, before these are compared (`N_RTT_SAMPLE`; the
/// RFC counts ACKs, of which peers that receive in batches send one for dozens of packets).
const SAMPLES_MIN: u32 = 8;
/// A conservative slow start grows by a quarter of what slow start would (`CSS_GROWTH_DIVISOR`).
const GROWTH_DIVISOR: u64 = 4;
/// Rounds of it, after which slow start is over (`CSS_ROUNDS`).
const ROUNDS: u32 = 5;
/// What cubic keeps of its window at a loss (RFC 9438 section 4.6).
const BETA: f64 = 0.7;

/// Begins connections.
#[derive(Debug, Default)]
pub struct Starts(Arc<CubicConfig>);

impl ControllerFactory for Starts {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        let cubic = Arc::clone(&self.0).build(now, mtu);
        let initial = cubic.initial_window();
        Box::new(Start { cubic, mtu, initial, phase: Some(Phase::of(now)), ended: None })
    }
}

/// Cubic with this window, in slow start.
fn cubic(window: u64, now: Instant, mtu: u16) -> Box<dyn Controller> {
    let mut config = CubicConfig::default();
    config.initial_window(window);
    Arc::new(config).build(now, mtu)
}

/// A congestion controller.
struct Start {
    cubic: Box<dyn Controller>,
    mtu: u16,
    /// What it began with.
    initial: u64,
    /// None once slow start is over.
    phase: Option<Phase>,
    /// When it ended without a loss, until there is one.
    ended: Option<Instant>,
}

/// Where slow start is.
#[derive(Clone)]
struct Phase {
    /// The round's packets were sent from then on.
    began: Instant,
    samples: u32,
    /// The shortest round trips, of this round and of the one before.
    shortest: Option<Duration>,
    before: Option<Duration>,
    conservative: Option<Conservative>,
}

/// A conservative slow start.
#[derive(Clone)]
struct Conservative {
    /// The round trip that it began with.
    baseline: Duration,
    rounds: u32,
}

impl Phase {
    fn of(now: Instant) -> Self {
        let (shortest, before) = (None, None);
        Self { began: now, samples: 0, shortest, before, conservative: None }
    }

    /// Takes what a packet tells; whether slow start is over.
    fn is_over(&mut self, now: Instant, sent: Instant) -> bool {
        // Those that were sent before it began say nothing of this round.
        if sent >= self.began && self.turn(now) {
            return true;
        }
        let took = now.saturating_duration_since(sent);
        self.samples += 1;
        let shortest = self.shortest.map_or(took, |shortest| shortest.min(took));
        self.shortest = Some(shortest);
        if self.samples >= SAMPLES_MIN {
            self.compare(shortest);
        }
        false
    }

    /// Begins the next round; whether there is none.
    fn turn(&mut self, now: Instant) -> bool {
        self.began = now;
        self.samples = 0;
        self.before = self.shortest.take().or(self.before);
        let Some(conservative) = &mut self.conservative else { return false };
        conservative.rounds += 1;
        conservative.rounds >= ROUNDS
    }

    fn compare(&mut self, shortest: Duration) {
        match (&self.conservative, self.before) {
            // It was no queue, or it has gone.
            (Some(conservative), _) if shortest < conservative.baseline => self.conservative = None,
            (None, Some(before))
                if shortest >= before + (before / 8).clamp(LONGER[0], LONGER[1]) =>
            {
                self.conservative = Some(Conservative { baseline: shortest, rounds: 0 });
            }
            _ => {}
        }
    }
}

impl Start {
    /// Has cubic go on from the window that there is: it takes none, but that of a loss.
    fn end(&mut self, now: Instant) {
        (self.phase, self.ended) = (None, Some(now));
        let window = (self.cubic.window() as f64 / BETA).ceil() as u64;
        self.cubic = cubic(window, now, self.mtu);
        self.cubic.on_congestion_event(now, now, false, 0);
    }
}

impl Controller for Start {
    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        let mut bytes = bytes;
        if let Some(phase) = self.phase.as_mut().filter(|_| !app_limited) {
            if phase.is_over(now, sent) {
                self.end(now);
            } else if phase.conservative.is_some() {
                bytes /= GROWTH_DIVISOR;
            }
        }
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost: u64) {
        self.phase = None;
        // Cubic would take what was under way then for part of a loss that it knows of. What it
        // forgets it sets anew, with this loss for its first.
        if self.ended.take().is_some_and(|ended| sent <= ended) {
            self.cubic = cubic(self.cubic.window(), now, self.mtu);
        }
        self.cubic.on_congestion_event(now, sent, persistent, lost);
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.mtu = mtu;
        self.cubic.on_mtu_update(mtu);
    }

    fn window(&self) -> u64 {
        self.cubic.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.cubic.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        let cubic = self.cubic.clone_box();
        let (phase, ended) = (self.phase.clone(), self.ended);
        Box::new(Self { cubic, mtu: self.mtu, initial: self.initial, phase, ended })
    }

    fn initial_window(&self) -> u64 {
        self.initial
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    const PACKET_BYTES: u64 = 1_500;
    const MILLI: Duration = Duration::from_millis(1);

    /// What a path of this round trip, that carries so many bytes a millisecond, has under way
    /// when slow start ends, and how often it was conservative; none after so many packets.
    fn slow_start(
        base: Duration,
        per_milli: u64,
        jitter: impl Fn(u64) -> Duration,
    ) -> (Option<u64>, u32) {
        let mut now = Instant::now();
        let (mut phase, mut window, mut turns) = (Phase::of(now), 10 * PACKET_BYTES, 0);
        let mut sent = VecDeque::new();
        let mut free = now;
        for number in 0..200_000 {
            while (sent.len() as u64) * PACKET_BYTES < window {
                free = free.max(now) + MILLI.mul_f64(PACKET_BYTES as f64 / per_milli as f64);
                sent.push_back((now, free + base + jitter(number)));
            }
            let (at, acked) = sent.pop_front().unwrap();
            now = now.max(acked);
            let was = phase.conservative.is_some();
            if phase.is_over(now, at) {
                return (Some(window), turns);
            }
            turns += u32::from(!was && phase.conservative.is_some());
            window += PACKET_BYTES / if phase.conservative.is_some() { GROWTH_DIVISOR } else { 1 };
        }
        (None, turns)
    }

    /// It ends with more under way than the path carries, and not with many times as much.
    #[test]
    fn a_queue_ends_it() {
        for (millis, per_milli) in
            [(1, 125_000), (5, 12_500), (20, 12_500), (80, 2_500), (80, 60_000)]
        {
            let base = MILLI * millis;
            let carried = u64::from(millis) * per_milli;
            let (window, _) = slow_start(base, per_milli, |_| Duration::ZERO);
            let window = window.expect("it ends");
            // A queue of 4 ms is seen a round late, and five rounds more go by.
            let most = 20 * (carried + 4 * per_milli + 10 * PACKET_BYTES);
            assert!((carried..most).contains(&window), "{millis} ms, {per_milli}: {window}");
        }
    }

    #[test]
    fn a_path_without_a_queue_does_not_end_it() {
        assert_eq!(slow_start(20 * MILLI, 1 << 40, |_| Duration::ZERO), (None, 0));
    }

    /// Round trips that were longer for a while, not by its doing.
    #[test]
    fn a_disturbance_does_not_end_it() {
        let jitter =
            |number| if (2_000..2_500).contains(&number) { 30 * MILLI } else { Duration::ZERO };
        let (window, turns) = slow_start(20 * MILLI, 1 << 40, jitter);
        assert_eq!(window, None);
        assert!(turns > 0, "it was seen");
    }

    /// One whose slow start has ended now, with so many times the window that it began with.
    fn ended(now: Instant, factor: u64) -> (Start, u64) {
        let initial = Arc::new(CubicConfig::default()).build(now, 1_500).window();
        let cubic = cubic(factor * initial, now, 1_500);
        let phase = Some(Phase::of(now));
        let mut start = Start { cubic, mtu: 1_500, initial, phase, ended: None };
        start.end(now);
        (start, initial)
    }

    /// A loss of what was under way when slow start ended is a loss like any other, and one that
    /// is found after it belongs to it.
    #[test]
    fn what_was_under_way_may_be_lost() {
        let now = Instant::now() + MILLI;
        for (first, second) in [(now - MILLI, now - MILLI), (now, now), (now + MILLI, now - MILLI)]
        {
            for factor in [1, 3, 100] {
                let (mut start, initial) = ended(now, factor);
                let kept = (factor * initial) as f64 * BETA;
                for (sent, found) in [(first, 2), (second, 3)] {
                    start.on_congestion_event(now + found * MILLI, sent, false, 1);
                    assert!((start.window() as f64 - kept).abs() <= 2.0, "{factor}");
                    assert_eq!(start.metrics().ssthresh, Some(start.window()), "{factor}");
                }
                assert_eq!(start.initial_window(), initial);
            }
        }
        let (mut start, _) = ended(now, 100);
        start.on_congestion_event(now + MILLI, now - MILLI, true, 1);
        assert_eq!(start.window(), 2 * 1_500);
    }

    /// The window stays what it is when slow start ends, and a loss takes what cubic's takes.
    #[test]
    fn cubic_goes_on_from_there() {
        let now = Instant::now();
        for factor in [1, 3, 100] {
            let (mut start, initial) = ended(now, factor);
            assert!(start.window().abs_diff(factor * initial) <= 1, "{factor}");
            assert!(start.metrics().ssthresh.is_some_and(|threshold| threshold <= start.window()));
            assert_eq!(start.initial_window(), initial);
            start.on_congestion_event(now + MILLI, now + MILLI, false, 1);
            let kept = (factor * initial) as f64 * BETA;
            assert!((start.window() as f64 - kept).abs() <= 2.0, "{factor}");
        }
    }

    /// A loss ends it as well.
    #[test]
    fn a_loss_ends_it() {
        let now = Instant::now();
        let mut start = Arc::new(Starts::default()).build(now, 1_500);
        let window = start.window();
        start.on_congestion_event(now, now, false, 1);
        assert_eq!(start.window(), (window as f64 * BETA) as u64);
        assert!(start.into_any().downcast::<Start>().is_ok_and(|start| start.phase.is_none()));
    }
}
