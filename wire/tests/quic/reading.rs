//! A request is the same, and is refused for the same reason, whether nearcast reads its head or
//! h3 does: what comes whole is read without h3 where that can be done, what comes in two pieces is
//! not.

use crate::huffman::huffman;
use crate::world::{Connection, World, within};
use nearcast_wire::Levers;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use quinn::ReadError;
use std::sync::atomic::Ordering::SeqCst;
use tokio::runtime;

/// A string, and whether it is in Huffman's code.
type Text = (Vec<u8>, bool);

/// A field in one of its spellings (RFC 9204 section 4.5), and whether it may be in no table.
#[derive(Debug, Clone)]
enum Field {
    Indexed(usize),
    Named(usize, Text, bool),
    Literal(Text, Text, bool),
}

/// What is wrong with pseudo-header fields.
#[derive(Debug, Clone)]
enum Wrong {
    Nothing,
    Missing(usize),
    Twice(usize),
    Late(usize),
}

#[derive(Debug, Clone)]
struct Head {
    prefix: [u8; 2],
    fields: Vec<Field>,
    /// How the frame spells its type and its length: in so many bytes, as a power of two.
    forms: [u32; 2],
}

/// An integer that shares its first byte with flags (RFC 7541 section 5.1).
fn integer(out: &mut Vec<u8>, flags: u8, bits: u32, value: usize) {
    let most = (1_usize << bits) - 1;
    out.push(flags | value.min(most) as u8);
    if let Some(mut rest) = value.checked_sub(most) {
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }
}

fn string(out: &mut Vec<u8>, flags: u8, bits: u32, (text, is_coded): &Text) {
    let coded = if *is_coded { huffman(text) } else { text.clone() };
    integer(out, flags | u8::from(*is_coded) << bits, bits, coded.len());
    out.extend(coded);
}

/// A QUIC integer (RFC 9000 section 16).
fn varint(out: &mut Vec<u8>, form: u32, value: usize) {
    let length = 1 << form;
    let from = out.len();
    out.extend(&(value as u64).to_be_bytes()[8 - length..]);
    out[from] |= (form as u8) << 6;
}

impl Head {
    fn message(&self) -> Vec<u8> {
        let mut section = self.prefix.to_vec();
        let out = &mut section;
        for field in &self.fields {
            match field {
                Field::Indexed(index) => integer(out, 0xc0, 6, *index),
                Field::Named(index, value, never) => {
                    integer(out, 0x50 | u8::from(*never) << 5, 4, *index);
                    string(out, 0, 7, value);
                }
                Field::Literal(name, value, never) => {
                    string(out, 0x20 | u8::from(*never) << 4, 3, name);
                    string(out, 0, 7, value);
                }
            }
        }
        let mut message = Vec::new();
        varint(&mut message, self.forms[0], 1);
        varint(&mut message, self.forms[1], section.len());
        message.extend(section);
        message
    }
}

fn of(choices: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    select(choices).prop_map(|text| text.as_bytes().to_vec())
}

fn text(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Text> {
    (bytes, any::<bool>())
}

fn like(pattern: &'static str) -> impl Strategy<Value = Vec<u8>> {
    pattern.prop_map(String::into_bytes)
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        12 => like("[ -~]{0,20}"),
        2 => like("[a-z ]{100,300}"),
        2 => of(&["a.b", "", "0", "5", "chunked", " x", "x\t", "bytes=0-1", "bytes=0-1"]),
        1 => prop::collection::vec(0x20..=0xff_u8, 0..8),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ]
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => of(&["cookie", "range", "accept", "x-a", "x-a", "user-agent", "priority"]),
        4 => like("[a-z][a-z0-9-]{0,12}"),
        1 => like("[ -~]{0,6}"),
        1 => of(&["host", "Host", "X-Up", "content-length", "transfer-encoding", "te", "", "\u{e9}"]),
        1 => of(&[":path", ":method", ":status", ":protocol", ":scheme", ":x", ":"]),
    ]
}

fn field() -> impl Strategy<Value = Field> {
    prop_oneof![
        // Mostly those that are no pseudo-header fields.
        4 => (29_usize..63).prop_map(Field::Indexed),
        1 => (0_usize..120).prop_map(Field::Indexed),
        6 => (select(&[2, 5, 8, 9, 13, 29, 31, 55, 72, 90, 95][..]), text(value()), any::<bool>())
            .prop_map(|(index, value, never)| Field::Named(index, value, never)),
        1 => (0_usize..120, text(value()), any::<bool>())
            .prop_map(|(index, value, never)| Field::Named(index, value, never)),
        8 => (text(name()), text(value()), any::<bool>())
            .prop_map(|(name, value, never)| Field::Literal(name, value, never)),
    ]
}

/// A pseudo-header field: by `index` alone, or with a value and its name in either way.
fn pseudo(
    name: &'static str,
    index: std::ops::Range<usize>,
    usual: &'static [usize],
    value: impl Strategy<Value = Vec<u8>> + Clone + 'static,
) -> impl Strategy<Value = Field> {
    let by_name = index.start;
    let named = (text(value.clone()), any::<bool>());
    let literal = (any::<bool>(), text(value), any::<bool>());
    prop_oneof![
        6 => select(usual).prop_map(Field::Indexed),
        1 => index.prop_map(Field::Indexed),
        4 => named.prop_map(move |(value, never)| Field::Named(by_name, value, never)),
        4 => literal.prop_map(move |(coded, value, never)| {
            Field::Literal((name.as_bytes().to_vec(), coded), value, never)
        }),
    ]
}

