//! How long an answer waits for who reads it.

use super::*;
use crate::engine::left::LEFT_MAX;
use crate::engine::readers::Readers;
use crate::engine::run::leaving::LEFT_BYTES_MAX;
use crate::engine::tests::{CHUNKS, film};
use upstream::Urgency;

/// From the first byte, all.
const ALL: (u64, u64) = (0, CHUNK_BYTES * CHUNKS);

/// An answer that has got to the last chunk while its only reader is at the first.
fn far_ahead(engine: &Arc<Engine>) -> (Run, crate::engine::Reading) {
    let (readers, reading) = Readers::begin(0, &Urgency::default());
    let mut run = Run::new(engine, film(), readers);
    run.begin(engine.claim_missing(&run.object, CHUNKS - 1, &run.readers).unwrap());
    (run, reading)
}

#[tokio::test]
async fn a_reader_that_creeps_does_not_begin_the_pause_anew() {
    let dir = tempfile::tempdir().unwrap();
    let engine = crate::engine::tests::small(dir.path());
    let (mut run, reading) = far_ahead(&engine);
    let pause = Duration::from_millis(100);
    // Near only after far more than the pause, and never silent for as long as that.
    let creeping = async {
        for number in 1..CHUNKS {
            tokio::time::sleep(pause / 3).await;
            reading.want(number);
        }
        std::future::pending().await
    };
    let goes_on = tokio::select! {
        goes_on = run.wait_up_to(&engine, [pause; 2], || true, ALL) => goes_on,
        () = creeping => unreachable!("it is pending"),
    };
    assert!(!goes_on);
}

/// An answer that nobody gets near to is held open for longer where its place is not needed.
#[tokio::test]
async fn where_nobody_needs_its_place_an_answer_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let engine = crate::engine::tests::small(dir.path());
    let (mut run, _reading) = far_ahead(&engine);
    let pauses = [Duration::from_millis(20), Duration::from_millis(100)];
    for (places, looks) in [(0, 1), (2, 3), (100, 5)] {
        let looked = std::cell::Cell::new(0);
        let may_wait = || looked.replace(looked.get() + 1) < places;
        let began = Instant::now();
        assert!(!run.wait_up_to(&engine, pauses, may_wait, ALL).await);
        assert!(began.elapsed() >= pauses[0] * looks);
        assert_eq!(looked.get(), looks.min(4));
    }
}

#[tokio::test]
async fn a_reader_that_comes_near_ends_the_pause() {
    let dir = tempfile::tempdir().unwrap();
    let engine = crate::engine::tests::small(dir.path());
    let (mut run, reading) = far_ahead(&engine);
    let mut waiting = Box::pin(run.wait_up_to(&engine, [HELD_MAX; 2], || false, ALL));
    reading.want(CHUNKS - 2 - AHEAD_CHUNKS);
    assert_eq!((&mut waiting).now_or_never(), None);
    reading.want(CHUNKS - 1 - AHEAD_CHUNKS);
    assert!(waiting.await);
}

/// So that an origin that drips holds no place for nobody.
#[tokio::test(start_paused = true)]
async fn what_everybody_left_has_so_long_to_come() {
    let dir = tempfile::tempdir().unwrap();
    let engine = crate::engine::tests::small(dir.path());
    let (mut run, reading) = far_ahead(&engine);
    let (much, little) = (LEFT_BYTES_MAX + 1, LEFT_BYTES_MAX);
    assert_eq!(run.left_until(much, false), None);
    drop(reading);
    let now = Instant::now();
    assert_eq!(run.left_until(much, false), Some(now));
    assert_eq!(run.left_until(little, false), Some(now + LEFT_MAX));
    run.begun = Some(Begun::Kept(run.room(&engine, 1000, little).await.unwrap()));
    assert_eq!(run.left_until(much, false), Some(now + LEFT_MAX));
    assert_eq!(run.left_until(much, true), Some(now + PAUSE_MAX));
    tokio::time::advance(LEFT_MAX / 2).await;
    assert_eq!(run.left_until(little - CHUNK_BYTES + 2, false), Some(now + LEFT_MAX));
    let later = Instant::now() + LEFT_MAX;
    assert_eq!(run.left_until(little - CHUNK_BYTES, false), Some(later));
    run.is_unranged = true;
    assert_eq!(run.left_until(much, true), Some(later));
}

