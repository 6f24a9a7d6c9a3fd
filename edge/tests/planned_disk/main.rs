//! The planned tier on a disk that hangs, errs, fills up or vanishes: every request is answered,
//! rightly, from the next source, nothing is fetched for the plan that can't be kept, and the
//! disk is used again once it is sound.
//!
//! The disk is a real one as far as the edge can tell (FUSE, tmpfs); where none can be mounted,
//! these stories say so and end, or fail if `NEARCAST_DISKS` is set.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../../../chunks/tests/support/fuse.rs"]
mod fuse;
mod gathered;
mod mounts;

use common::{Control, DEADLINE, Edge, Film, Stage, get, keep_view, settings, token, until, view};
use fuse::{FaultyDisk, Mode};
use model::FillPlan;
use model::plan::PlannedTitle;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

const SERVER: &str = "serves_a_faulty_disk";
const MIB: usize = 1 << 20;
/// Chunks that a story asks for while the disk is ill.
const ILL_CHUNKS: usize = 12;

#[test]
fn serves_a_faulty_disk() {
    fuse::serve();
}

/// A plan that names the whole film.
fn plan_of(film: &Film) -> FillPlan {
    let bytes = film.index.bytes();
    FillPlan {
        number: 1,
        date: "2026-11-21".into(),
        edge: "edge-a".parse().unwrap(),
        titles: vec![PlannedTitle {
            title: "film".parse().unwrap(),
            version: film.version,
            bytes,
            predicted_bytes: bytes,
        }],
    }
}

/// An edge that has been given a plan; `prepare` is shown its data folder before it starts.
async fn planned(prepare: impl FnOnce(&Path)) -> (Stage, Control) {
    planned_as(Some(plan_of(&common::film())), prepare).await
}

/// The same, given this plan, or none yet.
async fn planned_as(plan: Option<FillPlan>, prepare: impl FnOnce(&Path)) -> (Stage, Control) {
    let signer = token::Signer::generate().unwrap();
    let control = Control::start(view(&signer)).await;
    control.shared.lock().unwrap().plan = plan;
    let url = control.url.clone();
    let mut stage = Stage::with(|mut settings| {
        let data = settings.data_dir.clone().unwrap();
        keep_view(&data, &view(&signer));
        std::fs::create_dir(data.join("plan")).unwrap();
        prepare(&data);
        settings.control_plane = Some(url);
        settings
    })
    .await;
    stage.token = token(&signer, "film");
    stage.signer = signer;
    (stage, control)
}

async fn complete(control: &Control) {
    until("a complete plan", || async {
        (control.last_beat()?.plan_complete == Some(1)).then_some(())
    })
    .await;
}

/// A film whose planned files lie on `disk`, complete.
async fn planned_on(disk: &FaultyDisk) -> (Stage, Control) {
    let film = common::film();
    // The title's folder is the disk. Its index is there already: the disk renames no files.
    std::fs::write(disk.dir.join("index"), &film.encoded).unwrap();
    let (stage, control) = planned(|data| link(&disk.dir, data, &film)).await;
    complete(&control).await;
    (stage, control)
}

/// Puts `disk` in the place of the film's folder.
fn link(disk: &Path, data: &Path, film: &Film) {
    let title = data.join("plan/film");
    std::fs::create_dir_all(&title).unwrap();
    let new = data.join("link");
    symlink(disk, &new).unwrap();
    std::fs::rename(new, title.join(film.version.to_string())).unwrap();
}

/// The first bytes of a chunk, checked; says where they came from. Memory has it from then on.
async fn verdict_of(stage: &Stage, chunk: usize) -> String {
    let from = chunk * MIB;
    let range = format!("bytes={from}-{}", from + 999);
    let answer = get(&stage.url("v1.mp4"), &[("range", &range)]).await;
    assert_eq!(answer.status, 206, "chunk {chunk}");
    assert_eq!(answer.bytes(), &stage.film.files["v1.mp4"].slice(from..from + 1000));
    answer.verdict().to_owned()
}

/// Waits until the disk is in use (1) or out of use (0), or takes writes or not.
async fn is(stage: &Stage, gauge: &str, value: f64) {
    until("the disk's state", || async {
        let found = stage.edge.metric(&format!("nearcast_edge_planned_{gauge}")).await;
        (found == value).then_some(())
    })
    .await;
}

async fn troubles(stage: &Stage, reason: &str) -> f64 {
    let line = format!("nearcast_edge_planned_troubles_total{{reason=\"{reason}\"}}");
    stage.edge.metric(&line).await
}

async fn origin_bytes(stage: &Stage) -> usize {
    stage.edge.metric("nearcast_edge_origin_bytes_total").await as usize
}

async fn damaged(stage: &Stage) -> f64 {
    stage.edge.metric("nearcast_edge_corrupt_chunks_total{source=\"plan\"}").await
}

