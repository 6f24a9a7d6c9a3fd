//! The reactive SSD on a disk that goes wrong under traffic: it hangs, errs, fills up or vanishes,
//! and no request fails or is wrong; it is off meanwhile, and used again once it is sound.
//!
//! The disk is a real one as far as the edge can tell (FUSE); where none can be mounted, these
//! stories say so and end, or fail if `NEARCAST_DISKS` is set.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;
#[path = "../../chunks/tests/support/fuse.rs"]
mod fuse;

use common::{CHUNK, DEADLINE, Edge, Item, Web, get, proxy_settings};
use fuse::{FaultyDisk, Mode};
use model::admin::PurgeDone;
use service::client::Client;
use service::value::ByteSize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinSet;

const SERVER: &str = "serves_a_faulty_disk";
/// The least there may be: a third of what clients ask for again and again.
const MEMORY: ByteSize = ByteSize(16 << 20);
/// Things of a chunk each, that clients ask for in turn.
const THINGS: usize = 48;
/// Of these, the ones that have another version once their disk has vanished.
const PURGED: std::ops::Range<usize> = 0..THINGS / 2;
const CLIENTS: usize = 4;
/// Answers that clients have while the disk is off, before it is mended.
const ANSWERS_WHILE_OFF: usize = 40;
/// What a client waits between two requests: other stories run beside this one.
const PAUSE: Duration = Duration::from_millis(2);

#[test]
fn serves_a_faulty_disk() {
    fuse::serve();
}

/// Clients ask for those below [`THINGS`] again and again; others are new.
fn path(number: usize) -> String {
    format!("/thing-{number}")
}

/// Clients of hits, and their answers by now.
struct Traffic {
    answers: Arc<AtomicUsize>,
    /// From the disk.
    read: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

/// An edge whose one disk is behind `link`.
struct Stage {
    web: Arc<Web>,
    edge: Edge,
    link: PathBuf,
    _dir: TempDir,
}

impl Stage {
    async fn on(disk: &FaultyDisk) -> Self {
        let (dir, web) = (tempfile::tempdir().unwrap(), Web::start().await);
        let link = dir.path().join("disk");
        std::os::unix::fs::symlink(&disk.dir, &link).unwrap();
        let mut settings = proxy_settings(dir.path(), &web.url, &serde_json::json!({}));
        settings.memory = Some(MEMORY);
        settings.ssd = Some(ByteSize(chunks::SSD_BYTES_MIN));
        settings.ssd_dir = vec![link.clone()];
        let edge = Edge::start(settings).await;
        edge.ssd_is(1.0).await;
        let stage = Self { web: Arc::new(web), edge, link, _dir: dir };
        for number in 0..THINGS {
            stage.web.put(&path(number), Item::of(CHUNK));
        }
        stage
    }