fn pseudos() -> impl Strategy<Value = Vec<Field>> {
    let method = of(&["GET", "GET", "GET", "HEAD", "HEAD", "get", "POST", "CONNECT", ""]);
    let scheme = of(&["https", "https", "https", "https", "http", "HTTPS", "x", ""]);
    let host = prop_oneof![
        8 => of(&["a.b", "a.b:80", "[::1]", "A.B", "u@a.b", "a:b", "a/b", "a..b"]),
        1 => like("[ -~]{0,6}"),
    ];
    let path = prop_oneof![
        8 => like("/[a-z0-9/.%~_-]{0,30}(\\?[a-z0-9=&]{0,9})?"),
        2 => like("/[ -~]{0,9}"),
        1 => of(&["*", "", "a", "?a", "//", "/#a", "/?#", "/\u{e9}", "https://a.b/", "/a?b?c"]),
    ];
    (
        pseudo(":method", 15..22, &[17, 17, 18], boxed(method)),
        pseudo(":scheme", 22..24, &[23], boxed(scheme)),
        prop_oneof![9 => Just(0_usize), 1 => Just(1)],
        text(host),
        pseudo(":path", 1..2, &[1], boxed(path)),
    )
        .prop_map(|(method, scheme, spelling, host, path)| {
            let authority = match spelling {
                0 => Field::Named(0, host, false),
                _ => Field::Literal((b":authority".to_vec(), host.1), host, false),
            };
            vec![method, scheme, authority, path]
        })
        .prop_shuffle()
}

fn boxed(value: impl Strategy<Value = Vec<u8>> + 'static) -> BoxedStrategy<Vec<u8>> {
    value.boxed()
}

fn head() -> impl Strategy<Value = Head> {
    let wrong = prop_oneof![
        20 => Just(Wrong::Nothing),
        1 => (0_usize..4).prop_map(Wrong::Missing),
        1 => (0_usize..4).prop_map(Wrong::Twice),
        1 => (0_usize..4).prop_map(Wrong::Late),
    ];
    let prefix = prop_oneof![30 => Just([0, 0]), 1 => any::<[u8; 2]>()];
    let forms =
        prop_oneof![6 => Just([0, 1]), 1 => (0_u32..4, 1_u32..4).prop_map(<[u32; 2]>::from)];
    (pseudos(), prop::collection::vec(field(), 0..6), wrong, prefix, forms).prop_map(
        |(mut fields, others, wrong, prefix, forms)| {
            let mut late = None;
            match wrong {
                Wrong::Nothing => {}
                Wrong::Missing(which) => drop(fields.remove(which)),
                Wrong::Twice(which) => fields.push(fields[which].clone()),
                Wrong::Late(which) => late = Some(fields.remove(which)),
            }
            fields.extend(others);
            fields.extend(late);
            Head { prefix, fields, forms }
        },
    )
}

/// What comes of a message that is sent in two pieces, of which the first may be empty. A
/// connection that ends by it is made anew.
async fn outcome(
    world: &World,
    connection: &mut Connection,
    message: &[u8],
    cut: usize,
) -> Result<Vec<u8>, String> {
    let (mut send, mut receive) = connection.quic.open_bi().await.unwrap();
    if cut > 0 {
        send.write_all(&message[..cut]).await.unwrap();
        // By its answer the piece has come, too.
        connection.body("/").await.unwrap();
    }
    // A head that is refused may be stopped.
    let _ = send.write_all(&message[cut..]).await;
    let _ = send.finish();
    let mut answer = Vec::new();
    let ended = loop {
        match within(receive.read_chunk(usize::MAX, true)).await {
            Ok(Some(chunk)) => answer.extend_from_slice(&chunk.bytes),
            Ok(None) => break Ok(answer),
            Err(error) => break Err(error),
        }
    };
    if let Err(ReadError::ConnectionLost(_)) = ended {
        *connection = world.connect().await;
    }
    ended.map_err(|error| format!("{error:?}"))
}

#[test]
fn a_request_is_what_h3_would_have_read() {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (world, connection) = runtime.block_on(async {
        let world = World::start(1, Levers::default());
        world.shared.service.echoes.store(true, SeqCst);
        let connection = world.connect().await;
        (world, connection)
    });
    let connection = std::cell::RefCell::new(connection);
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let tested = runner.run(&head(), |head| {
        let message = head.message();
        let connection = &mut *connection.borrow_mut();
        let [whole, by_h3] = runtime.block_on(async {
            let whole = outcome(&world, connection, &message, 0).await;
            [whole, outcome(&world, connection, &message, 1).await]
        });
        let told = |outcome: Result<Vec<u8>, String>| {
            outcome.map(|answer| String::from_utf8_lossy(&answer).into_owned())
        };
        prop_assert_eq!(told(whole), told(by_h3));
        Ok(())
    });
    if let Err(failed) = tested {
        panic!("{failed}");
    }
    runtime.block_on(world.end());
}