/// Asks for chunks, from `chunk` on, until the disk gives one.
async fn comes_back(stage: &Stage, chunk: usize) {
    let began = Instant::now();
    is(stage, "up", 1.0).await;
    for chunk in chunk..40 {
        if verdict_of(stage, chunk).await == "hit-plan" {
            println!("in use again after {:?}", began.elapsed());
            return;
        }
    }
    panic!("never in use again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_disk_that_hangs_is_passed_by_and_comes_back() {
    for mode in [Mode::ReadsHang, Mode::Hangs] {
        let Some(mut disk) = FaultyDisk::mount(SERVER) else { return };
        let (stage, _control) = planned_on(&disk).await;
        assert_eq!(verdict_of(&stage, 0).await, "hit-plan");
        disk.set(mode);
        let began = Instant::now();
        for chunk in 1..=ILL_CHUNKS {
            assert_eq!(verdict_of(&stage, chunk).await, "origin", "chunk {chunk}");
        }
        is(&stage, "up", 0.0).await;
        let stalls = stage.edge.metric("nearcast_edge_planned_stalls_total").await;
        println!("{mode:?}: off after {:?}, {stalls} waited for the disk", began.elapsed());
        for chunk in ILL_CHUNKS + 1..=2 * ILL_CHUNKS {
            assert_eq!(verdict_of(&stage, chunk).await, "origin", "chunk {chunk}");
        }
        // None of these waited.
        assert_eq!(stage.edge.metric("nearcast_edge_planned_stalls_total").await, stalls);
        assert_eq!(troubles(&stage, "slow").await, 1.0);
        disk.set(Mode::Sound);
        comes_back(&stage, 2 * ILL_CHUNKS + 1).await;
        stage.edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_disk_that_errs_is_off_at_once_and_nothing_is_fetched_for_it() {
    let Some(mut disk) = FaultyDisk::mount(SERVER) else { return };
    let (stage, control) = planned_on(&disk).await;
    let before = origin_bytes(&stage).await;
    disk.set(Mode::ReadsFail);
    for chunk in 0..ILL_CHUNKS {
        assert_eq!(verdict_of(&stage, chunk).await, "origin", "chunk {chunk}");
    }
    assert_eq!(stage.edge.metric("nearcast_edge_planned_up").await, 0.0);
    assert_eq!(stage.edge.metric("nearcast_edge_plan_present_bytes").await, 0.0);
    until("a heartbeat that claims nothing", || async {
        let beat = control.last_beat()?;
        (beat.holdings.is_empty() && beat.plan_complete.is_none()).then_some(())
    })
    .await;
    disk.set(Mode::Sound);
    comes_back(&stage, ILL_CHUNKS).await;
    complete(&control).await;
    assert_eq!(control.last_beat().unwrap().holdings.len(), 3);
    assert_eq!(origin_bytes(&stage).await - before, ILL_CHUNKS * MIB);
    assert_eq!((damaged(&stage).await, troubles(&stage, "failed").await), (0.0, 1.0));
    stage.edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_a_sound_disk_cannot_read_is_damaged_and_written_anew() {
    let Some(mut disk) = FaultyDisk::mount(SERVER) else { return };
    let (stage, control) = planned_on(&disk).await;
    let before = origin_bytes(&stage).await;
    disk.set(Mode::ReadsFailInPart);
    let bad = fuse::BAD.start as usize / MIB;
    assert_eq!(verdict_of(&stage, bad).await, "origin");
    until("a damaged chunk", || async { (damaged(&stage).await == 1.0).then_some(()) }).await;
    complete(&control).await;
    comes_back(&stage, bad + 1).await;
    // The client's is the plan's, too.
    assert_eq!(origin_bytes(&stage).await - before, MIB);
    assert_eq!(std::fs::read(disk.dir.join("v1.mp4")).unwrap(), stage.film.files["v1.mp4"]);
    stage.edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_planned_disk_does_not_take_is_fetched_once_and_kept_until_it_does() {
    let Some(mut disk) = FaultyDisk::mount(SERVER) else { return };
    let (stage, control) = planned_on(&disk).await;
    let before = origin_bytes(&stage).await;
    let file = std::fs::OpenOptions::new().write(true).open(disk.dir.join("v1.mp4")).unwrap();
    file.write_all_at(b"not it", 5 * MIB as u64).unwrap();
    disk.set(Mode::WritesFail);
    assert_eq!(verdict_of(&stage, 5).await, "origin");
    is(&stage, "writable", 0.0).await;
    // What is there is read as before.
    comes_back(&stage, 6).await;
    let failures = disk.failures();
    let began = Instant::now();
    while disk.failures() < failures + 2 {
        assert!(began.elapsed() < DEADLINE, "never tried again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    disk.set(Mode::Sound);
    is(&stage, "writable", 1.0).await;
    complete(&control).await;
    // The client's is the plan's, too.
    assert_eq!(origin_bytes(&stage).await - before, MIB);
    assert_eq!(troubles(&stage, "unwritable").await, 1.0);
    assert_eq!(std::fs::read(disk.dir.join("v1.mp4")).unwrap(), stage.film.files["v1.mp4"]);
    stage.edge.stop().await;
}

/// Reads still work, and so do looks: nothing but the write itself tells that this disk hangs.
#[tokio::test(flavor = "multi_thread")]
async fn a_planned_disk_whose_writes_hang_is_read_and_filled_when_it_has_taken_them() {
    const LOST: usize = 5;
    let Some(mut disk) = FaultyDisk::mount(SERVER) else { return };
    let (mut stage, control) = planned_on(&disk).await;
    stage.edge.stop().await;
    let of =
        |name: &str| std::fs::OpenOptions::new().write(true).open(disk.dir.join(name)).unwrap();
    of("v1.mp4").write_all_at(&vec![0; MIB], (LOST * MIB) as u64).unwrap();
    of("v1.mp4.have").write_all_at(&[0; 8], 16 + 8 * LOST as u64).unwrap();
    disk.set(Mode::WritesHang);
    let mut again = settings(stage.dir.path(), &stage.origin.url);
    again.control_plane = Some(control.url.clone());
    control.shared.lock().unwrap().beats.clear();
    let began = Instant::now();
    stage.edge = Edge::start(again).await;
    is(&stage, "writable", 0.0).await;
    println!("takes no writes after {:?}", began.elapsed());
    // What is there is read as before.
    for chunk in 0..LOST {
        assert_eq!(verdict_of(&stage, chunk).await, "hit-plan", "chunk {chunk}");
    }
    // What has come for the plan, and waits to be written.
    assert_eq!(verdict_of(&stage, LOST).await, "hit-plan");
    assert_eq!(stage.edge.metric("nearcast_edge_planned_up").await, 1.0);
    assert_eq!(control.last_beat().unwrap().plan_complete, None);
    disk.set(Mode::Sound);
    is(&stage, "writable", 1.0).await;
    complete(&control).await;
    // The client's is the plan's, too.
    assert_eq!(origin_bytes(&stage).await, MIB);
    assert_eq!((troubles(&stage, "unwritable").await, troubles(&stage, "slow").await), (1.0, 0.0));
    assert_eq!(std::fs::read(disk.dir.join("v1.mp4")).unwrap(), stage.film.files["v1.mp4"]);
    stage.edge.stop().await;
}

/// The plan itself is what this disk does not take; titles lie on another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_newer_plan_that_a_disk_does_not_take_is_told_and_in_force_once_it_has_taken_it() {
    let Some(mut disk) = FaultyDisk::mount(SERVER) else { return };
    let prepare = |data: &Path| {
        std::fs::create_dir(data.join("titles")).unwrap();
        symlink(data.join("titles"), disk.backing.join("film")).unwrap();
        std::fs::remove_dir(data.join("plan")).unwrap();
        symlink(&disk.dir, data.join("plan")).unwrap();
    };
    let (stage, control) = planned(prepare).await;
    complete(&control).await;
    let before = origin_bytes(&stage).await;
    disk.set(Mode::WritesHang);
    let began = Instant::now();
    let newer = FillPlan { number: 2, ..plan_of(&stage.film) };
    control.shared.lock().unwrap().plan = Some(newer);
    is(&stage, "writable", 0.0).await;
    println!("takes no writes after {:?}", began.elapsed());
    for chunk in 0..ILL_CHUNKS {
        assert_eq!(verdict_of(&stage, chunk).await, "hit-plan", "chunk {chunk}");
    }
    assert_eq!(stage.edge.metric("nearcast_edge_plan_number").await, 1.0);
    assert_eq!(stage.edge.metric("nearcast_edge_planned_up").await, 1.0);

    disk.set(Mode::Sound);
    until("the newer plan", || async {
        (control.last_beat()?.plan_complete == Some(2)).then_some(())
    })
    .await;
    is(&stage, "writable", 1.0).await;
    let stored = std::fs::read(disk.backing.join("plan.json")).unwrap();
    assert_eq!(serde_json::from_slice::<FillPlan>(&stored).unwrap().number, 2);
    assert_eq!(origin_bytes(&stage).await, before);
    assert_eq!((troubles(&stage, "unwritable").await, troubles(&stage, "slow").await), (1.0, 0.0));
    stage.edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_disk_that_vanishes_is_used_again_with_other_descriptors() {
    let Some(mut disk) = FaultyDisk::mount(SERVER) else { return };
    let (stage, control) = planned_on(&disk).await;
    let before = origin_bytes(&stage).await;
    disk.vanish();
    // Found without a request.
    is(&stage, "up", 0.0).await;
    for chunk in 0..ILL_CHUNKS {
        assert_eq!(verdict_of(&stage, chunk).await, "origin", "chunk {chunk}");
    }
    disk.mount_again(SERVER);
    link(&disk.dir, &stage.edge.dir, &stage.film);
    comes_back(&stage, ILL_CHUNKS).await;
    complete(&control).await;
    assert_eq!(origin_bytes(&stage).await - before, ILL_CHUNKS * MIB);
    assert_eq!((damaged(&stage).await, troubles(&stage, "gone").await), (0.0, 1.0));
    stage.edge.stop().await;
}
