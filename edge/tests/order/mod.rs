//! A world of one edge, or one with two parents, an origin that changes, and clients of all kinds;
//! what happens in it is drawn from a seed.

mod client;
mod connection;
mod excuse;
mod judge;
mod node;
mod process;
mod scene;
mod tally;
mod tree;
mod used;

pub use excuse::expect_few;
pub use process::Role;
pub use tally::Tally;
pub use tree::Shape;
pub use used::Used;

use crate::common::{DEADLINE, until};
use crate::versions::{Known, Misdeed, Origin, Thing, any_range};
use client::{Ask, End, Pace};
use connection::Protocol;
use node::Node;
use process::Process;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use scene::{Mood, Scene};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// Steps of a history.
const STEPS: usize = 220;
/// Requests under way at a time.
const CLIENTS_MAX: usize = 16;
/// What an origin sends of a range at most, if it has such a limit: chunks, parts of some, crumbs.
const CAPS: [usize; 6] = [1 << 20, 2 << 20, 1_500_000, 700_000, 100_000, 9_000];
/// How often those who wait are told to go on, at the end.
const TICK: Duration = Duration::from_millis(5);
/// The smallest SSD tier: 32 blocks.
const SSD_BYTES: u64 = chunks::SSD_BYTES_MIN;
/// About how long things are. One more evicts others.
const THING_BYTES: [usize; 6] = [5_000, 900_000, 2_300_000, 3_500_000, 6_200_000, 1 << 20];
const EVICTOR_BYTES: usize = 20 << 20;
/// Whom all requests are for, so that what is stored is the same after a restart on other ports.
const HOST: &str = "world.test";

/// What must have taken place in the histories that run by default.
pub const EXPECTED: [&str; 26] = [
    "answers over H1",
    "answers over H2",
    "answers over H3",
    "answers from memory",
    "answers from the SSD",
    "answers from before a restart",
    "answers of one part",
    "answers past the end",
    "answers of several parts",
    "answers of a version that came with time",
    "answers of a version that came by POST",
    "answers capped by the origin",
    "answers cut by the origin",
    "answers held back by the origin",
    "answers refused by the origin",
    "answers stalled by the origin",
    "cut over H1",
    "cut over H2",
    "cut over H3",
    "chunks evicted from memory",
    "blocks evicted from the SSD",
    "edges stopped",
    "edges killed",
    "changes by POST",
    "purges",
    "soft purges",
];

/// What must have taken place in the histories of several nodes that run by default.
pub const EXPECTED_IN_TREES: [&str; 22] = [
    "answers by the edge",
    "answers by a parent",
    "answers through a parent",
    "answers by a sibling's",
    "answers while a parent was down",
    "answers from memory",
    "answers from the SSD",
    "answers of one part",
    "answers of several parts",
    "answers of a version that came with time",
    "answers of a version that came by POST",
    "answers cut by the origin",
    "answers held back by the origin",
    "answers refused by the origin",
    "answers stalled by the origin",
    "chunks evicted from memory",
    "parents stopped",
    "parents killed",
    "parents that came back",
    "changes by POST",
    "purges",
    "soft purges",
];

/// What an edge finds on its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ssd {
    None,
    Empty,
    /// What a full one holds.
    Full,
}

pub struct World {
    scene: Arc<Scene>,
    /// The nodes of the scene; none is one that is away.
    edges: Vec<Option<Process>>,
    roles: Vec<Role>,
    rng: StdRng,
    clients: JoinSet<()>,
    seed: u64,
    _dir: TempDir,
}

fn things(rng: &mut StdRng) -> Vec<Thing> {
    let caches = [
        "max-age=3600",
        "max-age=3600",
        "no-cache",
        "max-age=1",
        "max-age=0, stale-while-revalidate=60",
    ];
    let mut things: Vec<Thing> = (0..THING_BYTES.len())
        .map(|number| Thing {
            known: *[
                Known::Strong,
                Known::Strong,
                Known::Weak,
                Known::Date,
                Known::Young,
                Known::Fast,
                Known::Garbled,
                Known::Nothing,
            ]
            .choose(rng)
            .unwrap(),
            has_length: rng.random_bool(0.8),
            has_ranges: rng.random_bool(0.8),
            heeds: rng.random_bool(0.5),
            cache_control: caches.choose(rng).unwrap(),
            cap: rng.random_bool(0.4).then(|| *CAPS.choose(rng).unwrap()),
            bytes: THING_BYTES[number],
        })
        .collect();
    // What others are evicted by.
    things.push(Thing::strong(EVICTOR_BYTES));
    things
}

