//! Which of a hop's HTTP/2 connections a request goes over, and who opens the next one.
//!
//! Of itself hyper-util has one to a host, over which all but as many requests as the server takes
//! at a time wait unseen, and while there is none each request begins to open it. So there are
//! several clients, the lanes, each with one such connection; one is opened when the others are
//! full, by one request, for whose success the next ones wait.

use crate::link::{Link, Stream, poison};
use http::uri::Authority;
use hyper_util::client::legacy::Error;
use hyper_util::client::legacy::connect::CaptureConnection;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

/// HTTP/2 connections to a hop for each host that is asked for: at the least that servers are to
/// take at a time (100 streams, RFC 9113 section 6.5.2) more than 512 requests, the default of
/// `in-flight-max`. What is beyond all of them waits for one of these to end.
pub(crate) const LANES_MAX: usize = 8;
/// The longest wait for that.
const ROOM_TIME_MAX: Duration = Duration::from_secs(5);
/// A request that sees so many connections come to nothing while it waits has none. The first of
/// them may have begun before it came.
const OPENINGS_MAX: u32 = 2;
/// A hop of which connections were shared has only others by now, after so many of these in a row.
const APART_MAX: u32 = 16;
/// With more hosts than this, and than twice those that there were the last time, the ones without a
/// connection are forgotten.
const HOSTS_KEPT: usize = 64;

/// The lanes of one hop.
pub(crate) struct Lanes {
    state: Mutex<State>,
    /// Requests that wait for room.
    waiting: AtomicUsize,
}

struct State {
    /// Whether several requests at a time go over its connections, once that is known.
    is_shared: Option<bool>,
    /// Connections in a row that were for one request at a time.
    apart: u32,
    hosts: HashMap<Option<Authority>, Host>,
    sweep_at: usize,
}

/// The lanes for one host.
#[derive(Default)]
struct Host {
    /// Those that are used.
    lanes: Vec<Lane>,
    /// Told of each request that ends.
    room: Arc<Notify>,
}

struct Lane {
    number: usize,
    state: LaneState,
}

enum LaneState {
    Opening(watch::Receiver<Progress>),
    Open(Arc<Link>, CaptureConnection),
}

#[derive(Debug, Clone)]
enum Progress {
    Begun,
    Opened,
    /// The server does not say what it takes.
    Silent,
    Failed(Arc<Error>),
}

/// Counts a request that waits for room.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// What is to be waited for.
enum Wait {
    Opening(watch::Receiver<Progress>),
    Room(Arc<Notify>),
}

/// Why a request has no connection.
#[derive(Debug)]
pub(crate) enum NoConnection {
    /// As many requests as all of them take are under way, and none ended in time.
    Full,
    /// None that was opened said what it takes.
    Silent,
    /// None could be opened.
    Failed(Arc<Error>),
}

/// How far a request is.
#[derive(Debug, Default)]
pub(crate) struct Stage(AtomicU8, Notify);

impl Stage {
    const FULL: u8 = 1;
    const GIVEN: u8 = 2;

    /// A connection has it: until then, none of it is sent.
    pub(crate) fn is_given(&self) -> bool {
        self.0.load(Relaxed) == Self::GIVEN
    }

    /// It waits for another one to end.
    pub(crate) fn waits_for_room(&self) -> bool {
        self.0.load(Relaxed) == Self::FULL
    }

    pub(crate) fn give(&self) {
        self.0.store(Self::GIVEN, Relaxed);
    }

    /// Until it waits for another one to end, still does, or does no more.
    pub(crate) async fn changed(&self) {
        self.1.notified().await;
    }

    /// It waits for room, or no more.
    fn set_full(&self, is_full: bool) {
        let stage = if is_full { Self::FULL } else { 0 };
        // What was given once may have been sent.
        let set =
            self.0.fetch_update(Relaxed, Relaxed, |now| (now != Self::GIVEN).then_some(stage));
        if is_full || set == Ok(Self::FULL) {
            self.1.notify_one();
        }
    }
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
    /// So it did, whatever came of that.
    pub(crate) opens: bool,
}

