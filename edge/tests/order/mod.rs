//! A world of one edge, one origin that changes, and clients of all kinds; what happens in it
//! is drawn from a seed.

mod client;

use crate::common::{DEADLINE, Edge, settings, until};
use crate::versions::{Known, Misdeed, Origin, Thing, any_range};
use client::{Ask, End, Pace};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::json;
use service::value::ByteSize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Steps of a history.
const STEPS: usize = 220;
/// Requests under way at a time.
const CLIENTS_MAX: usize = 16;
/// What an origin sends of a range at most, if it has such a limit: chunks, parts of some, crumbs.
const CAPS: [usize; 6] = [1 << 20, 2 << 20, 1_500_000, 700_000, 100_000, 9_000];
/// How often those who wait are told to go on, at the end.
const TICK: Duration = Duration::from_millis(5);
const MEMORY: ByteSize = ByteSize(16 << 20);

/// What may happen in a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// Requests, slow ones and such that leave; evictions.
    Quiet,
    /// And new versions, purges.
    Changing,
    /// And an origin that fails.
    Wild,
}

/// The parts that clients share.
pub struct Scene {
    pub edge: Edge,
    pub origin: Origin,
    /// Of each thing, the version below which no answer to a new request may be: an older one
    /// was purged or invalidated.
    floors: Vec<AtomicU64>,
    /// Slow clients go on when this changes.
    paused: watch::Sender<u64>,
    mood: Mood,
    /// What each client does now.
    doing: Mutex<BTreeMap<u64, String>>,
}

pub struct World {
    scene: Arc<Scene>,
    rng: StdRng,
    clients: JoinSet<()>,
    seed: u64,
}