/// Found by a review: those that were read took the places of those that are held.
#[tokio::test]
async fn no_place_is_taken_of_answers_that_are_held_for_one_that_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let engine = crate::engine::tests::small(dir.path());
    let (mut run, reading) = far_ahead(&engine);
    let (much, little) = (LEFT_BYTES_MAX + 1, LEFT_BYTES_MAX);
    assert!(!run.others_wait(much, || unreachable!("it is read")));
    drop(reading);
    assert!(run.others_wait(much, || false) && !run.others_wait(much, || true));
    // What is taken to its end makes way for nobody.
    assert!(!run.others_wait(little, || unreachable!("it is taken")));
    run.is_unranged = true;
    assert!(!run.others_wait(much, || unreachable!("it is taken")));
}

/// Found by an audit: they waited for as long as others were dripped on.
#[tokio::test(start_paused = true)]
async fn an_answer_waits_for_its_turn_for_so_long() {
    let dir = tempfile::tempdir().unwrap();
    let engine = crate::engine::tests::small(dir.path());
    let (run, reading) = far_ahead(&engine);
    let mut turns = Vec::new();
    while let Some(turn) = run.turns.take_now() {
        turns.push(turn);
    }
    let (much, little) = (LEFT_BYTES_MAX + 1, LEFT_BYTES_MAX);
    let began = Instant::now();
    assert!(matches!(run.room(&engine, 1000, much).await, Err(Fault::Busy)));
    assert!(began.elapsed() >= TURN_WAIT_MAX && !run.is_for_nobody());
    assert_eq!(engine.metrics.fetches_without_memory.get(), 1);
    // While what is written goes on, so does the wait.
    let began = Instant::now();
    let mut waiting = Box::pin(run.room(&engine, 1000, much));
    for _ in 0..4 {
        assert!(timeout(TURN_WAIT_MAX / 2, &mut waiting).await.is_err());
        turns[0].goes_on();
    }
    assert!(matches!(waiting.await, Err(Fault::Busy)));
    assert!(began.elapsed() >= TURN_WAIT_MAX * 3 && began.elapsed() <= TURN_WAIT_MAX * 4);
    let began = Instant::now();
    let mut waiting = Box::pin(run.room(&engine, 1000, little));
    assert!((&mut waiting).now_or_never().is_none());
    drop(reading);
    assert!(matches!(waiting.await, Err(Fault::Busy)));
    assert!(began.elapsed() >= TURN_WAIT_MAX);
    // Of what is not taken for nobody, nothing waits.
    let began = Instant::now();
    assert!(matches!(run.room(&engine, 1000, much).await, Err(Fault::Lost)));
    assert!(began.elapsed() < TURN_WAIT_MAX && !run.turns.are_wanted());
    turns.clear();
    assert!(run.room(&engine, 1000, little).await.is_ok());
}

/// Found by an audit: what came last began in the chunk that was here, and those behind it were
/// claimed, so that all of that chunk came once more.
#[tokio::test]
async fn an_answer_does_not_go_on_over_a_chunk_that_is_here() {
    let dir = tempfile::tempdir().unwrap();
    let engine = crate::engine::tests::small(dir.path());
    let (readers, _reading) = Readers::begin(0, &Urgency::default());
    let mut run = Run::new(&engine, film(), readers);
    run.begin(engine.claim_missing(&run.object, 0, &run.readers).unwrap());
    let here = engine.claim_missing(&run.object, 2, &run.readers).unwrap();
    run.begin_answer();
    run.extend(&engine, 0, ALL.1);
    let claimed = |run: &Run| run.claims.iter().map(number).collect::<Vec<_>>();
    assert_eq!(claimed(&run), [0, 1]);
    run.claims.clear();
    run.extend(&engine, 2 * CHUNK_BYTES + 1000, ALL.1);
    assert!(run.claims.is_empty());
    // It is gone before the answer gets there.
    drop(here);
    run.extend(&engine, 2 * CHUNK_BYTES - 1000, ALL.1);
    assert_eq!(claimed(&run)[..2], [2, 3]);
}
