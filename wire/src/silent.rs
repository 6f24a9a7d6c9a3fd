//! Peers that ask for nothing, or never to the end: beside the clock of the tests.

use crate::stalls::{By, KERNEL_BYTES, Serving, Stage, Stream, holds_the_clock};
use crate::{HEAD_MAX, SEND_STALL_MAX};
use futures::FutureExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SECOND: Duration = Duration::from_secs(1);
/// HTTP/2's preface, and settings that say nothing (RFC 9113 section 3.4).
const BEGIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const PREFACE_BYTES: usize = 24;

/// A client of HTTP/2 that takes what comes.
struct Client {
    stream: Stream,
    came: Vec<u8>,
    answers_pings: bool,
}

impl Client {
    async fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Reads what is there, and answers the pings among it.
    async fn take(&mut self) -> Option<()> {
        let mut piece = vec![0; 64 << 10];
        while let Some(read) = self.stream.read(&mut piece).now_or_never() {
            let bytes = read.ok().filter(|bytes| *bytes > 0)?;
            self.came.extend_from_slice(&piece[..bytes]);
        }
        while let Some(head) = self.came.first_chunk::<9>().copied() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            if self.came.len() < head.len() + length {
                break;
            }
            let frame: Vec<u8> = self.came.drain(..head.len() + length).collect();
            if self.answers_pings && (head[3], head[4]) == (6, 0) {
                let answer = [&[0, 0, 8, 6, 1, 0, 0, 0, 0][..], &frame[head.len()..]].concat();
                self.stream.write_all(&answer).await.ok()?;
                self.stream.flush().await.ok()?;
            }
        }
        Some(())
    }

    /// The seconds until the server gives it up; none after so many.
    async fn ends(&mut self, stage: &Stage, serving: &Serving, most: u64) -> Option<u64> {
        for seconds in 0..most {
            if serving.is_finished() {
                return Some(seconds);
            }
            self.take().await;
            stage.later(SECOND).await;
        }
        None
    }
}

async fn connect(stage: &Stage, by: By, said: &[u8]) -> (Client, Serving) {
    let (stream, serving) = stage.connect(by, KERNEL_BYTES).await;
    // Who is in the middle of a frame has no room for another one.
    let answers_pings = said == BEGIN;
    let mut client = Client { stream, came: Vec::new(), answers_pings };
    client.say(said).await;
    (client, serving)
}

/// A GET (RFC 7541 appendix A), with these flags.
pub fn ask(flags: u8, path: &[u8]) -> Vec<u8> {
    let size = u8::try_from(path.len()).unwrap();
    let head = [0, 0, 15 + size, 1, flags, 0, 0, 0, 1];
    [&head[..], b"\x82\x87\x04", &[size], path, b"\x41\x09localhost"].concat()
}

fn within(limit: Duration) -> std::ops::RangeInclusive<u64> {
    // Looks are a quarter of the limit apart.
    limit.as_secs()..=limit.as_secs() * 5 / 4 + 4
}

#[tokio::test(start_paused = true)]
async fn who_never_asks_is_given_up_whatever_else_it_says() {
    holds_the_clock();
    let half_head = [BEGIN, &ask(1, b"/1")].concat();
    let cases = [
        (By::Tls, &b""[..]),
        (By::Tls, b"P"),
        (By::Tls, &BEGIN[..PREFACE_BYTES - 1]),
        (By::Tls, &BEGIN[..PREFACE_BYTES]),
        (By::Tls, BEGIN),
        (By::H2Tls, b""),
        (By::H2Tls, &BEGIN[..PREFACE_BYTES - 1]),
        (By::H2Tls, &BEGIN[..PREFACE_BYTES]),
        (By::H2Tls, &BEGIN[..BEGIN.len() - 1]),
        (By::H2Tls, BEGIN),
        (By::H2Tls, &half_head),
        (By::H2Tls, &half_head[..half_head.len() - 1]),
        (By::H1Tls, b""),
        (By::H1Tls, b"GET / HTTP/1.1\r\n"),
        (By::H1, &BEGIN[..PREFACE_BYTES]),
        (By::H1, BEGIN),
        (By::H1, &half_head),
    ];
    for (number, (by, said)) in cases.into_iter().enumerate() {
        let stage = Stage::new(SEND_STALL_MAX);
        let (mut client, serving) = connect(&stage, by, said).await;
        let ends = client.ends(&stage, &serving, 120).await;
        assert!(ends.is_some_and(|ends| within(HEAD_MAX).contains(&ends)), "{number}: {ends:?}");
        let given_up = ["head", "idle", "ping"].map(|wait| stage.given_up(wait));
        assert_eq!(given_up, [1, 0, 0], "{number}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_nothing_more_is_given_up_though_it_answers_pings() {
    holds_the_clock();
    // An answer that leaves without hyper, and one that does not.
    for direct in [true, false] {
        let mut stage = Stage::new(SEND_STALL_MAX);
        Arc::get_mut(&mut stage.shared).unwrap().levers.direct = direct;
        let (mut client, serving) = connect(&stage, By::H2Tls, BEGIN).await;
        assert_eq!(client.ends(&stage, &serving, 16).await, None);
        client.say(&ask(5, b"/1")).await;
        // The kernel acknowledges the answer by the machine's clock, at whatever time of this one.
        let ends = client.ends(&stage, &serving, 1200).await;
        assert!(ends.is_some_and(|ends| ends >= HEAD_MAX.as_secs()), "{ends:?}");
        assert_eq!(["head", "idle", "ping"].map(|wait| stage.given_up(wait)), [0, 1, 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_an_answer_is_not_idle() {
    holds_the_clock();
    let stage = Stage::new(SEND_STALL_MAX);
    let (mut client, serving) = connect(&stage, By::H2Tls, BEGIN).await;
    client.say(&ask(5, b"/never")).await;
    assert_eq!(client.ends(&stage, &serving, 200).await, None);
}
