//! What a response makes of how its chunks come, or do not.

use super::*;
use crate::engine::tests::{Claim, claim as claim_of, film, own_fetch, small};
use futures::FutureExt;

fn next(sending: &mut Sending) -> Option<Result<(Bytes, Verdict), Fault>> {
    poll_fn(|cx| sending.poll(cx)).now_or_never().flatten()
}

/// A response that waits for a chunk, and the claim that it waits for.
fn waiting(engine: &Arc<Engine>) -> (Sending, Claim) {
    let object = film();
    let claim = claim_of(engine, &object, 0);
    let mut sending = Sending::part(engine, object, ByteRange::new(0, 10), 3);
    assert!(next(&mut sending).is_none());
    (sending, claim)
}

#[tokio::test]
async fn a_chunk_that_is_handed_over_is_waited_for_however_often() {
    let dir = tempfile::tempdir().unwrap();
    let engine = small(dir.path());
    let (mut sending, mut claim) = waiting(&engine);
    for _ in 0..10 * LOST_MAX {
        claim.hand_over();
        claim = claim_of(&engine, &film(), 0);
        assert!(next(&mut sending).is_none());
    }
    let chunk = Bytes::from(vec![7; CHUNK_BYTES as usize]);
    claim.land(chunk.clone(), Verdict::Origin);
    let (bytes, _) = next(&mut sending).unwrap().unwrap();
    assert_eq!(bytes, chunk.slice(..10));
}

/// It may have failed before its reader looks for the first of it, or while that one has the chunk
/// before.
#[tokio::test]
async fn the_failure_of_ones_own_fetch_is_told_and_no_other_one_begun() {
    let chunk = Bytes::from(vec![7; CHUNK_BYTES as usize]);
    for landed in [0, 1] {
        let dir = tempfile::tempdir().unwrap();
        let engine = small(dir.path());
        if landed == 1 {
            engine.chunks.insert_in_memory(film().key(0).unwrap(), chunk.clone());
        }
        let (run, reading) = own_fetch(&engine, &film(), landed..2);
        let sending = Sending::part(&engine, film(), ByteRange::new(0, 2 * CHUNK_BYTES), 3);
        let mut sending = sending.by_own_fetch(reading, Verdict::Origin);
        run.fail(&Fault::unavailable("the answer was cut"));
        for _ in 0..landed {
            assert_eq!(next(&mut sending).unwrap().unwrap().0, chunk);
        }
        assert!(matches!(next(&mut sending), Some(Err(Fault::Unavailable(_)))), "{landed}");
    }
}

#[tokio::test]
async fn a_fetch_that_is_lost_is_asked_for_a_few_times_in_a_row() {
    let dir = tempfile::tempdir().unwrap();
    let engine = small(dir.path());
    let (mut sending, mut claim) = waiting(&engine);
    for _ in 0..LOST_MAX {
        drop(claim);
        claim = claim_of(&engine, &film(), 0);
        assert!(next(&mut sending).is_none());
    }
    drop(claim);
    assert!(matches!(next(&mut sending), Some(Err(Fault::Lost))));
}
