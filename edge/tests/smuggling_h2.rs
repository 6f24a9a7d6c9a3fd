//! HTTP/2 requests that would become something else as HTTP/1.1 (RFC 9113 section 8.2.1 and
//! 8.2.2), written frame by frame to the real listener: each is reset or refused, and a good
//! request beside it is answered.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;
#[path = "common/raw.rs"]
mod raw;

use common::{DEADLINE, Edge, Stage, until};
use raw::Raw;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// How a stream went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// `:status` 200.
    Answered,
    /// Another status.
    Refused,
    /// The stream was reset, or the connection ended.
    Reset,
}

type Field<'a> = (&'a [u8], &'a [u8]);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field section without table and without Huffman codes (RFC 7541 section 6.2.2).
fn section(fields: &[Field<'_>]) -> Vec<u8> {
    let mut section = Vec::new();
    for (name, value) in fields {
        section.push(0);
        for text in [name, value] {
            // Seven bits of the length, then the rest in groups of seven.
            match text.len().checked_sub(127) {
                None => section.push(u8::try_from(text.len()).unwrap()),
                Some(mut rest) => {
                    section.push(127);
                    while rest >= 128 {
                        section.push(u8::try_from(rest % 128).unwrap() | 128);
                        rest /= 128;
                    }
                    section.push(u8::try_from(rest).unwrap());
                }
            }
            section.extend_from_slice(text);
        }
    }
    section
}

/// Sends frames after the preface, and reads until the stream has come to its first end.
async fn exchange(address: &str, frames: &[u8]) -> End {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
    bytes.extend_from_slice(frames);
    // The peer may have ended the connection already.
    let _ = stream.write_all(&bytes).await;
    let read = async {
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                return End::Reset;
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            if stream.read_exact(&mut payload).await.is_err() {
                return End::Reset;
            }
            match head[3] {
                // Entry 8 of the static table: `:status` 200.
                HEADERS if payload[0] == 0x88 => return End::Answered,
                HEADERS => return End::Refused,
                RST_STREAM | GOAWAY => return End::Reset,
                _ => {}
            }
        }
    };
    tokio::time::timeout(DEADLINE, read).await.expect("an end")
}

fn request(fields: &[Field<'_>], body: Option<&[u8]>) -> Vec<u8> {
    let flags = if body.is_none() { END_HEADERS | END_STREAM } else { END_HEADERS };
    let mut frames = frame(HEADERS, flags, 1, &section(fields));
    if let Some(body) = body {
        frames.extend(frame(DATA, END_STREAM, 1, body));
    }
    frames
}

struct Asking {
    address: String,
    path: String,
}

impl Asking {
    fn of(stage: &Stage) -> Self {
        let address = stage.edge.http.strip_prefix("http://").unwrap().to_owned();
        let path = stage.url("hls.m3u8").strip_prefix(&stage.edge.http).unwrap().to_owned();
        Self { address, path }
    }

    /// What every good request begins with.
    fn pseudo(&self) -> Vec<Field<'_>> {
        vec![
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":authority", b"a.example"),
            (b":path", self.path.as_bytes()),
        ]
    }

    async fn end(&self, fields: &[Field<'_>], body: Option<&[u8]>) -> End {
        exchange(&self.address, &request(fields, body)).await
    }
}

#[tokio::test]
async fn fields_that_would_become_something_else_are_refused() {
    let stage = Stage::new().await;
    let asking = Asking::of(&stage);
    let good: [&[Field<'_>]; 5] = [
        &[],
        &[(b"te", b"trailers")],
        &[(b"x-tab", b"a\tb")],
        &[(b"x-latin", b"caf\xe9")],
        &[(b"cookie", b"a=1"), (b"cookie", b"b=2")],
    ];
    for more in good {
        let fields = [asking.pseudo(), more.to_vec()].concat();
        assert_eq!(asking.end(&fields, None).await, End::Answered, "{more:?}");
    }
    let bad: [Field<'_>; 18] = [
        (b"transfer-encoding", b"chunked"),
        (b"connection", b"close"),
        (b"connection", b"x-auth"),
        (b"keep-alive", b"timeout=5"),
        (b"proxy-connection", b"close"),
        (b"upgrade", b"h2c"),
        (b"te", b"gzip"),
        (b"X-Upper", b"1"),
        (b"x name", b"1"),
        (b"x:name", b"1"),
        (b"", b"1"),
        (b"x\r\nhost", b"1"),
        (b"x", b"a\r\nhost: b"),
        (b"x", b"a\nb"),
        (b"x", b"a\0b"),
        (b":path", b"/again"),
        (b":unknown", b"1"),
        (b":status", b"200"),
    ];
    for field in bad {
        let fields = [asking.pseudo(), vec![field]].concat();
        let end = asking.end(&fields, None).await;
        assert_ne!(end, End::Answered, "{}: {}", field.0.escape_ascii(), field.1.escape_ascii());
    }
    stage.edge.stop().await;
}

#[tokio::test]
async fn pseudo_fields_are_strict() {
    let stage = Stage::new().await;
    let asking = Asking::of(&stage);
    let with = |name: &[u8], value: &'static [u8]| {
        let mut fields = asking.pseudo();
        let place = fields.iter().position(|field| field.0 == name).unwrap();
        fields[place].1 = value;
        fields
    };
    let bad = [
        with(b":path", b""),
        with(b":path", b"no-slash"),
        with(b":path", b"/a b"),
        with(b":path", b"/a\r\nx: b"),
        with(b":authority", b"a b"),
        with(b":authority", b"a\r\nx: b"),
        with(b":method", b""),
        with(b":method", b"GET / HTTP/1.1\r\nx:"),
        with(b":scheme", b"http://b/?"),
    ];
    for fields in bad {
        let end = asking.end(&fields, None).await;
        assert_ne!(
            end,
            End::Answered,
            "{:?}",
            fields.iter().map(|field| field.1.escape_ascii().to_string()).collect::<Vec<_>>()
        );
    }
    for missing in [0, 1, 3] {
        let mut fields = asking.pseudo();
        fields.remove(missing);
        assert_ne!(
            asking.end(&fields, None).await,
            End::Answered,
            "without the pseudo field {missing}"
        );
    }
    let mut late = asking.pseudo();
    late.insert(2, (b"x", b"1"));
    assert_ne!(asking.end(&late, None).await, End::Answered, "a pseudo field after a field");
    stage.edge.stop().await;
}

