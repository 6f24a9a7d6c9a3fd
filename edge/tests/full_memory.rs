//! With memory full, what is fetched ahead of its reader is there when the reader comes: the
//! origin is asked once, and sends each byte once.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;
mod versions;

use common::{Edge, Stopped, get, settings, until};
use futures::future::join_all;
use http::Version;
use serde_json::json;
use service::value::ByteSize;
use std::ops::Range;
use versions::{Known, Origin, Thing};

const MIB: usize = 1 << 20;
const PORTION_BYTES: usize = 256 << 10;
struct World {
    origin: Origin,
    edge: Edge,
    others: Range<usize>,
    _dir: tempfile::TempDir,
}

impl World {
    /// An edge whose memory is full of others.
    async fn full(memory: usize, things: Vec<Thing>) -> Self {
        Self::full_by(Version::HTTP_11, memory, things).await
    }

    /// The same before an origin that speaks this.
    async fn full_by(http: Version, memory: usize, things: Vec<Thing>) -> Self {
        let world = Self::new(http, memory, things).await;
        world.fill().await;
        assert!(world.edge.metric("nearcast_edge_memory_evictions_total").await > 0.0);
        world
    }

    /// An edge whose memory others, which are the last of the things, would fill.
    async fn new(http: Version, memory: usize, mut things: Vec<Thing>) -> Self {
        const OTHER_BYTES: usize = 40 * MIB;
        let own = things.len();
        things.resize(own + memory.div_ceil(OTHER_BYTES * 7 / 8), Thing::strong(OTHER_BYTES));
        let count = things.len();
        let dir = tempfile::tempdir().unwrap();
        let ca = (http == Version::HTTP_2).then(|| dir.path().join("origin.pem"));
        let origin = match &ca {
            Some(ca) => Origin::start_over_http2(things, ca).await,
            None => Origin::start(things).await,
        };
        let mut settings = settings(dir.path(), &origin.url);
        settings.ca = ca;
        settings.control_plane = None;
        settings.listen = vec!["http://127.0.0.1:0".into()];
        settings.memory = Some(ByteSize(memory as u64));
        let edge = Edge::start(settings).await;
        Self { origin, edge, others: own..count, _dir: dir }
    }

    /// Takes all of the others.
    async fn fill(&self) {
        for other in self.others.clone() {
            self.takes(other).await;
        }
    }

    async fn takes(&self, number: usize) {
        let right = self.origin.content(number, self.origin.version(number));
        assert_eq!(get(&format!("{}/{number}", self.edge.http), &[]).await.bytes(), &right);
    }

    async fn reader(&self, number: usize) -> Stopped {
        Stopped::at(&self.edge, &format!("/{number}")).await
    }

    /// Each of the readers takes a portion in turn, to the end; the first of them reads the first
    /// thing, and so on.
    async fn take_in_portions(&self, readers: &mut [Stopped], bytes: usize) {
        while readers.iter().any(|reader| reader.left() > 0) {
            for (number, reader) in readers.iter_mut().enumerate() {
                let right = self.origin.content(number, 1);
                let at = right.len() - reader.left();
                let portion = reader.takes(bytes).await;
                assert!(portion == right[at..at + portion.len()], "{number} at {at}");
            }
        }
    }

    /// Waits until this much more has come from the origin than before.
    async fn fetched(&self, before: f64, bytes: usize) {
        until("what is ahead", || async {
            (self.fetched_bytes().await - before >= bytes as f64).then_some(())
        })
        .await;
    }

    async fn fetched_bytes(&self) -> f64 {
        self.edge.metric("nearcast_edge_origin_bytes_total").await
    }

    /// Each thing has cost one request, and its bytes.
    async fn each_byte_came_once(&self) {
        let things = self.others.end;
        let bytes: usize = (0..things).map(|it| self.origin.content(it, 1).len()).sum();
        let asked = (self.origin.requests(), self.origin.body_bytes());
        assert_eq!(asked, (things as u64, bytes as u64), "requests, bytes");
        self.no_place_is_taken().await;
    }

