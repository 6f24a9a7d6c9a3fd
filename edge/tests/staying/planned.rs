//! Plans: fetched, resumed, served, healed, and told of.

use crate::common::{CHUNK, Control, Edge, Misdeed, Stage, settings, until};
use crate::with_control;
use model::FillPlan;
use model::plan::PlannedTitle;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

/// A plan that names the whole film.
fn plan(stage: &Stage, number: u64) -> FillPlan {
    let film = &stage.film;
    let bytes = film.index.bytes();
    let title = "film".parse().unwrap();
    FillPlan {
        number,
        date: "2026-11-21".into(),
        edge: "edge-a".parse().unwrap(),
        titles: vec![PlannedTitle { title, version: film.version, bytes, predicted_bytes: bytes }],
    }
}

fn plan_file(stage: &Stage, name: &str) -> PathBuf {
    stage.dir.path().join("plan/film").join(stage.film.version.to_string()).join(name)
}

async fn complete(control: &Control, number: u64) {
    until("a complete plan", || async {
        (control.last_beat()?.plan_complete == Some(number)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_plan_is_fetched_served_reported_and_removed_by_the_next() {
    let (mut stage, control) = with_control().await;
    control.shared.lock().unwrap().plan = Some(plan(&stage, 1));
    complete(&control, 1).await;
    let beat = control.last_beat().unwrap();
    let files: Vec<&str> = beat.holdings.iter().map(|holding| holding.file.as_str()).collect();
    assert_eq!(files, ["a1.mp4", "s-en.vtt", "v1.mp4"]);
    // 40 MiB in runs of 16 MiB, and two small files.
    assert_eq!(stage.origin.media().len(), 5);
    assert_eq!(std::fs::read(plan_file(&stage, "v1.mp4")).unwrap(), stage.film.files["v1.mp4"]);
    stage.origin.stop().await;
    for number in 0..8 {
        let answer = stage.get(&format!("v1/{number}.m4s")).await;
        assert_eq!(answer.bytes(), &stage.film.segment("v1", number));
        assert_eq!(answer.verdict(), "hit-plan");
    }
    let next = FillPlan { number: 2, titles: Vec::new(), ..plan(&stage, 2) };
    control.shared.lock().unwrap().plan = Some(next);
    complete(&control, 2).await;
    assert!(control.last_beat().unwrap().holdings.is_empty());
    assert!(!plan_file(&stage, "v1.mp4").exists());
}

/// An origin that sent less of a range than it was asked for was blamed for it, and no plan filled.
#[tokio::test]
async fn a_plan_is_filled_from_an_origin_that_sends_less_at_a_time() {
    for cap in [CHUNK, CHUNK * 3 / 2, CHUNK * 2 / 3] {
        let (stage, control) = with_control().await;
        stage.origin.always(Some(Misdeed::Cap(usize::try_from(cap).unwrap())));
        control.shared.lock().unwrap().plan = Some(plan(&stage, 1));
        complete(&control, 1).await;
        let (film, v1) = (&stage.film, &stage.film.files["v1.mp4"]);
        assert_eq!(&std::fs::read(plan_file(&stage, "v1.mp4")).unwrap(), v1, "{cap}");
        // No byte twice, and nobody blamed.
        let mut starts: Vec<String> = stage.origin.media();
        starts.iter_mut().for_each(|asked| asked.truncate(asked.rfind('-').unwrap()));
        starts.sort();
        let all = starts.len();
        starts.dedup();
        assert_eq!(starts.len(), all, "{cap}: {starts:?}");
        let bytes = stage.edge.metric("nearcast_edge_origin_bytes_total").await;
        // What slow readers need beside a track is no part of a plan.
        let planned = film.files.iter().filter(|(name, _)| !name.ends_with(".tree"));
        let whole: usize = planned.map(|(_, bytes)| bytes.len()).sum();
        assert_eq!(bytes as usize, whole + film.encoded.len(), "{cap}");
        let retried = stage.edge.metric("nearcast_edge_fills_total{end=\"retried\"}").await;
        assert!(retried == 0.0, "{cap}: {retried}");
        stage.edge.stop().await;
    }
}

#[tokio::test]
async fn a_plan_that_was_cut_short_is_resumed_and_its_chunks_serve_meanwhile() {
    let (mut stage, control) = with_control().await;
    // The first run arrives, the second stalls: the edge is killed there.
    let first_run = 16 << 20;
    control.shared.lock().unwrap().plan = Some(plan(&stage, 1));
    until("the first run", || async {
        let present = stage.edge.metric("nearcast_edge_plan_present_bytes").await;
        if present < f64::from(first_run) {
            return None;
        }
        stage.origin.hold(true);
        Some(())
    })
    .await;
    let url = control.url.clone();
    let present = std::fs::metadata(plan_file(&stage, "v1.mp4")).unwrap().len();
    assert!(present >= first_run as u64);
    stage.edge.kill().await;
    let asked = stage.origin.media().len();

    // Without the control plane, and while the origin answers nobody.
    stage.edge = Edge::start(settings(stage.dir.path(), &stage.origin.url)).await;
    let answer = stage.get("v1/0.m4s").await;
    assert_eq!(answer.verdict(), "hit-plan");
    assert_eq!(answer.bytes(), &stage.film.segment("v1", 0));
    stage.edge.kill().await;

    stage.origin.hold(false);
    let mut again = settings(stage.dir.path(), &stage.origin.url);
    again.control_plane = Some(url);
    stage.edge = Edge::start(again).await;
    complete(&control, 1).await;
    let resumed = stage.origin.media().split_off(asked);
    assert!(!resumed.iter().any(|asked| asked.starts_with("v1.mp4 bytes=0-")), "{resumed:?}");
    assert_eq!(std::fs::read(plan_file(&stage, "v1.mp4")).unwrap(), stage.film.files["v1.mp4"]);
}

/// An edge begins with the plan that it has; then the control plane tells it of that one, or of a
/// newer one with the same film, for which what has not begun to come may be asked for once more.
#[tokio::test]
async fn what_is_being_fetched_for_the_plan_is_kept_when_a_plan_is_told_of() {
    for number in [1, 2] {
        let (mut stage, control) = with_control().await;
        // Its index is here.
        stage.get("hls.m3u8").await;
        stage.origin.hold(true);
        let asked = async |stage: &Stage, count: usize| {
            until("a run to be asked for", || async {
                (stage.origin.media().len() == count).then_some(())
            })
            .await;
        };
        control.shared.lock().unwrap().plan = Some(plan(&stage, 1));
        asked(&stage, 1).await;
        stage.edge.kill().await;

        control.shared.lock().unwrap().plan = None;
        let mut again = settings(stage.dir.path(), &stage.origin.url);
        again.control_plane = Some(control.url.clone());
        stage.edge = Edge::start(again).await;
        asked(&stage, 2).await;
        let beats = {
            let mut shared = control.shared.lock().unwrap();
            shared.plan = Some(plan(&stage, number));
            shared.beats.len()
        };
        // The second of these was sent when the answer to the first had been read.
        until("heartbeats", || async {
            (control.shared.lock().unwrap().beats.len() >= beats + 2).then_some(())
        })
        .await;
        stage.origin.hold(false);
        complete(&control, number).await;
        let mut runs = stage.origin.media().split_off(1);
        runs.sort();
        let all = runs.len();
        runs.dedup();
        assert!(((all - runs.len()) as u64) < number, "plan {number}: {runs:?}");
        stage.edge.stop().await;
    }
}

#[tokio::test]
async fn damaged_planned_bytes_are_refetched_and_never_served() {
    let (stage, control) = with_control().await;
    control.shared.lock().unwrap().plan = Some(plan(&stage, 1));
    complete(&control, 1).await;
    let file = std::fs::OpenOptions::new().write(true).open(plan_file(&stage, "v1.mp4")).unwrap();
    file.write_all_at(&[0x5a; 16], 2_000_000).unwrap();
    let answer = stage.get("v1/0.m4s").await;
    assert_eq!(answer.bytes(), &stage.film.segment("v1", 0));
    assert_eq!(stage.edge.metric("nearcast_edge_corrupt_chunks_total{source=\"plan\"}").await, 1.0);
    until("a healed file", || async {
        let healed = std::fs::read(plan_file(&stage, "v1.mp4")).unwrap();
        (healed == stage.film.files["v1.mp4"]).then_some(())
    })
    .await;
    complete(&control, 1).await;
}

#[tokio::test]
async fn corrupt_origin_bytes_never_enter_the_plan() {
    let (stage, control) = with_control().await;
    stage.origin.misbehave(&[Misdeed::Corrupt(3 << 20)]);
    control.shared.lock().unwrap().plan = Some(plan(&stage, 1));
    complete(&control, 1).await;
    assert_eq!(std::fs::read(plan_file(&stage, "v1.mp4")).unwrap(), stage.film.files["v1.mp4"]);
}

#[tokio::test]
async fn a_plan_over_the_budget_is_not_complete() {
    let (stage, control) = with_control().await;
    let mut large = plan(&stage, 1);
    large.titles[0].bytes = 2 << 30;
    control.shared.lock().unwrap().plan = Some(large);
    until("the plan", || async {
        (stage.edge.metric("nearcast_edge_plan_number").await == 1.0).then_some(())
    })
    .await;
    let beat = control.last_beat().unwrap();
    assert_eq!((beat.plan_complete, beat.holdings.len()), (None, 0));
}

#[tokio::test]
async fn a_segment_of_the_planned_tier_is_read_once_for_many_players() {
    let (stage, control) = with_control().await;
    control.shared.lock().unwrap().plan = Some(plan(&stage, 1));
    complete(&control, 1).await;
    let stage = Arc::new(stage);
    let players = (0..50).map(|_| stage.get("v1/5.m4s"));
    let answers = futures::future::join_all(players).await;
    let expected = stage.film.segment("v1", 5);
    assert!(answers.iter().all(|answer| answer.bytes() == &expected));
    assert!(answers.iter().all(|answer| answer.verdict().starts_with("hit-")));
}