#[tokio::test]
async fn lengths_agree_with_bodies() {
    let stage = Stage::new().await;
    let asking = Asking::of(&stage);
    let with =
        |length: &'static [u8]| [asking.pseudo(), vec![(&b"content-length"[..], length)]].concat();
    for length in [&b"4"[..], b"6", b"+5", b"5,5", b"-5", b"0x5", b"", b"99999999999999999999"] {
        // The site answers without the body: only the stream's own end says what the length was
        // worth, so a reset may come after the answer. What counts is that nothing else is read.
        let end = asking.end(&with(length), Some(b"hello")).await;
        let is_number =
            length.iter().all(u8::is_ascii_digit) && !length.is_empty() && length.len() < 20;
        assert!(is_number || end != End::Answered, "{}", length.escape_ascii());
    }
    let twice = [with(b"5"), vec![(&b"content-length"[..], &b"6"[..])]].concat();
    assert_ne!(asking.end(&twice, Some(b"hello")).await, End::Answered);
    assert_ne!(asking.end(&with(b"5"), None).await, End::Answered, "a length without a body");
    stage.edge.stop().await;
}

#[tokio::test]
async fn header_bombs_end() {
    let stage = Stage::new().await;
    let asking = Asking::of(&stage);
    let long = vec![b'a'; 20 << 10];
    let fields = [asking.pseudo(), vec![(&b"x"[..], &long[..])]].concat();
    let first = section(&fields);
    let (head, rest) = first.split_at(16_000);
    let mut frames = frame(HEADERS, END_STREAM, 1, head);
    frames.extend(frame(CONTINUATION, END_HEADERS, 1, rest));
    assert_ne!(exchange(&asking.address, &frames).await, End::Answered, "20 KiB in one field");
    // Continuations without an end.
    let mut frames = frame(HEADERS, END_STREAM, 1, &section(&asking.pseudo()));
    for number in 0..2000 {
        let name = format!("x-{number}");
        let value = [b'a'; 100];
        frames.extend(frame(CONTINUATION, 0, 1, &section(&[(name.as_bytes(), &value)])));
    }
    assert_eq!(exchange(&asking.address, &frames).await, End::Reset, "2,000 continuations");
    // A field by a place in the table that there is not.
    assert_eq!(
        exchange(&asking.address, &frame(HEADERS, 5, 1, &[0xff, 0xff, 0x7f])).await,
        End::Reset
    );
    assert_eq!(asking.end(&asking.pseudo(), None).await, End::Answered, "it serves on");
    for reason in ["too-many", "malformed"] {
        let line = format!("requests_unread_total{{protocol=\"h2\",reason=\"{reason}\"}} ");
        let counted = async || {
            (stage.edge.metric(&format!("nearcast_edge_{line}")).await == 1.0).then_some(())
        };
        until(&line, counted).await;
    }
    stage.edge.stop().await;
}

/// A body that is a request, under lengths that are true and untrue: the origin sees a body, or
/// nothing whole.
#[tokio::test]
async fn nothing_is_smuggled_to_an_origin() {
    const HIDDEN: &[u8] = b"DELETE /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    let dir = tempfile::tempdir().unwrap();
    let raw = Raw::start().await;
    let edge = Edge::start(raw::settings(dir.path(), &raw)).await;
    let address = edge.http.strip_prefix("http://").unwrap();
    let good = HIDDEN.len().to_string();
    let cases: [&[Field<'_>]; 8] = [
        &[],
        &[(b"content-length", good.as_bytes())],
        &[(b"content-length", b"0")],
        &[(b"content-length", b"5")],
        &[(b"content-length", b"500")],
        &[(b"content-length", good.as_bytes()), (b"content-length", b"0")],
        &[(b"transfer-encoding", b"chunked")],
        &[(b"content-length", b"0"), (b"transfer-encoding", b"chunked")],
    ];
    // Each by its own path: what ends early may still be on its way to the origin when the next
    // case begins.
    for (number, more) in cases.into_iter().enumerate() {
        let path = format!("/{number}");
        let first: [Field<'_>; 4] = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":authority", b"a.example"),
            (b":path", path.as_bytes()),
        ];
        let fields = [&first[..], more].concat();
        let end = exchange(address, &request(&fields, Some(HIDDEN))).await;
        assert_eq!(end == End::Answered, number < 2, "{more:?}: {end:?}");
    }
    assert_eq!(common::get(&format!("{}/x", edge.http), &[]).await.status, 200);
    edge.stop().await;
    for seen in raw.take() {
        let is_right = match seen.line.as_str() {
            "POST /0" | "POST /1" => seen.body.as_deref() == Some(HIDDEN),
            // A length of 0 is heeded, whatever comes behind it.
            "POST /2" => seen.body.is_none_or(|body| body.is_empty()),
            "POST /3" | "POST /4" | "POST /5" | "POST /6" | "POST /7" => seen.body.is_none(),
            line => line == "GET /x",
        };
        assert!(is_right, "{}", seen.line);
    }
    assert_eq!(raw.complaints(), Vec::<String>::new());
}