    async fn no_place_is_taken(&self) {
        until("no place is taken", || async {
            let taken = self.edge.metric("nearcast_edge_memory_ahead_chunks").await;
            (taken == 0.0).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ahead_of_one_reader_is_not_fetched_twice() {
    let things = vec![Thing::strong(40 * MIB), Thing::strong(20 * MIB), Thing::strong(20 * MIB)];
    let world = World::full(64 * MIB, things).await;
    let before = world.fetched_bytes().await;
    let mut reader = world.reader(0).await;
    world.fetched(before, 4 * MIB).await;
    // More than a tenth of memory, where what nobody has used yet has to leave.
    world.takes(1).await;
    world.takes(2).await;
    assert!(reader.takes(usize::MAX).await == world.origin.content(0, 1));
    world.each_byte_came_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ahead_of_many_readers_is_not_fetched_twice() {
    const READERS: usize = 30;
    let world = World::full(384 * MIB, vec![Thing::strong(12 * MIB); READERS]).await;
    let before = world.fetched_bytes().await;
    let mut readers = join_all((0..READERS).map(|number| world.reader(number))).await;
    world.fetched(before, READERS * MIB).await;
    let bodies = join_all(readers.iter_mut().map(|reader| reader.takes(usize::MAX))).await;
    for (number, body) in bodies.iter().enumerate() {
        assert!(*body == world.origin.content(number, 1), "the body of {number}");
    }
    world.each_byte_came_once().await;
}

/// Each takes a portion in turn, so that the chunk of which it has a part is the one that was used
/// the longest ago when its turn comes again.
#[tokio::test(flavor = "multi_thread")]
async fn what_many_readers_take_in_portions_is_not_fetched_twice() {
    // A chunk for each in half of three eighths of memory: that much is kept for what is read, of
    // which the other half may be taken by what is ahead.
    const READERS: usize = 24;
    let world = World::full(128 * MIB, vec![Thing::strong(12 * MIB); READERS]).await;
    let before = world.fetched_bytes().await;
    let mut readers = join_all((0..READERS).map(|number| world.reader(number))).await;
    world.fetched(before, READERS * MIB).await;
    world.take_in_portions(&mut readers, PORTION_BYTES).await;
    world.each_byte_came_once().await;
}

/// Many more than memory has places for: each gets its bytes as it takes them, by one answer of the
/// origin that is read no faster.
#[tokio::test(flavor = "multi_thread")]
async fn what_more_readers_take_than_memory_has_places_for_is_not_fetched_twice() {
    more_readers_than_places(Version::HTTP_11).await;
}

/// The answers share a few connections.
#[tokio::test(flavor = "multi_thread")]
async fn what_more_readers_take_than_memory_has_places_for_is_not_fetched_twice_over_http_2() {
    more_readers_than_places(Version::HTTP_2).await;
}

/// `NEARCAST_SLOW_READERS` says how many: 300 have 128 MiB.
async fn more_readers_than_places(http: Version) {
    let count = std::env::var("NEARCAST_SLOW_READERS").map_or(40, |count| count.parse().unwrap());
    let memory_mib = (count * 128 / 300).max(32);
    let things = vec![Thing::strong(6 * MIB); count];
    let world = World::full_by(http, memory_mib * MIB, things).await;
    let mut readers = join_all((0..count).map(|number| world.reader(number))).await;
    world.take_in_portions(&mut readers, 64 << 10).await;
    world.each_byte_came_once().await;
}

/// Whichever way the edge comes to know of a new version: who reads the old one, which was all here,
/// gets it to its end, though everything else leaves memory meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_read_stays_when_a_new_version_comes() {
    const READERS: usize = 9;
    let expires = Thing { cache_control: "max-age=0", ..Thing::strong(12 * MIB) };
    let things = vec![Thing::strong(12 * MIB), Thing::strong(12 * MIB), expires];
    // As much as these is half of three eighths of it.
    let world = World::new(Version::HTTP_11, 192 * MIB, things).await;
    for film in 0..3 {
        world.takes(film).await;
    }
    let mut readers = join_all((0..READERS).map(|number| world.reader(number % 3))).await;
    for (number, soft) in [(0, true), (1, false)] {
        let url = format!("{}/{number}", world.edge.http);
        world.edge.purge(&json!({ "url": url, "soft": soft })).await;
    }
    for film in 0..3 {
        world.origin.change(film);
        world.takes(film).await;
    }
    world.fill().await;
    for (number, reader) in readers.iter_mut().enumerate() {
        assert!(reader.rest().await == world.origin.content(number % 3, 1), "reader {number}");
    }
    assert_eq!(world.edge.metric("nearcast_edge_bodies_cut_total").await, 0.0);
    world.no_place_is_taken().await;
}

/// Of what was on its way when the new version came, too: the quicker one's pace brings it.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_of_an_old_version_stays_for_who_is_slower() {
    let world = World::new(Version::HTTP_11, 128 * MIB, vec![Thing::strong(20 * MIB)]).await;
    let [mut quick, mut slow] = [world.reader(0).await, world.reader(0).await];
    world.edge.purge(&json!({ "all": true, "soft": true })).await;
    world.origin.change(0);
    world.takes(0).await;
    assert!(quick.rest().await == world.origin.content(0, 1), "the quicker one");
    world.fill().await;
    assert!(slow.rest().await == world.origin.content(0, 1), "the slower one");
    world.no_place_is_taken().await;
}

/// What has no strong validator is here as a whole or not at all: no part of it can be fetched again.
#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_had_in_parts_stays_while_it_is_read() {
    let known = [Known::Weak, Known::Nothing];
    let things = known.map(|known| Thing { known, ..Thing::strong(12 * MIB) });
    let world = World::new(Version::HTTP_11, 192 * MIB, things.to_vec()).await;
    for thing in 0..2 {
        world.takes(thing).await;
    }
    let mut readers = join_all((0..4).map(|number| world.reader(number % 2))).await;
    world.fill().await;
    for (number, reader) in readers.iter_mut().enumerate() {
        assert!(reader.rest().await == world.origin.content(number % 2, 1), "reader {number}");
    }
    world.each_byte_came_once().await;
}

/// What is kept so has a limit: what is beyond it may leave memory. A response ends cut where there
/// is no more, and has bytes of the old version alone.
#[tokio::test(flavor = "multi_thread")]
async fn of_what_is_being_read_no_more_stays_than_memory_has_places_for() {
    // Half of three eighths of memory.
    const PLACES: f64 = 24.0;
    // What comes after it was never here, and nobody has it any more.
    const HERE: usize = 32 * MIB;
    let world = World::new(Version::HTTP_11, 128 * MIB, vec![Thing::strong(44 * MIB)]).await;
    let (url, part) = (format!("{}/0", world.edge.http), format!("bytes=0-{}", HERE - 1));
    let old = world.origin.content(0, 1);
    assert_eq!(get(&url, &[("range", &part)]).await.bytes(), &old[..HERE]);
    let mut reader = world.reader(0).await;
    world.edge.purge(&json!({ "all": true, "soft": true })).await;
    world.origin.change(0);
    world.takes(0).await;
    world.fill().await;
    assert!(world.edge.metric("nearcast_edge_memory_ahead_chunks").await <= PLACES);
    assert!(world.edge.metric("nearcast_edge_memory_stay_refused_total").await > 0.0);
    let got = reader.rest().await;
    // What the sockets still held when it was cut does not come.
    let bytes = got.len();
    assert!((16 * MIB..=HERE).contains(&bytes) && got == old[..bytes], "{bytes}");
    assert_eq!(world.edge.metric("nearcast_edge_bodies_cut_total").await, 1.0);
    world.takes(0).await;
    world.no_place_is_taken().await;
}
