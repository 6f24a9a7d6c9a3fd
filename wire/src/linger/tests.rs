//! Peers that do not end a connection that this side ended: on a clock that the tests advance.

use crate::stalls::{By, Serving, Stage, Stream, h2_begin, holds_the_clock, soon};
use crate::{LINGER_BYTES_MAX, LINGER_MAX};
use futures::poll;
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::yield_now;

const ALL: [By; 3] = [By::H1, By::H1Tls, By::H2Tls];
/// Nothing takes so long of what is waited for.
const MOMENT: Duration = Duration::from_millis(1);

/// A connection that the server has ended, and the client knows it.
async fn ended(stage: &Stage, by: By) -> (Stream, Serving) {
    let (mut stream, serving) = stage.connect_narrow(by).await;
    // No field; and DATA of no stream (RFC 9113 section 6.1).
    let wrong = match by {
        By::H2Tls => [&h2_begin()[..], &[0; 9]].concat(),
        By::H1 | By::H1Tls | By::Tls => b"GET / HTTP/1.1\r\nno field\r\n\r\n".to_vec(),
    };
    stream.write_all(&wrong).await.unwrap();
    stream.flush().await.unwrap();
    let mut said = Vec::new();
    soon(stream.read_to_end(&mut said)).await.unwrap();
    assert!(!said.is_empty(), "{by:?}");
    (stream, serving)
}

async fn until_ended(serving: &Serving) {
    let waiting = async {
        while !serving.is_finished() {
            yield_now().await;
        }
    };
    soon(waiting).await;
}

/// Byte by byte, or nothing.
#[tokio::test(start_paused = true)]
async fn who_does_not_end_is_closed_after_the_limit_whatever_it_sends() {
    const STEPS: u32 = 20;
    holds_the_clock();
    for (by, drips) in ALL.map(|by| [(by, false), (by, true)]).concat() {
        let stage = Stage::new(Duration::from_secs(30));
        let (mut stream, serving) = ended(&stage, by).await;
        stage.later(LINGER_MAX / STEPS).await;
        for _ in 2..STEPS {
            stage.later(LINGER_MAX / STEPS).await;
            assert!(!serving.is_finished(), "{by:?} {drips}");
            assert_eq!(stage.given_up("end"), 0);
            if drips {
                stream.write_all(b"x").await.unwrap();
                stream.flush().await.unwrap();
            }
        }
        stage.later(LINGER_MAX / STEPS + MOMENT).await;
        until_ended(&serving).await;
        assert_eq!(stage.given_up("end"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn of_who_sends_without_an_end_a_part_is_read() {
    holds_the_clock();
    for by in [By::H1, By::H1Tls] {
        let stage = Stage::new(Duration::from_secs(30));
        let (mut stream, serving) = ended(&stage, by).await;
        let all = vec![b'x'; 64 * LINGER_BYTES_MAX];
        {
            let mut sending = pin!(stream.write_all(&all));
            for _ in 0..all.len() / 1024 {
                assert!(poll!(&mut sending).is_pending(), "{by:?}: all of it was taken");
                yield_now().await;
            }
        }
        assert!(!serving.is_finished(), "{by:?}");
        stage.later(LINGER_MAX).await;
        until_ended(&serving).await;
        assert_eq!(stage.given_up("end"), 1);
        assert!(soon(stream.write_all(&all)).await.is_err(), "{by:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_ends_or_leaves_is_waited_for_no_longer() {
    holds_the_clock();
    for by in ALL {
        let stage = Stage::new(Duration::from_secs(30));
        let (mut stream, serving) = ended(&stage, by).await;
        stream.write_all(&[b'x'; LINGER_BYTES_MAX / 2]).await.unwrap();
        drop(stream);
        until_ended(&serving).await;
        assert_eq!(stage.given_up("end"), 0);
    }
}
