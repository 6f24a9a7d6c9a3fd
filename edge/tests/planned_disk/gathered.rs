//! A plan that is filled beside players: each byte comes once, whoever asks for it first.

use crate::common::{Control, Edge, Misdeed, Stage, settings, until};
use crate::{MIB, complete, damaged, plan_of, planned_as, verdict_of};
use model::FillPlan;

/// An edge that is shown a plan once players have had the first chunks of the film.
async fn watched(chunks: usize) -> (Stage, Control) {
    let (stage, control) = planned_as(None, |_| ()).await;
    for chunk in 0..chunks {
        let verdict = verdict_of(&stage, chunk).await;
        assert!(["origin", "hit-memory"].contains(&&*verdict), "{verdict}");
    }
    (stage, control)
}

fn give_plan(stage: &Stage, control: &Control) {
    control.shared.lock().unwrap().plan = Some(plan_of(&stage.film));
}

/// Waits until the origin has been asked for media this often.
async fn asked(stage: &Stage, times: usize) {
    until("a request", || async { (stage.origin.media().len() >= times).then_some(()) }).await;
}

/// All of the film is here, and came once.
async fn came_once(stage: Stage, control: &Control) {
    complete(control).await;
    assert_eq!(stage.origin.body_bytes(), stage.film.index.bytes(), "{:?}", stage.origin.media());
    came(stage, control).await;
}

/// Waits until so many bytes of the plan are on the disk.
async fn present(stage: &Stage, bytes: u64) {
    until("planned bytes", || async {
        let present = stage.edge.metric("nearcast_edge_plan_present_bytes").await;
        (present == bytes as f64).then_some(())
    })
    .await;
}

async fn came(stage: Stage, control: &Control) {
    complete(control).await;
    let version = stage.film.version.to_string();
    let planned = stage.edge.dir.join("plan/film").join(version).join("v1.mp4");
    assert!(std::fs::read(planned).unwrap() == stage.film.files["v1.mp4"]);
    stage.edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_players_have_had_fetched_is_not_fetched_for_the_plan() {
    let (stage, control) = watched(12).await;
    give_plan(&stage, &control);
    came_once(stage, &control).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_fetched_for_the_plan_is_not_fetched_for_players() {
    let (stage, control) = watched(1).await;
    stage.origin.hold(true);
    let before = stage.origin.media().len();
    give_plan(&stage, &control);
    asked(&stage, before + 1).await;
    let released = async {
        until("a player waits", || async {
            let waiting = stage.edge.metric("nearcast_edge_responses").await;
            (waiting == 1.0).then_some(())
        })
        .await;
        stage.origin.hold(false);
    };
    let (verdict, ()) = tokio::join!(verdict_of(&stage, 1), released);
    assert_eq!(verdict, "filling");
    came_once(stage, &control).await;
}

/// The plan's answer brings sixteen chunks, one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_player_does_not_wait_for_all_that_the_plan_wants_before() {
    let (stage, control) = watched(1).await;
    stage.origin.hold(true);
    let before = stage.origin.media().len();
    give_plan(&stage, &control);
    asked(&stage, before + 1).await;
    // Also who wants less than another one.
    let then = async {
        asked(&stage, before + 2).await;
        let released = async {
            asked(&stage, before + 3).await;
            stage.origin.hold(false);
        };
        tokio::join!(verdict_of(&stage, 8), released).0
    };
    let verdicts = tokio::join!(verdict_of(&stage, 12), then);
    assert_eq!((&*verdicts.0, &*verdicts.1), ("origin", "origin"));
    // The plan's answer is left where the player's begins.
    came(stage, &control).await;
}

/// Found by an audit: it waited for all sixteen, and so did what had come for the disk.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_come_is_on_the_disk_and_a_newer_plan_in_force_while_the_rest_is_waited_for() {
    let (stage, control) = watched(1).await;
    let before = stage.origin.media().len();
    stage.origin.misbehave(&[Misdeed::Stall(3 * MIB + 1000)]);
    give_plan(&stage, &control);
    // The player's, and three of the plan's answer.
    present(&stage, 4 * MIB as u64).await;
    let none = FillPlan { number: 2, titles: Vec::new(), ..plan_of(&stage.film) };
    control.shared.lock().unwrap().plan = Some(none);
    until("the newer plan", || async {
        (stage.edge.metric("nearcast_edge_plan_number").await == 2.0).then_some(())
    })
    .await;
    assert_eq!(stage.origin.media().len(), before + 1, "it did not wait for the origin to stall");
    stage.edge.stop().await;
}

/// Found by an audit: nothing behind it was fetched.
#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_the_origin_has_wrong_keeps_no_others_from_being_filled() {
    let (stage, control) = watched(1).await;
    stage.origin.always(Some(Misdeed::Wrong(5 * MIB)));
    give_plan(&stage, &control);
    present(&stage, stage.film.index.bytes() - MIB as u64).await;
    stage.origin.always(None);
    came(stage, &control).await;
}

/// Each costs the origin a chunk, time and again: so many that more of them are not looked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_which_nine_chunks_are_wrong_is_left_until_the_plan_is_tried_again() {
    let (stage, control) = watched(1).await;
    let before = stage.origin.media().len();
    stage.origin.always(Some(Misdeed::Corrupt(0)));
    give_plan(&stage, &control);
    let starts = || {
        let asked = stage.origin.media().split_off(before);
        let of_film = asked.iter().filter(|asked| asked.contains("v1.mp4"));
        let start = |asked: &String| asked.split_once("bytes=")?.1.split_once('-')?.0.parse().ok();
        of_film.filter_map(start).collect::<Vec<usize>>()
    };
    until("another try", || async { (!starts().is_sorted()).then_some(()) }).await;
    assert_eq!(starts().into_iter().max(), Some(9 * MIB));
    stage.origin.always(None);
    came(stage, &control).await;
}

/// Found by an audit: nothing of it was counted.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_counted_though_the_index_beside_it_was_damaged() {
    let (mut stage, control) = watched(1).await;
    give_plan(&stage, &control);
    complete(&control).await;
    stage.edge.stop().await;
    let version = stage.film.version.to_string();
    std::fs::write(stage.dir.path().join("plan/film").join(version).join("index"), "x").unwrap();
    let mut again = settings(stage.dir.path(), &stage.origin.url);
    again.control_plane = Some(control.url.clone());
    stage.edge = Edge::start(again).await;
    present(&stage, stage.film.index.bytes()).await;
    assert_eq!(damaged(&stage).await, 0.0);
    stage.edge.stop().await;
}
