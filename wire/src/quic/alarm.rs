//! A connection's timer. QUIC moves its deadline with nearly every packet, mostly to a later time;
//! the runtime's wheel is only told when it has to ring earlier than it would.
//!
//! Invariant: it rings at the last deadline that it was given, not before; it may wake its task
//! before.

use crate::timer::Set;
use quinn::AsyncTimer;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

/// A timer that is late to learn that it has more time.
#[derive(Debug)]
pub struct Alarm {
    set: Set,
    deadline: Instant,
}

impl Alarm {
    /// Rings at this time.
    pub fn at(deadline: Instant) -> Self {
        Self { set: Set::default(), deadline }
    }
}

impl AsyncTimer for Alarm {
    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.deadline = deadline;
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        self.set.poll_until(deadline, cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    async fn rung(alarm: &mut Alarm) -> bool {
        poll_fn(|cx| Poll::Ready(Pin::new(&mut *alarm).poll(cx).is_ready())).await
    }

    /// Whatever it was set to before, it rings at the last deadline, and not before; and again
    /// when it is set again.
    #[tokio::test]
    async fn it_rings_at_its_last_deadline() {
        let millis = Duration::from_millis;
        let mut alarm = Alarm::at(Instant::now() + millis(5));
        for deadlines in [&[10][..], &[5, 20], &[20_000, 10], &[5, 30_000, 20], &[15, 5, 10]] {
            let began = Instant::now();
            for deadline in deadlines {
                Pin::new(&mut alarm).reset(began + millis(*deadline));
                let rung = rung(&mut alarm).await;
                assert!(!rung || began.elapsed() >= millis(*deadline), "{deadlines:?}");
            }
            let rings = poll_fn(|cx| Pin::new(&mut alarm).poll(cx));
            tokio::time::timeout(Duration::from_secs(15), rings).await.expect("it rings");
            assert!(began.elapsed() >= millis(deadlines[deadlines.len() - 1]), "{deadlines:?}");
        }
    }
}
