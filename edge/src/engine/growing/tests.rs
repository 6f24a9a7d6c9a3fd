//! What readers of such an answer hold of memory.

use super::*;

/// So many chunks have come of it.
fn come(engine: &Arc<Engine>, body: u8, chunks: u64) -> Arc<Growing> {
    let growing = Growing::new(engine, [body; 16], None, UNVALIDATED_BYTES_MAX);
    for _ in 0..chunks {
        let mut slot = engine.chunks.slot(CHUNK_BYTES as usize).unwrap();
        slot.write(&[body; CHUNK_BYTES as usize]);
        growing.lock().chunks.push_back(slot.reader());
    }
    growing.progress.send_modify(|grown| grown.filled = chunks * CHUNK_BYTES);
    growing
}

fn bytes(step: Step) -> Bytes {
    match step {
        Step::Bytes(bytes) => bytes,
        _ => panic!("there are bytes"),
    }
}

#[tokio::test]
async fn readers_hold_their_last_two_chunks_and_each_chunk_once() {
    let dir = tempfile::tempdir().unwrap();
    let engine = crate::engine::tests::small(dir.path());
    let growing = come(&engine, 7, 3);
    let mut readers = [growing.read_from(0).unwrap(), growing.read_from(0).unwrap()];
    for held in [1, 2, 2] {
        for reader in &mut readers {
            assert_eq!(bytes(reader.step(u64::MAX)).len() as u64, CHUNK_BYTES);
        }
        assert_eq!(engine.pins.bytes(), held * CHUNK_BYTES);
    }
    drop(readers);
    assert_eq!(engine.pins.bytes(), 0);
}

#[tokio::test]
async fn beyond_their_share_of_memory_readers_get_copies_that_hold_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = crate::engine::tests::small(dir.path());
    let share = engine.pinned_bytes_max / CHUNK_BYTES;
    // Clients that stop, each of another answer.
    let stopped: Vec<_> = (0..share)
        .map(|number| {
            let mut reader = come(&engine, number as u8, 1).read_from(0).unwrap();
            (bytes(reader.step(u64::MAX)), reader)
        })
        .collect();
    assert!(engine.under_pressure());
    let mut reader = come(&engine, 100, 1).read_from(0).unwrap();
    let piece = bytes(reader.step(u64::MAX));
    assert_eq!(piece.len(), COPIED_BYTES_MAX);
    assert_eq!(engine.pins.bytes(), share * CHUNK_BYTES, "it is a copy");
    drop(stopped);
    assert_eq!(bytes(reader.step(u64::MAX)).len() as u64, CHUNK_BYTES - piece.len() as u64);
    assert_eq!(engine.pins.bytes(), CHUNK_BYTES);
}

#[tokio::test(start_paused = true)]
async fn what_comes_for_nobody_has_so_long_to_come() {
    let dir = tempfile::tempdir().unwrap();
    let engine = crate::engine::tests::small(dir.path());
    let growing = come(&engine, 7, 1);
    let until = |at, rest| growing.lock().left_until(at, rest);
    let (only, now) = (growing.read_from(0).unwrap(), Instant::now());
    assert_eq!(until(0, REST_BYTES_MAX), None);
    let kept = growing.read_from(0).unwrap();
    let mut keeping = Box::pin(kept.drain());
    assert_eq!((&mut keeping).now_or_never(), None);
    assert_eq!(until(0, u64::MAX), None);
    drop(only);
    assert_eq!(until(0, u64::MAX), Some(now + KEPT_MAX));
    drop(keeping);
    assert_eq!(until(0, REST_BYTES_MAX + 1), Some(now));
    assert_eq!(until(0, REST_BYTES_MAX), Some(now + LEFT_MAX));
    let _joined = growing.read_from(0).unwrap();
    assert_eq!(until(0, REST_BYTES_MAX), None);
}