impl Lanes {
    /// `may_be_shared`: whether its connections may turn out to be of HTTP/2.
    pub(crate) fn new(may_be_shared: bool) -> Self {
        let is_shared = if may_be_shared { None } else { Some(false) };
        let state = State { is_shared, apart: 0, hosts: HashMap::new(), sweep_at: HOSTS_KEPT };
        Self { state: Mutex::new(state), waiting: AtomicUsize::new(0) }
    }

    /// Requests that wait for others to end.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lane with room, once there is one.
    ///
    /// # Errors
    /// [`NoConnection`]: none of the request is sent.
    pub(crate) async fn turn(
        &self,
        host: Option<&Authority>,
        stage: &Stage,
    ) -> Result<Turn<'_>, NoConnection> {
        let (mut openings, mut no_room) = (0, None);
        loop {
            let came_to_nothing = match self.next(host.cloned()) {
                Ok(turn) => {
                    // There may be room for more than one of those who wait.
                    no_room.iter().for_each(|(_, room): &(_, Arc<Notify>)| room.notify_one());
                    stage.set_full(false);
                    return Ok(turn);
                }
                Err(Wait::Opening(mut progress)) => {
                    let is_over = |progress: &Progress| !matches!(progress, Progress::Begun);
                    match progress.wait_for(is_over).await.as_deref() {
                        Ok(Progress::Failed(error)) => NoConnection::Failed(Arc::clone(error)),
                        Ok(Progress::Silent) => NoConnection::Silent,
                        // It is there; or who was to open it has left that to another.
                        _ => continue,
                    }
                }
                Err(Wait::Room(room)) => {
                    stage.set_full(true);
                    let until = no_room.map_or(Instant::now() + ROOM_TIME_MAX, |(until, _)| until);
                    if Instant::now() >= until {
                        return Err(NoConnection::Full);
                    }
                    let _waiting = Waiting::begin(&self.waiting);
                    // Whether there is some then, the next look shows.
                    _ = timeout_at(until, room.notified()).await;
                    no_room = Some((until, room));
                    continue;
                }
            };
            openings += 1;
            if openings == OPENINGS_MAX {
                return Err(came_to_nothing);
            }
        }
    }

    fn next(&self, host: Option<Authority>) -> Result<Turn<'_>, Wait> {
        let mut state = self.state();
        let is_apart = state.is_shared == Some(false);
        if is_apart && !state.hosts.contains_key(&host) {
            return Ok(self.lane(host, 0, None, None));
        }
        let Host { lanes, room } = state.of(&host);
        lanes.retain(Lane::is_used);
        let open = |lane: &Lane| match &lane.state {
            LaneState::Open(link, _) if link.has_room() => Some((lane.number, link.clone())),
            LaneState::Open(..) | LaneState::Opening(_) => None,
        };
        // One that is given up in between has no room from then on.
        while let Some((lane, link)) = lanes.iter().filter_map(open).min_by_key(|lane| lane.0) {
            link.asked();
            if let Some(stream) = Stream::begin(link, Some(Arc::clone(room))) {
                return Ok(self.lane(host, lane, Some(stream), None));
            }
        }
        let opening = lanes.iter().find_map(|lane| match &lane.state {
            LaneState::Opening(progress) => Some(progress.clone()),
            LaneState::Open(..) => None,
        });
        if let Some(progress) = opening.filter(|_| !is_apart) {
            return Err(Wait::Opening(progress));
        }
        let is_free = |number: &usize| lanes.iter().all(|lane| lane.number != *number);
        let Some(number) = (0..LANES_MAX).find(is_free) else {
            return Err(Wait::Room(Arc::clone(room)));
        };
        if is_apart {
            return Ok(self.lane(host, number, None, None));
        }
        let (progress, told) = watch::channel(Progress::Begun);
        lanes.push(Lane { number, state: LaneState::Opening(told) });
        Ok(self.lane(host, number, None, Some(progress)))
    }

    fn lane(
        &self,
        host: Option<Authority>,
        lane: usize,
        stream: Option<Stream>,
        opening: Option<watch::Sender<Progress>>,
    ) -> Turn<'_> {
        let opens = opening.is_some();
        Turn { lane, lanes: self, host, stream, opening, opens }
    }
}

