//! Requests that are answered before hyper, and peers that send many, or take nothing, or go away
//! meanwhile: on a clock that the tests advance.

use crate::stalls::{By, Serving, Stage, Stream, holds_the_clock, polls, soon, whole};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::{unconstrained, yield_now};

/// The longest body that is answered before hyper: more than the kernels take.
const LONG: usize = 64 << 10;
const LIMIT: Duration = Duration::from_secs(2);

fn get(bytes: usize) -> Vec<u8> {
    format!("GET /{bytes} HTTP/1.1\r\nhost: localhost\r\n\r\n").into()
}

/// Writes each part apart (over TLS they are records), before anybody else has a turn.
async fn send(stream: &mut Stream, parts: &[Vec<u8>]) {
    let sending = unconstrained(async {
        for part in parts {
            stream.write_all(part).await.unwrap();
            stream.flush().await.unwrap();
        }
    });
    sending.await;
}

/// Reads the answer to a request for so many bytes; false if the connection ended before it.
async fn read(stream: &mut Stream, bytes: usize) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match soon(stream.read_u8()).await {
            Ok(byte) => head.push(byte),
            Err(error) => {
                assert!(head.is_empty(), "cut: {error}");
                return false;
            }
        }
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains(&format!("content-length: {bytes}\r\n")), "{head}");
    let mut body = vec![0; bytes];
    soon(stream.read_exact(&mut body)).await.unwrap();
    assert!(body.iter().all(|byte| *byte == 7));
    true
}

/// A connection of which hyper had the first request, as it has of each.
async fn begun(stage: &Stage, by: By) -> (Stream, Serving) {
    let (mut stream, serving) = stage.connect_narrow(by).await;
    let before = whole();
    send(&mut stream, &[get(1)]).await;
    assert!(read(&mut stream, 1).await);
    assert_eq!(whole(), before);
    // All that hyper has to do behind the answer.
    stage.later(Duration::ZERO).await;
    (stream, serving)
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            yield_now().await;
        }
    };
    soon(waiting).await;
    assert!(condition(), "{what}");
}

#[tokio::test(start_paused = true)]
async fn many_requests_at_once_are_answered_in_several_turns() {
    const MANY: usize = 200;
    holds_the_clock();
    let stage = Stage::new(LIMIT);
    let (mut stream, _serving) = begun(&stage, By::H1Tls).await;
    let before = polls();
    send(&mut stream, &vec![get(1); MANY]).await;
    assert_eq!(polls(), before, "it had a turn before all was there");
    for _ in 0..MANY {
        assert!(read(&mut stream, 1).await);
    }
    assert_eq!(whole(), MANY);
    assert!(polls() - before >= 12, "{}", polls() - before);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_begins_behind_an_answered_one_has_all_its_time() {
    holds_the_clock();
    let stage = Stage::new(LIMIT);
    let (mut stream, serving) = begun(&stage, By::H1Tls).await;
    stage.later(crate::HEAD_MAX - Duration::from_millis(100)).await;
    let (second, rest) = (get(2)[..20].to_vec(), get(2)[20..].to_vec());
    send(&mut stream, &[get(1), second]).await;
    assert!(read(&mut stream, 1).await);
    assert_eq!(whole(), 1);
    stage.later(crate::HEAD_MAX / 2).await;
    send(&mut stream, &[rest]).await;
    assert!(read(&mut stream, 2).await);
    // And no more than that.
    let third = get(3)[..20].to_vec();
    send(&mut stream, &[get(1), third]).await;
    assert!(read(&mut stream, 1).await);
    stage.later(crate::HEAD_MAX - Duration::from_millis(100)).await;
    assert!(!serving.is_finished());
    stage.later(Duration::from_millis(200)).await;
    until("the connection ends", || serving.is_finished()).await;
    assert_eq!(stage.given_up("head"), 1);
}

/// Requests of one connection, of which the peer takes nothing.
const REQUESTS: usize = 3;

/// Asks for more than a connection takes at once: over TLS a batch of records is taken, too.
async fn blocked(stage: &Stage, by: By) -> (Stream, Serving) {
    let (mut stream, serving) = begun(stage, by).await;
    let before = whole();
    for _ in 0..REQUESTS {
        send(&mut stream, &[get(LONG)]).await;
        stage.later(Duration::ZERO).await;
    }
    until("an answer waits", || whole() > before).await;
    let answered = whole() - before;
    assert!(answered < REQUESTS, "{by:?}: {answered} did not wait for the peer");
    (stream, serving)
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_of_an_answer_is_given_up() {
    holds_the_clock();
    for by in [By::H1, By::H1Tls] {
        let stage = Stage::new(LIMIT);
        let (_stream, serving) = blocked(&stage, by).await;
        stage.later(LIMIT / 2).await;
        assert!(!serving.is_finished(), "{by:?}");
        stage.later(LIMIT).await;
        stage.later(LIMIT).await;
        assert!(serving.is_finished(), "{by:?}");
        assert_eq!(stage.given_up("send"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn who_takes_an_answer_late_gets_all_of_it_and_what_it_asked_for_behind_that() {
    holds_the_clock();
    for by in [By::H1, By::H1Tls] {
        let stage = Stage::new(LIMIT);
        let (mut stream, serving) = blocked(&stage, by).await;
        for _ in 0..REQUESTS {
            stage.later(LIMIT / 2).await;
            assert!(read(&mut stream, LONG).await, "{by:?}");
        }
        send(&mut stream, &[get(5)]).await;
        assert!(read(&mut stream, 5).await, "{by:?}");
        assert!(!serving.is_finished(), "{by:?}");
    }
}

/// The peer's own end, and the server's drain: what was begun is sent to its last byte.
#[tokio::test(start_paused = true)]
async fn an_answer_that_waits_when_a_connection_ends_is_sent_whole() {
    holds_the_clock();
    for (by, drains) in [By::H1, By::H1Tls].map(|by| [(by, false), (by, true)]).concat() {
        let stage = Stage::new(LIMIT);
        let (mut stream, serving) = blocked(&stage, by).await;
        if drains {
            stage.shared.drain.cancel();
        } else {
            stream.shutdown().await.unwrap();
        }
        stage.later(LIMIT / 2).await;
        assert!(!serving.is_finished(), "{by:?} {drains}");
        let mut answered = 0;
        while read(&mut stream, LONG).await {
            answered += 1;
        }
        // A drain takes no request that was not read.
        assert!(answered > 0 && (drains || answered == REQUESTS), "{by:?} {drains}: {answered}");
        drop(stream);
        until("the connection ends", || serving.is_finished()).await;
        serving.await.unwrap().unwrap();
        assert_eq!(stage.given_up("send"), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_a_connection_that_is_idle_behind_answers_of_this_kind() {
    holds_the_clock();
    for by in [By::H1, By::H1Tls] {
        let stage = Stage::new(LIMIT);
        let (mut stream, serving) = begun(&stage, by).await;
        let before = whole();
        send(&mut stream, &[get(9)]).await;
        assert!(read(&mut stream, 9).await);
        assert_eq!(whole(), before + 1);
        stage.shared.drain.cancel();
        assert!(!read(&mut stream, 9).await);
        drop(stream);
        soon(serving).await.unwrap().unwrap();
    }
}