impl World {
    /// A history from its begin to the end of its dust: what took place in it.
    pub async fn live(seed: u64, shape: Shape, used: &Used) -> Tally {
        let mut world = Self::begin(seed, shape, used).await;
        for _ in 0..STEPS {
            world.step().await;
        }
        world.settle().await;
        world.all_come_back().await;
        world.scene.is_over.store(true, Ordering::SeqCst);
        for node in 0..world.edges.len() {
            world.every_thing_is_whole(node).await;
        }
        world.end_all().await;
        let tally = Tally::default();
        tally.add_all(&world.scene.tally);
        for (deed, count) in world.scene.origin.deeds() {
            tally.add(deed, count);
        }
        tally
    }

    async fn begin(seed: u64, shape: Shape, used: &Used) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let dir = tempfile::tempdir().unwrap();
        let mood = [Mood::Quiet, Mood::Changing, Mood::Wild, Mood::Wild][(seed % 4) as usize];
        let things = things(&mut rng);
        let told = format!("{things:?}");
        let origin = Origin::start(things).await;
        let roles = shape.roles(seed, dir.path(), &origin.url);
        let mut ssds = shape.ssds(&mut rng, roles.len());
        if mood == Mood::Quiet {
            // A full one knows of an older version, which needs no failure to be cut.
            ssds.iter_mut().filter(|ssd| **ssd == Ssd::Full).for_each(|ssd| *ssd = Ssd::Empty);
        }
        println!("seed {seed}: {shape:?}, {mood:?}, SSD: {ssds:?}, {told}");
        if ssds.contains(&Ssd::Full) {
            (0..=THING_BYTES.len()).for_each(|number| origin.change(number));
        }
        let roles: Vec<_> =
            roles.into_iter().zip(&ssds).map(|(role, ssd)| role.with(*ssd, &mut rng)).collect();
        let (mut edges, mut nodes) = (Vec::new(), Vec::new());
        for (role, ssd) in roles.iter().zip(ssds) {
            std::fs::create_dir_all(&role.dir).unwrap();
            if ssd == Ssd::Full {
                used.copy(&role.dir).await;
            }
            let process = Process::start(role, None).await;
            nodes.push(Node::new(&role.id, &process.place, shape == Shape::Tree));
            edges.push(Some(process));
        }
        let scene = Arc::new(Scene::new(nodes, origin, mood));
        Self { scene, edges, roles, rng, clients: JoinSet::new(), seed, _dir: dir }
    }

    fn thing(&mut self) -> usize {
        self.rng.random_range(0..THING_BYTES.len())
    }

    async fn step(&mut self) {
        let number = self.thing();
        match (self.scene.mood, self.rng.random_range(0..100)) {
            (_, 0..=3) => self.scene.origin.release(),
            (_, 4..=7) => self.scene.paused.send_modify(|paused| *paused += 1),
            (_, 8..=10) => self.evict(),
            (_, 11..=12) => self.settle().await,
            (Mood::Changing | Mood::Wild, 13..=19) => self.scene.change(number),
            (Mood::Changing | Mood::Wild, 20..=22) => self.purge(number).await,
            (Mood::Changing | Mood::Wild, 23..=24) => self.invalidate(number).await,
            (Mood::Wild, 25..=34) => self.misbehave(),
            (_, 99) => self.restart().await,
            (_, 96..=98) if self.edges.len() > 1 => self.leave_or_come_back().await,
            _ => self.ask(number).await,
        }
        for _ in 0..self.rng.random_range(0..40) {
            tokio::task::yield_now().await;
        }
    }

    fn misbehave(&mut self) {
        let after = self.rng.random_range(0..3_000_000);
        let misdeeds = [Misdeed::Cut(after), Misdeed::Stall(after), Misdeed::Hold, Misdeed::Fail];
        self.scene.origin.misbehave(*misdeeds.choose(&mut self.rng).unwrap());
    }

    async fn ask(&mut self, number: usize) {
        while self.clients.len() >= CLIENTS_MAX {
            self.one_ends().await;
        }
        let bytes = self.scene.origin.thing(number).bytes;
        let range = self.rng.random_bool(0.6).then(|| any_range(&mut self.rng, bytes));
        let pace = match self.rng.random_range(0..10) {
            0..=5 => Pace::Fast,
            6..=7 => Pace::PausesAfter(self.rng.random_range(0..bytes)),
            _ => Pace::LeavesAfter(self.rng.random_range(0..bytes)),
        };
        let ask = Ask {
            node: self.any_node(),
            number,
            protocol: *Protocol::ALL.choose(&mut self.rng).unwrap(),
            range,
            pace,
            is_head: self.rng.random_bool(0.2),
            no_cache: self.rng.random_bool(0.15),
        };
        self.spawn(ask);
    }

    /// Waits for a client's end; meanwhile whoever comes to wait goes on.
    async fn one_ends(&mut self) {
        let started = Instant::now();
        let ended = loop {
            self.scene.go_on();
            match tokio::time::timeout(TICK, self.clients.join_next()).await {
                Ok(ended) => break ended,
                Err(_) if started.elapsed() < DEADLINE => {}
                Err(_) => panic!("seed {}: hang: {:#?}", self.seed, self.scene.doing),
            }
        };
        if let Some(Err(error)) = ended {
            panic!("seed {}: {error}", self.seed);
        }
    }

    /// The dust settles: the origin behaves, everybody goes on to the end.
    async fn settle(&mut self) {
        self.scene.origin.behave();
        while !self.clients.is_empty() {
            self.one_ends().await;
        }
    }

    /// Reads so much of something else that nothing stays in memory; of a new version, the SSD
    /// gets that as well.
    fn evict(&mut self) {
        let number = THING_BYTES.len();
        if self.scene.mood != Mood::Quiet && self.rng.random_bool(0.5) {
            self.scene.origin.change(number);
        }
        let range = Some("bytes=0-".to_owned());
        let node = self.any_node();
        self.spawn(Ask { range, ..Ask::whole(node, number, Protocol::H1) });
    }

    fn spawn(&mut self, ask: Ask) {
        let scene = Arc::clone(&self.scene);
        self.clients.spawn(async move {
            client::ask(&scene, &ask).await;
        });
    }

    async fn purge(&mut self, number: usize) {
        let soft = self.rng.random_bool(0.3);
        let url = process::url(number);
        let what = match self.rng.random_range(0..4) {
            0 => json!({"all": true, "soft": soft}),
            1 => json!({"prefix": url, "soft": soft}),
            _ => json!({"url": url, "soft": soft}),
        };
        let is_prefix = what.get("url").is_none();
        let node = self.any_node();
        let scene = &self.scene;
        let versions: Vec<u64> =
            (0..=THING_BYTES.len()).map(|number| scene.origin.version(number)).collect();
        let admin = scene.nodes[node].place().admin.strip_prefix("http://").unwrap().to_owned();
        let addr = admin.parse().unwrap();
        let status = client::post(addr, &admin, "/v1/purge", &what.to_string()).await;
        assert_eq!(status, 200, "{what}");
        scene.tally.add(if soft { "soft purges" } else { "purges" }, 1);
        for (other, version) in versions.into_iter().enumerate() {
            if !soft
                && (is_prefix || other == number)
                && (other == number || what.get("all").is_some())
            {
                scene.nodes[node].purged(other, version);
            }
        }
    }

    /// An unsafe method changes a thing.
    async fn invalidate(&mut self, number: usize) {
        let node = self.any_node();
        let scene = &self.scene;
        let addr = scene.nodes[node].place().http;
        let status = client::post(addr, HOST, &format!("/{number}"), "").await;
        // After many failures the edge spares the origin for a while.
        assert!(status == 200 || scene.mood == Mood::Wild, "{status}");
        if status == 200 {
            // Nobody else changes versions meanwhile.
            scene.changed_by_post(node, number);
        }
    }

    async fn every_thing_is_whole(&self, node: usize) {
        let scene = &self.scene;
        for number in 0..=THING_BYTES.len() {
            for (range, no_cache) in [(None, true), (None, false), (Some("bytes=-3000"), false)] {
                let protocol = Protocol::ALL[number % Protocol::ALL.len()];
                let range = range.map(str::to_owned);
                let ask = Ask { range, no_cache, ..Ask::whole(node, number, protocol) };
                // After many failures the edge spares the origin for a while.
                until("a whole answer", || async {
                    let ended = client::ask(scene, &ask).await;
                    matches!(ended, End::Whole(version) if version == scene.origin.version(number) || !no_cache)
                        .then_some(())
                })
                .await;
            }
        }
    }

    async fn nothing_is_left(&self, node: usize, may_be_connected: bool) {
        let place = self.scene.nodes[node].place();
        let gauges =
            ["responses", "filling_chunks", "growing_bytes", "memory_held_bytes", "connections"];
        for gauge in &gauges[..gauges.len() - usize::from(may_be_connected)] {
            until(&format!("seed {}: no {gauge}", self.seed), || async {
                (place.metric(&format!("nearcast_edge_{gauge} ")).await == 0.0).then_some(())
            })
            .await;
        }
    }
}
