//! What a task waits for beside its work, and what comes seldom: polled when it was woken, not
//! each time that the work is. To ask a cancelled token or a timer takes locks, which all
//! connections share.
//!
//! Invariant: no wake is lost. The task that polled last is woken by all that wakes the future.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Whether the future was woken, and whom that wakes.
struct Flag {
    is_woken: AtomicBool,
    task: Mutex<Waker>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        // After the store: whoever changes the task before this looks at the flag after that.
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        task.wake();
    }
}

/// A future that is polled when it was woken.
pub struct Aside<F> {
    future: F,
    flag: Arc<Flag>,
    waker: Waker,
    /// The one in `flag`.
    task: Waker,
}

impl<F: Future + Unpin> Aside<F> {
    /// This one.
    pub fn new(future: F) -> Self {
        let task = Waker::noop().clone();
        let flag = Flag { is_woken: AtomicBool::new(true), task: Mutex::new(task.clone()) };
        let flag = Arc::new(flag);
        let waker = Waker::from(Arc::clone(&flag));
        Self { future, flag, waker, task }
    }
}

impl<F: Future + Unpin> Future for Aside<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        if !this.task.will_wake(cx.waker()) {
            this.task.clone_from(cx.waker());
            *this.flag.task.lock().unwrap_or_else(PoisonError::into_inner) = this.task.clone();
        }
        // A plain load first: nearly always there is nothing.
        let is_woken = &this.flag.is_woken;
        if !is_woken.load(Ordering::Acquire) || !is_woken.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        Pin::new(&mut this.future).poll(&mut Context::from_waker(&this.waker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use tokio::sync::oneshot;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn it_is_polled_when_it_was_woken_whoever_polled_last() {
        let (told, tell) = oneshot::channel();
        let polls = AtomicUsize::new(0);
        let mut tell = Box::pin(tell);
        let counted = std::future::poll_fn(|cx| {
            polls.fetch_add(1, Ordering::Relaxed);
            tell.as_mut().poll(cx)
        });
        let mut aside = Aside::new(counted);
        let (first, last) = (Arc::new(Count::default()), Arc::new(Count::default()));
        for task in [&first, &first, &last, &last] {
            let waker = Waker::from(Arc::clone(task));
            assert!(Pin::new(&mut aside).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        assert_eq!(polls.load(Ordering::Relaxed), 1);
        told.send(7).unwrap();
        let woken = |task: &Count| task.0.load(Ordering::Relaxed);
        assert_eq!((woken(&first), woken(&last)), (0, 1));
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(Pin::new(&mut aside).poll(&mut cx), Poll::Ready(Ok(7)));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_from_another_thread_is_lost() {
        for _ in 0..2000 {
            let (told, tell) = oneshot::channel();
            let telling = tokio::spawn(async move { told.send(()) });
            Aside::new(tell).await.unwrap();
            telling.await.unwrap().unwrap();
        }
    }
}
