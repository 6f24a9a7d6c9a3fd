//! Turns of connections, and when the socket is told of their ends.
//!
//! Invariant: whoever wakes a driver during its turn has it polled again, in this turn or in
//! another one.

use super::alarm::Alarm;
use super::socket::Socket;
use crate::shards::guarded;
use futures::task::AtomicWaker;
use prometheus::IntCounter;
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

/// Polls in one turn while a driver wants more, each of one large send or of 50 microseconds of
/// receiving; then others have theirs.
const POLLS_MAX: usize = 2;

/// The runtime of an endpoint: Tokio's, with turns of connections that its socket is told of.
#[derive(Debug)]
pub struct Turning {
    /// Where its connections send.
    pub socket: Arc<Socket>,
    /// Counts drivers that panicked: what they drove stands still, and times out.
    pub panics: IntCounter,
}

impl Runtime for Turning {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(Alarm::at(at))
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let wish = Arc::new(Wish::default());
        let waker = Waker::from(Arc::clone(&wish));
        let turn = Turn { future, socket: Arc::clone(&self.socket), wish, waker };
        tokio::spawn(guarded(turn, self.panics.clone()));
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

/// What wakes a driver. During its turn a wake is but noted: quinn wakes it after each
/// large send, though it goes on at once.
#[derive(Default)]
struct Wish {
    task: AtomicWaker,
    turning: AtomicBool,
    noted: AtomicBool,
}

impl Wake for Wish {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // In one order for all threads: this sees that the turn has ended, or its end sees this.
        self.noted.store(true, SeqCst);
        if !self.turning.load(SeqCst) {
            self.task.wake();
        }
    }
}

/// What drives a connection, or the endpoint.
struct Turn {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    socket: Arc<Socket>,
    wish: Arc<Wish>,
    /// Of `wish`.
    waker: Waker,
}

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let wish = &this.wish;
        wish.task.register(cx.waker());
        wish.turning.store(true, SeqCst);
        let mut polled = Poll::Pending;
        for _ in 0..POLLS_MAX {
            wish.noted.store(false, SeqCst);
            polled = this.future.as_mut().poll(&mut Context::from_waker(&this.waker));
            if polled.is_ready() || !wish.noted.load(SeqCst) {
                break;
            }
        }
        this.socket.turned();
        wish.turning.store(false, SeqCst);
        if polled.is_pending() && wish.noted.load(SeqCst) {
            cx.waker().wake_by_ref();
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::super::metrics::Metrics;
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    fn turn(future: impl Future<Output = ()> + Send + 'static) -> Turn {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let socket = Arc::new(Socket::new(socket, true, metrics).unwrap());
        let wish = Arc::new(Wish::default());
        let waker = Waker::from(Arc::clone(&wish));
        Turn { future: Box::pin(future), socket, wish, waker }
    }

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// One that wants `wishes` more polls has them in as few turns as there may be, and none in
    /// vain after the last.
    #[tokio::test]
    async fn a_turn_ends_when_nothing_more_is_wanted() {
        for wishes in 0..3 * POLLS_MAX {
            let polls = Arc::new(AtomicUsize::new(0));
            let seen = Arc::clone(&polls);
            let mut turn = turn(std::future::poll_fn(move |cx| {
                if seen.fetch_add(1, Relaxed) < wishes {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }));
            let woken = Arc::new(Counted::default());
            let waker = Waker::from(Arc::clone(&woken));
            let mut turns = 0;
            while woken.0.load(Relaxed) == turns {
                turns += 1;
                assert!(Pin::new(&mut turn).poll(&mut Context::from_waker(&waker)).is_pending());
            }
            assert_eq!(turns, (wishes + 1).div_ceil(POLLS_MAX));
            assert_eq!(polls.load(Relaxed), wishes + 1);
            // Between turns it is the task that is woken.
            turn.waker.wake_by_ref();
            assert_eq!(woken.0.load(Relaxed), turns);
        }
    }

    /// Wakes from another thread while turns come and go: the last one is never lost.
    #[test]
    fn a_wake_from_another_thread_is_never_lost() {
        const WAKES: usize = 20_000;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (asked, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let (ask, see) = (Arc::clone(&asked), Arc::clone(&seen));
            let (send, mut wakers) = tokio::sync::mpsc::unbounded_channel();
            let mut once = Some(send);
            let turn = turn(std::future::poll_fn(move |cx| {
                if let Some(send) = once.take() {
                    let _ = send.send(cx.waker().clone());
                }
                see.store(ask.load(SeqCst), SeqCst);
                if see.load(SeqCst) == WAKES { Poll::Ready(()) } else { Poll::Pending }
            }));
            let task = tokio::spawn(turn);
            let waker = wakers.recv().await.unwrap();
            let other = std::thread::spawn(move || {
                for wake in 1..=WAKES {
                    asked.store(wake, SeqCst);
                    waker.wake_by_ref();
                    // Sometimes it is let run first.
                    while wake % 64 == 0 && seen.load(SeqCst) != wake {
                        std::thread::yield_now();
                    }
                }
            });
            tokio::time::timeout(std::time::Duration::from_secs(60), task).await.unwrap().unwrap();
            other.join().unwrap();
        });
    }
}