impl State {
    /// Of servers of both kinds behind one address, each connection is opened for itself: of those
    /// that begin together, all would go over the first one that is shared.
    fn learn(&mut self, is_shared: bool) {
        self.apart = if is_shared { 0 } else { self.apart.saturating_add(1) };
        if is_shared || self.is_shared.is_none() || self.apart >= APART_MAX {
            self.is_shared = Some(is_shared);
        }
    }

    fn of(&mut self, host: &Option<Authority>) -> &mut Host {
        if self.hosts.len() >= self.sweep_at && !self.hosts.contains_key(host) {
            self.hosts.retain(|_, host| {
                host.lanes.retain(Lane::is_used);
                !host.lanes.is_empty()
            });
            self.sweep_at = HOSTS_KEPT.max(2 * self.hosts.len());
        }
        self.hosts.entry(host.clone()).or_default()
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
        self.stream = None;
        let opening = self.opening.take();
        if !link.is_shared() && link.is_counted() {
            self.stream = Stream::begin(link.clone(), None);
        }
        if opening.is_none() && !link.is_shared() {
            return;
        }
        let mut state = self.lanes.state();
        state.learn(link.is_shared());
        let Host { lanes, room } = state.of(&self.host);
        let place = lanes.iter().position(|lane| lane.number == self.lane);
        if link.is_shared() {
            self.stream = Stream::begin(link.clone(), Some(Arc::clone(room)));
            let open = LaneState::Open(link.clone(), captured.clone());
            let is_used = link.takes_requests();
            match place {
                Some(at) if opening.is_some() => lanes[at].state = open,
                Some(at) if is_used && !lanes[at].is_opening() => lanes[at].state = open,
                None if is_used => lanes.push(Lane { number: self.lane, state: open }),
                _ => {}
            }
        } else if let Some(at) = place {
            lanes.swap_remove(at);
        }
        drop(state);
        opening.iter().for_each(|opening| _ = opening.send_replace(Progress::Opened));
    }

    /// There is no connection to be had.
    pub(crate) fn failed(&mut self, error: &Arc<Error>) {
        self.end(Progress::Failed(Arc::clone(error)));
    }

    /// The server does not say what the connection takes: another request is to open another one.
    pub(crate) fn silent(&mut self) {
        self.end(Progress::Silent);
    }

    fn end(&mut self, how: Progress) {
        self.give_up();
        let opening = self.opening.take();
        opening.iter().for_each(|opening| _ = opening.send_replace(how.clone()));
    }

    fn give_up(&self) {
        if self.is_opening() {
            let is_this = |lane: &Lane| lane.number == self.lane && lane.is_opening();
            let mut state = self.lanes.state();
            let host = state.hosts.get_mut(&self.host);
            host.into_iter().for_each(|host| host.lanes.retain(|lane| !is_this(lane)));
        }
    }

    /// The connection that it most likely goes over.
    pub(crate) fn link(&self) -> Option<Arc<Link>> {
        self.stream.as_ref().map(|stream| stream.link().clone())
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
    fn is_opening(&self) -> bool {
        matches!(self.state, LaneState::Opening(_))
    }

    /// Whether requests go over it, or are to.
    fn is_used(&self) -> bool {
        match &self.state {
            LaneState::Opening(_) => true,
            LaneState::Open(link, _) if link.takes_requests() => true,
            LaneState::Open(_, captured) => {
                // The next request of the lane would still go over it.
                poison(captured);
                false
            }
        }
    }
}
