use super::*;
use futures::stream;
use proptest::prelude::*;
use std::io::Read;

fn decoded(encoding: Encoding, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match encoding {
        Encoding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap(),
        Encoding::Brotli => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out).unwrap(),
        Encoding::Zstd => {
            zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut out).unwrap()
        }
    };
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn what_is_encoded_decodes_to_the_same(pieces in prop::collection::vec("[a-c\n]{0,2000}", 0..4)) {
        let body: Vec<Bytes> = pieces.iter().map(|piece| Bytes::from(piece.clone())).collect();
        for encoding in Encoding::ALL {
            prop_assert_eq!(decoded(encoding, &encode(&body, encoding).unwrap()), pieces.concat().into_bytes());
        }
    }
}

fn whole(body: &Bytes) -> impl Stream<Item = Result<Bytes, Fault>> + use<> {
    stream::iter([Ok(body.clone())])
}

fn outcome(compressor: &Compressor, of: &str) -> u64 {
    compressor.outcomes.with_label_values(&["gzip", of]).get()
}

#[tokio::test]
async fn a_body_is_compressed_once_for_all_who_wait() {
    let compressor = Compressor::new(&Registry::new()).unwrap();
    let text = Bytes::from("#EXTINF:1,\nsegment.m4s\n".repeat(1000));
    let ask = || compressor.compressed([1; 16], || whole(&text), Encoding::Gzip);
    // None is done before all have asked.
    let held = compressor.running.acquire_many(RUNNING_MAX as u32).await.unwrap();
    let all = futures::future::join_all((0..100).map(|_| ask()));
    let (all, ()) = futures::join!(all, async { drop(held) });
    let first = all[0].clone().unwrap();
    assert_eq!(decoded(Encoding::Gzip, &first), text);
    assert!(all.iter().all(|one| one.as_ref() == Some(&first)));
    assert_eq!(outcome(&compressor, "done"), 1);
}

#[tokio::test]
async fn what_does_not_shrink_is_tried_once() {
    let compressor = Compressor::new(&Registry::new()).unwrap();
    let noise: Vec<u8> = (0..4096u32)
        .flat_map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[..4].to_vec())
        .collect();
    for _ in 0..3 {
        let noise = Bytes::from(noise.clone());
        let made = compressor.compressed([2; 16], || whole(&noise), Encoding::Gzip);
        assert_eq!(made.await, None);
    }
    assert_eq!(outcome(&compressor, "useless"), 1);
}

#[tokio::test]
async fn too_many_bodies_at_once_are_sent_as_they_are() {
    let compressor = Compressor::new(&Registry::new()).unwrap();
    let text = Bytes::from("a".repeat(100_000));
    let ask = |number: u8| compressor.compressed([number; 16], || whole(&text), Encoding::Gzip);
    let all = futures::future::join_all((0..50).map(ask)).await;
    let made = all.iter().filter(|one| one.is_some()).count() as u64;
    assert!(made >= JOBS_MAX as u64);
    assert_eq!(made + outcome(&compressor, "busy"), 50);
}

/// A body that never comes whole.
fn endless(begins: &Bytes) -> impl Stream<Item = Result<Bytes, Fault>> + use<> {
    whole(begins).chain(stream::pending())
}

#[tokio::test]
async fn bodies_that_wait_hold_bounded_memory() {
    let compressor = Compressor::new(&Registry::new()).unwrap();
    let large = Bytes::from(vec![b'a'; BODY_BYTES_MAX as usize]);
    let ask = |number: usize| {
        let asked = compressor.compressed([number as u8; 16], || endless(&large), Encoding::Gzip);
        Box::pin(asked)
    };
    let mut waiting: Vec<_> = (0..JOBS_MAX).map(ask).collect();
    for one in &mut waiting {
        assert!(futures::poll!(one).is_pending());
    }
    assert_eq!(compressor.held.available_permits(), 0);
    assert_eq!(futures::poll!(ask(JOBS_MAX)), std::task::Poll::Ready(None));
    assert_eq!(outcome(&compressor, "busy"), 1);
    drop(waiting);
    assert_eq!(compressor.held.available_permits(), HELD_BYTES_MAX, "none left");
}

#[tokio::test]
async fn bodies_that_come_slowly_keep_no_other_from_being_compressed() {
    let compressor = Compressor::new(&Registry::new()).unwrap();
    let begins = Bytes::from_static(b"a");
    let slow = |number: u8| {
        Box::pin(compressor.compressed([number; 16], || endless(&begins), Encoding::Gzip))
    };
    let mut waiting: Vec<_> = (0..100).map(slow).collect();
    for one in &mut waiting {
        assert!(futures::poll!(one).is_pending());
    }
    let text = Bytes::from("a".repeat(100_000));
    let made = compressor.compressed([200; 16], || whole(&text), Encoding::Gzip).await;
    assert_eq!(made.map(|made| decoded(Encoding::Gzip, &made)), Some(text.to_vec()));
    // They go out as they are, and who asks for one of them next does not wait.
    assert!(futures::future::join_all(waiting).await.iter().all(Option::is_none));
    assert_eq!(outcome(&compressor, "slow"), 100);
    assert_eq!(futures::poll!(slow(0)), std::task::Poll::Ready(None));
}