    fn traffic(&self) -> Traffic {
        let mut traffic = Traffic {
            answers: Arc::default(),
            read: Arc::default(),
            ends: Arc::default(),
            clients: JoinSet::new(),
        };
        for client in 0..CLIENTS {
            let (web, http) = (Arc::clone(&self.web), self.edge.http.clone());
            let (answers, read) = (Arc::clone(&traffic.answers), Arc::clone(&traffic.read));
            let ends = Arc::clone(&traffic.ends);
            traffic.clients.spawn(async move {
                // Each begins elsewhere.
                for number in (0..THINGS).cycle().skip(client * THINGS / CLIENTS) {
                    if ends.load(Ordering::SeqCst) {
                        return;
                    }
                    let verdict = ask(&http, &web, number).await;
                    answers.fetch_add(1, Ordering::SeqCst);
                    read.fetch_add(usize::from(verdict == "hit-ssd"), Ordering::SeqCst);
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        traffic
    }

    /// Whether the disk was found to be off for one of these reasons, and is.
    async fn is_off(&self, reasons: &[&str]) -> bool {
        let disk = self.link.display();
        let mut troubles = 0.0;
        for reason in reasons {
            let label = format!("{{disk=\"{disk}\",reason=\"{reason}\"}}");
            troubles += self.edge.metric(&format!("nearcast_edge_ssd_troubles_total{label}")).await;
        }
        let up = format!("nearcast_edge_ssd_up{{disk=\"{disk}\"}}");
        troubles >= 1.0 && self.edge.metric(&up).await == 0.0
    }
}

/// Asks for a thing: all of it, and rightly, comes whatever the disk does. Says where from.
async fn ask(http: &str, web: &Web, number: usize) -> String {
    let path = path(number);
    let answer = tokio::time::timeout(DEADLINE, get(&format!("{http}{path}"), &[])).await.unwrap();
    assert_eq!(answer.status, 200, "{path}");
    assert!(answer.bytes() == &web.whole(&path), "{path}: {}", answer.verdict());
    answer.verdict().to_owned()
}

impl Traffic {
    /// Waits until there were so many more of these, while no client fails.
    async fn more(&mut self, of: impl Fn(&Self) -> &AtomicUsize, count: usize) {
        let (began, before) = (Instant::now(), of(self).load(Ordering::SeqCst));
        while of(self).load(Ordering::SeqCst) < before + count {
            assert!(began.elapsed() < DEADLINE, "no {count} answers");
            self.is_well().await;
        }
    }

    /// Looks at clients for some milliseconds: none of them has failed.
    async fn is_well(&mut self) {
        let look = Duration::from_millis(10);
        if let Ok(ended) = tokio::time::timeout(look, self.clients.join_next()).await {
            ended.unwrap().unwrap();
        }
    }

    async fn end(mut self) {
        self.ends.store(true, Ordering::SeqCst);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
    }
}

/// The disk goes wrong under hits, and is off for one of these reasons.
async fn off(
    disk: &mut FaultyDisk,
    reasons: &[&str],
    spoil: impl FnOnce(&mut FaultyDisk, &Stage),
) -> (Stage, Traffic) {
    let stage = Stage::on(disk).await;
    let mut traffic = stage.traffic();
    traffic.more(|traffic| &traffic.read, THINGS / 2).await;
    spoil(disk, &stage);
    let began = Instant::now();
    // What is new has to be written.
    for number in THINGS.. {
        if stage.is_off(reasons).await {
            break;
        }
        assert!(began.elapsed() < DEADLINE, "never off");
        stage.web.put(&path(number), Item::of(CHUNK));
        assert_eq!(ask(&stage.edge.http, &stage.web, number).await, "origin");
        traffic.is_well().await;
    }
    println!("off ({reasons:?}) after {:?}", began.elapsed());
    traffic.more(|traffic| &traffic.answers, ANSWERS_WHILE_OFF).await;
    (stage, traffic)
}

/// The disk is mended: it is in use again by itself, and gives hits.
async fn comes_back(stage: Stage, mut traffic: Traffic) {
    let began = Instant::now();
    stage.edge.ssd_is(1.0).await;
    println!("up again after {:?}", began.elapsed());
    traffic.more(|traffic| &traffic.read, THINGS / 2).await;
    traffic.end().await;
    assert_eq!(stage.edge.metric("nearcast_edge_ssd_mismatches_total").await, 0.0);
    stage.edge.stop().await;
}

async fn meets(mode: Mode, reason: &str) {
    let Some(mut disk) = FaultyDisk::mount(SERVER) else { return };
    let (stage, traffic) = off(&mut disk, &[reason], |disk, _| disk.set(mode)).await;
    disk.set(Mode::Sound);
    comes_back(stage, traffic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_fails_no_request() {
    meets(Mode::Hangs, "slow").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_whose_reads_hang_fails_no_request() {
    meets(Mode::ReadsHang, "slow").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_whose_writes_hang_fails_no_request() {
    meets(Mode::WritesHang, "slow").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_whose_reads_fail_fails_no_request() {
    meets(Mode::ReadsFail, "failed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_whose_writes_fail_fails_no_request() {
    meets(Mode::WritesFail, "failed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_fails_no_request() {
    meets(Mode::Full, "failed").await;
}

/// It is another device afterwards, as one that was unplugged often is. What was purged meanwhile
/// is still on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_vanishes_and_is_mounted_again_fails_no_request() {
    let Some(mut disk) = FaultyDisk::mount(SERVER) else { return };
    let (stage, traffic) = off(&mut disk, &["gone", "failed"], |disk, _| disk.unmount()).await;
    traffic.end().await;
    for number in PURGED {
        stage.web.put(&path(number), Item { version: 1, ..Item::of(CHUNK) });
        let request = serde_json::json!({ "url": format!("{}{}", stage.edge.http, path(number)) });
        let url = format!("{}/v1/purge", stage.edge.admin);
        let admin = Client::new(DEADLINE, None, None).unwrap();
        admin.post_json::<_, PurgeDone>(&url, &request).await.unwrap();
    }
    assert_eq!(std::fs::read_dir(&disk.dir).unwrap().count(), 0, "the folder below stays empty");
    disk.mount_back(SERVER);
    let traffic = stage.traffic();
    comes_back(stage, traffic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_whose_folder_vanishes_fails_no_request() {
    let Some(mut disk) = FaultyDisk::mount(SERVER) else { return };
    let vanish = |_: &mut FaultyDisk, stage: &Stage| {
        std::fs::rename(&stage.link, stage.link.with_extension("away")).unwrap();
    };
    let (stage, traffic) = off(&mut disk, &["gone"], vanish).await;
    std::fs::rename(stage.link.with_extension("away"), &stage.link).unwrap();
    comes_back(stage, traffic).await;
}
