//! Which of a hop's HTTP/2 connections a request goes over, and who opens the next one.
//!
//! Of itself hyper-util has one to a host, over which all but as many requests as the server takes
//! at a time wait unseen, and while there is none each request begins to open it. So there are
//! several clients, the lanes, each with one such connection; one is opened when the others are
//! full, by one request, for whose success the next ones wait.

use crate::link::{Link, Stream, poison};
use http::uri::Authority;
use hyper_util::client::legacy::connect::CaptureConnection;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// HTTP/2 connections to a hop for each host that is asked for: at the least that servers are to
/// take at a time (100 streams, RFC 9113 section 6.5.2) more than 512 requests, the default of
/// `in-flight-max`. What is beyond all of them waits in that with the fewest.
pub(crate) const LANES_MAX: usize = 8;

/// The lanes of one hop.
pub(crate) struct Lanes(Mutex<State>);

struct State {
    /// Whether several requests at a time go over its connections, once that is known.
    is_shared: Option<bool>,
    /// Those that are used.
    lanes: Vec<Lane>,
}

struct Lane {
    host: Option<Authority>,
    number: usize,
    state: LaneState,
}

enum LaneState {
    Opening(watch::Receiver<Progress>),
    Open(Arc<Link>, CaptureConnection),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Begun,
    Opened,
    Failed,
}

/// The lane for one request. One that is to open the lane's connection and is dropped before leaves
/// that to another.
pub(crate) struct Turn<'a> {
    pub(crate) lane: usize,
    lanes: &'a Lanes,
    host: Option<Authority>,
    /// What it counts as at the connection that it most likely goes over.
    stream: Option<Stream>,
    /// It opens the connection of the lane.
    opening: Option<watch::Sender<Progress>>,
}

impl Lanes {
    /// `may_be_shared`: whether its connections may turn out to be of HTTP/2.
    pub(crate) fn new(may_be_shared: bool) -> Self {
        let is_shared = if may_be_shared { None } else { Some(false) };
        Self(Mutex::new(State { is_shared, lanes: Vec::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lane with room, once there is one or none can be had.
    pub(crate) async fn turn(&self, host: Option<&Authority>) -> Turn<'_> {
        loop {
            let mut progress = match self.next(host) {
                Ok(turn) => return turn,
                Err(progress) => progress,
            };
            let told = progress.wait_for(|progress| *progress != Progress::Begun).await;
            // Each finds out by itself, and none waits for one attempt after another.
            if told.is_ok_and(|told| *told == Progress::Failed) {
                return self.lane(host, 0, None, None);
            }
        }
    }

    /// # Errors
    /// What is to be waited for.
    fn next(&self, host: Option<&Authority>) -> Result<Turn<'_>, watch::Receiver<Progress>> {
        let mut state = self.state();
        if state.is_shared == Some(false) {
            return Ok(self.lane(host, 0, None, None));
        }
        let is_used = |lane: &Lane| match &lane.state {
            LaneState::Opening(_) => true,
            LaneState::Open(link, _) if link.takes_requests() => true,
            LaneState::Open(_, captured) => {
                // The next request of the lane would still go over it.
                poison(captured);
                false
            }
        };
        state.lanes.retain(is_used);
        let of_host = || state.lanes.iter().filter(|lane| lane.host.as_ref() == host);
        let open = |lane: &Lane| match &lane.state {
            LaneState::Open(link, _) => Some((lane.number, link.clone())),
            LaneState::Opening(_) => None,
        };
        let over = |(lane, link): (usize, Arc<Link>)| {
            link.asked();
            Ok(self.lane(host, lane, Some(Stream::new(link)), None))
        };
        let with_room = of_host().filter_map(open).filter(|(_, link)| link.has_room());
        if let Some(first) = with_room.min_by_key(|(number, _)| *number) {
            return over(first);
        }
        for lane in of_host() {
            if let LaneState::Opening(progress) = &lane.state {
                return Err(progress.clone());
            }
        }
        let is_free = |number: &usize| of_host().all(|lane| lane.number != *number);
        let Some(number) = (0..LANES_MAX).find(is_free) else {
            let emptiest = of_host().filter_map(open).min_by_key(|(_, link)| link.streams());
            return over(emptiest.expect("all lanes are open"));
        };
        let (progress, told) = watch::channel(Progress::Begun);
        state.lanes.push(Lane { host: host.cloned(), number, state: LaneState::Opening(told) });
        Ok(self.lane(host, number, None, Some(progress)))
    }

    fn lane(
        &self,
        host: Option<&Authority>,
        lane: usize,
        stream: Option<Stream>,
        opening: Option<watch::Sender<Progress>>,
    ) -> Turn<'_> {
        Turn { lane, lanes: self, host: host.cloned(), stream, opening }
    }
}

impl Turn<'_> {
    /// Whether others wait for its connection.
    pub(crate) fn is_opening(&self) -> bool {
        self.opening.is_some()
    }

    /// The request goes over this connection.
    pub(crate) fn over(&mut self, link: &Arc<Link>, captured: &CaptureConnection) {
        if self.stream.as_ref().is_some_and(|stream| stream.is_over(link)) {
            return;
        }
        self.stream = link.is_shared().then(|| Stream::new(link.clone()));
        let opening = self.opening.take();
        if opening.is_some() || link.is_shared() {
            let mut state = self.lanes.state();
            state.is_shared = Some(link.is_shared());
            let open = LaneState::Open(link.clone(), captured.clone());
            let is_used = link.takes_requests();
            match state.lanes.iter_mut().find(|lane| lane.is(self.host.as_ref(), self.lane)) {
                Some(lane) if opening.is_some() => lane.state = open,
                Some(lane) if is_used && !lane.is_opening() => lane.state = open,
                None if is_used => {
                    let (host, number) = (self.host.clone(), self.lane);
                    state.lanes.push(Lane { host, number, state: open });
                }
                _ => {}
            }
        }
        opening.iter().for_each(|opening| _ = opening.send_replace(Progress::Opened));
    }

    /// There is no connection to be had.
    pub(crate) fn failed(&mut self) {
        self.give_up();
        let opening = self.opening.take();
        opening.iter().for_each(|opening| _ = opening.send_replace(Progress::Failed));
    }

    /// Another request is to open it.
    pub(crate) fn leave(&mut self) {
        self.give_up();
        self.opening = None;
    }

    fn give_up(&self) {
        if self.is_opening() {
            let is_this = |lane: &Lane| lane.is(self.host.as_ref(), self.lane) && lane.is_opening();
            self.lanes.state().lanes.retain(|lane| !is_this(lane));
        }
    }

    pub(crate) fn take_stream(&mut self) -> Option<Stream> {
        self.stream.take()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl Lane {
    fn is(&self, host: Option<&Authority>, number: usize) -> bool {
        self.number == number && self.host.as_ref() == host
    }

    fn is_opening(&self) -> bool {
        matches!(self.state, LaneState::Opening(_))
    }
}