fn things(rng: &mut StdRng) -> Vec<Thing> {
    let caches = [
        "max-age=3600",
        "max-age=3600",
        "no-cache",
        "max-age=1",
        "max-age=0, stale-while-revalidate=60",
    ];
    let mut things: Vec<Thing> = (0..6)
        .map(|number| Thing {
            known: *[
                Known::Strong,
                Known::Strong,
                Known::Weak,
                Known::Date,
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
            bytes: [5_000, 900_000, 2_300_000, 3_500_000, 6_200_000, 1 << 20][number],
        })
        .collect();
    // What others are evicted by.
    things.push(Thing::strong(20 << 20));
    things
}

impl World {
    /// A history from its begin to the end of its dust.
    pub async fn live(seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let dir = tempfile::tempdir().unwrap();
        let mood = [Mood::Quiet, Mood::Changing, Mood::Wild, Mood::Wild][(seed % 4) as usize];
        let things = things(&mut rng);
        let floors = things.iter().map(|_| AtomicU64::new(0)).collect();
        println!("seed {seed}: {mood:?} {things:?}");
        let origin = Origin::start(things).await;
        let mut settings = settings(dir.path(), &origin.url);
        settings.control_plane = None;
        settings.listen = vec!["http://127.0.0.1:0".into()];
        settings.memory = Some(MEMORY);
        settings.ssd = Some(ByteSize(if rng.random_bool(0.5) { 256 << 20 } else { 0 }));
        let edge = Edge::start(settings).await;
        let paused = watch::channel(0).0;
        let doing = Mutex::default();
        let scene = Arc::new(Scene { edge, origin, floors, paused, mood, doing });
        let mut world = Self { scene, rng, clients: JoinSet::new(), seed };
        for _ in 0..STEPS {
            world.step().await;
        }
        world.settle().await;
        world.every_thing_is_whole().await;
        world.nothing_is_left().await;
    }

    fn thing(&mut self) -> usize {
        self.rng.random_range(0..self.scene.floors.len() - 1)
    }

    async fn step(&mut self) {
        let number = self.thing();
        match (self.scene.mood, self.rng.random_range(0..100)) {
            (_, 0..=3) => self.scene.origin.release(),
            (_, 4..=7) => self.scene.paused.send_modify(|paused| *paused += 1),
            (_, 8..=10) => self.evict(),
            (_, 11..=12) => self.settle().await,
            (Mood::Changing | Mood::Wild, 13..=19) => self.scene.origin.change(number),
            (Mood::Changing | Mood::Wild, 20..=22) => self.purge(number).await,
            (Mood::Changing | Mood::Wild, 23..=24) => self.invalidate(number).await,
            (Mood::Wild, 25..=34) => self.misbehave(),
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
            number,
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
            self.go_on();
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

    /// Whoever waits goes on.
    fn go_on(&self) {
        self.scene.origin.release();
        self.scene.paused.send_modify(|paused| *paused += 1);
    }

    /// The dust settles: the origin behaves, everybody goes on to the end.
    async fn settle(&mut self) {
        self.scene.origin.behave();
        while !self.clients.is_empty() {
            self.one_ends().await;
        }
    }

    /// Reads so much of something else that nothing stays in memory.
    fn evict(&mut self) {
        let number = self.scene.floors.len() - 1;
        let range = Some("bytes=0-".to_owned());
        self.spawn(Ask { number, range, pace: Pace::Fast, is_head: false, no_cache: false });
    }

    fn spawn(&mut self, ask: Ask) {
        let scene = Arc::clone(&self.scene);
        self.clients.spawn(async move {
            client::ask(&scene, &ask).await;
        });
    }

    async fn purge(&mut self, number: usize) {
        let soft = self.rng.random_bool(0.3);
        let url = format!("{}/{number}", self.scene.edge.http);
        let what = match self.rng.random_range(0..4) {
            0 => json!({"all": true, "soft": soft}),
            1 => json!({"prefix": url, "soft": soft}),
            _ => json!({"url": url, "soft": soft}),
        };
        let is_prefix = what.get("url").is_none();
        let scene = &self.scene;
        let versions: Vec<u64> =
            (0..scene.floors.len()).map(|number| scene.origin.version(number)).collect();
        client::post(&format!("{}/v1/purge", scene.edge.admin), &what.to_string()).await;
        for (other, version) in versions.into_iter().enumerate() {
            if !soft
                && (is_prefix || other == number)
                && (other == number || what.get("all").is_some())
            {
                scene.floors[other].fetch_max(version, Ordering::SeqCst);
            }
        }
    }

    /// An unsafe method changes a thing.
    async fn invalidate(&mut self, number: usize) {
        let scene = &self.scene;
        let status = client::post(&format!("{}/{number}", scene.edge.http), "").await;
        if status == 200 {
            // Nobody else changes versions meanwhile.
            scene.floors[number].fetch_max(scene.origin.version(number), Ordering::SeqCst);
        }
    }

    async fn every_thing_is_whole(&self) {
        let scene = &self.scene;
        for number in 0..scene.floors.len() {
            for (range, no_cache) in [(None, true), (None, false), (Some("bytes=-3000"), false)] {
                let range = range.map(str::to_owned);
                let ask = Ask { number, range, pace: Pace::Fast, is_head: false, no_cache };
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

    async fn nothing_is_left(&self) {
        let edge = &self.scene.edge;
        for gauge in
            ["responses", "filling_chunks", "growing_bytes", "memory_held_bytes", "connections"]
        {
            until(&format!("seed {}: no {gauge}", self.seed), || async {
                let name = format!("nearcast_edge_{gauge} ");
                (edge.metric(&name).await == 0.0).then_some(())
            })
            .await;
        }
    }
}

impl Scene {
    /// Whether an answer may be cut or refused for no fault of the edge.
    fn may_fail(&self, number: usize) -> bool {
        // What can't be asked for in parts is gone with its first evicted chunk.
        self.mood != Mood::Quiet || !self.origin.thing(number).is_strong()
    }

    fn floor(&self, number: usize) -> u64 {
        self.floors[number].load(Ordering::SeqCst)
    }
}
