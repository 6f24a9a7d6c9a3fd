//! The planned tier on a disk that hangs or errs: every request is answered, rightly, from the
//! next source, and the disk is used again once it is sound.
//!
//! The disk is a real one as far as the edge can tell (FUSE); where none can be mounted, these
//! stories say so and end.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;
#[path = "../../chunks/tests/support/fuse.rs"]
mod fuse;

use common::{Control, DEADLINE, Stage, get, keep_view, token, until, view};
use fuse::{FaultyDisk, Mode};
use model::FillPlan;
use model::plan::PlannedTitle;
use std::time::{Duration, Instant};

const SERVER: &str = "serves_a_faulty_disk";
/// Chunks that a story asks for while the disk is ill.
const ILL_CHUNKS: usize = 12;

#[test]
fn serves_a_faulty_disk() {
    fuse::serve();
}

/// A film whose planned files lie on `disk`, complete.
async fn planned_on(disk: &FaultyDisk) -> (Stage, Control) {
    let signer = token::Signer::generate().unwrap();
    let control = Control::start(view(&signer)).await;
    let film = common::film();
    let bytes = film.index.bytes();
    control.shared.lock().unwrap().plan = Some(FillPlan {
        number: 1,
        date: "2026-11-21".into(),
        edge: "edge-a".parse().unwrap(),
        titles: vec![PlannedTitle {
            title: "film".parse().unwrap(),
            version: film.version,
            bytes,
            predicted_bytes: bytes,
        }],
    });
    // The title's folder is the disk. Its index is there already: the disk renames no files.
    std::fs::write(disk.dir.join("index"), &film.encoded).unwrap();
    let url = control.url.clone();
    let mut stage = Stage::with(|mut settings| {
        let data = settings.data_dir.clone().unwrap();
        keep_view(&data, &view(&signer));
        let title = data.join("plan/film");
        std::fs::create_dir_all(&title).unwrap();
        std::os::unix::fs::symlink(&disk.dir, title.join(film.version.to_string())).unwrap();
        settings.control_plane = Some(url);
        settings
    })
    .await;
    stage.token = token(&signer, "film");
    stage.signer = signer;
    until("a complete plan", || async {
        (control.last_beat()?.plan_complete == Some(1)).then_some(())
    })
    .await;
    (stage, control)
}

/// The first bytes of a chunk, checked; says where they came from. Memory has it from then on.
async fn verdict_of(stage: &Stage, chunk: usize) -> String {
    let from = chunk << 20;
    let range = format!("bytes={from}-{}", from + 999);
    let answer = get(&stage.url("v1.mp4"), &[("range", &range)]).await;
    assert_eq!(answer.status, 206, "chunk {chunk}");
    assert_eq!(answer.bytes(), &stage.film.files["v1.mp4"].slice(from..from + 1000));
    answer.verdict().to_owned()
}

/// Asks for chunks, from `chunk` on, until the disk gives one.
async fn comes_back(stage: &Stage, chunk: usize) {
    let began = Instant::now();
    for chunk in chunk..40 {
        if verdict_of(stage, chunk).await == "hit-plan" {
            println!("in use again after {:?}", began.elapsed());
            return;
        }
        assert!(began.elapsed() < DEADLINE, "never in use again");
        tokio::time::sleep(Duration::from_millis(300)).await;
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
        let took = began.elapsed();
        let stalls = stage.edge.metric("nearcast_edge_planned_stalls_total").await;
        println!("{mode:?}: {ILL_CHUNKS} requests in {took:?}, {stalls} waited for the disk");
        // Not each of them found out for itself.
        assert!(stalls >= 1.0 && stalls < ILL_CHUNKS as f64, "{stalls} stalls");
        disk.set(Mode::Sound);
        comes_back(&stage, ILL_CHUNKS + 1).await;
        stage.edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_disk_that_errs_costs_no_request_and_is_filled_again() {
    let Some(mut disk) = FaultyDisk::mount(SERVER) else { return };
    let (stage, control) = planned_on(&disk).await;
    disk.set(Mode::ReadsFail);
    for chunk in 0..ILL_CHUNKS {
        assert_eq!(verdict_of(&stage, chunk).await, "origin", "chunk {chunk}");
    }
    // The chunks that could not be read are fetched for the plan once more, and written.
    disk.set(Mode::Sound);
    until("a plan that is complete again", || async {
        let holdings = control.last_beat()?.holdings;
        holdings.iter().any(|holding| holding.file == "v1.mp4").then_some(())
    })
    .await;
    comes_back(&stage, ILL_CHUNKS).await;
    assert_eq!(std::fs::read(disk.dir.join("v1.mp4")).unwrap(), stage.film.files["v1.mp4"]);
    stage.edge.stop().await;
}
