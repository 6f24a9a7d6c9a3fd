//! Heads that are read, and heads that are hyper's; and by chance, that both read the same.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn told(lines: &str) -> Option<request::Parts> {
    read(format!("{}\r\n\r\n", lines.replace('|', "\r\n")).as_bytes())
}

#[test]
fn plain_requests_are_read() {
    let head = told("GET /a%20b/c;d?e=f&g HTTP/1.1|Host: A.b:80|accept:*/*|X-e:|x-E: \t g h\t");
    let head = head.unwrap();
    assert_eq!((head.method, head.version), (Method::GET, Version::HTTP_11));
    assert_eq!(head.uri, "/a%20b/c;d?e=f&g");
    let fields = head.headers.iter();
    let fields: Vec<_> = fields.map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let wanted: [(_, &[u8]); 4] =
        [("host", b"A.b:80"), ("accept", b"*/*"), ("x-e", b""), ("x-e", b"g h")];
    assert_eq!(fields, wanted);
    assert!(told("GET / HTTP/1.1").is_some());
    assert!(told("GET / HTTP/1.1|Connection: Keep-Alive").is_some());
    let many = |count| format!("GET / HTTP/1.1{}", "|a: b".repeat(count));
    assert!(told(&many(FIELDS_MAX)).is_some() && told(&many(FIELDS_MAX + 1)).is_none());
}

#[test]
fn what_is_not_plain_is_hypers() {
    for lines in [
        "HEAD / HTTP/1.1|Host: a",
        "GET  / HTTP/1.1|Host: a",
        "GET /a b HTTP/1.1|Host: a",
        "GET /a#b HTTP/1.1|Host: a",
        "GET /\u{e4} HTTP/1.1|Host: a",
        "GET /\t HTTP/1.1|Host: a",
        "GET http://a/ HTTP/1.1|Host: a",
        "GET * HTTP/1.1|Host: a",
        "GET / HTTP/1.0|Host: a",
        "GET / HTTP/1.1 |Host: a",
        "GET / HTTP/1.1\n|Host: a",
        "GET / HTTP/1.1|Host : a",
        "GET / HTTP/1.1|Host: a| b",
        "GET / HTTP/1.1|Host: a|: b",
        "GET / HTTP/1.1|Host: a|b",
        "GET / HTTP/1.1|Host: a\nb: c",
        "GET / HTTP/1.1|Host: a\r",
        "GET / HTTP/1.1|Host: a\0",
        "GET / HTTP/1.1|Host: a\u{b}",
        "GET / HTTP/1.1|Content-Length: 0",
        "GET / HTTP/1.1|Transfer-Encoding: chunked",
        "GET / HTTP/1.1|Expect: 100-continue",
        "GET / HTTP/1.1|Upgrade: h2c",
        "GET / HTTP/1.1|Connection: close",
        "GET / HTTP/1.1|Connection: keep-alive, close",
        "GET / HTTP/1.1|Host: a||GET /b HTTP/1.1|Host: a",
    ] {
        assert!(told(lines).is_none(), "{lines:?}");
    }
    assert!(read(b"GET / HTTP/1.1\r\nHost: a\r\n").is_none());
    assert!(read(b"GET / HTTP/1.1\n\r\n\r\n").is_none());
}

/// What httparse, by which hyper reads, says of a request.
fn parsed<T>(
    bytes: &[u8],
    told: impl FnOnce(httparse::Status<usize>, &httparse::Request<'_, '_>) -> T,
) -> Option<T> {
    let mut fields = [httparse::EMPTY_HEADER; 200];
    let mut request = httparse::Request::new(&mut fields);
    request.parse(bytes).ok().map(|status| told(status, &request))
}

const LINES: [&str; 5] = [
    "GET / HTTP/1.1",
    "GET /a/b%20c;d?e=f&g HTTP/1.1",
    "GET /a//../b HTTP/1.1",
    "POST / HTTP/1.1",
    "GET http://a.b/ HTTP/1.1",
];
const FIELDS: [&str; 10] = [
    "Host: a.b:80",
    "accept:*/*",
    "X-e:",
    "x-E: \t g h\t",
    "Connection: keep-alive",
    "Connection: close",
    "Content-Length: 3",
    "Transfer-Encoding: chunked",
    "Content-Length : 3",
    "cookie: a=b; c=\u{e4}",
];
const ADDED: [&[u8]; 12] = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\0",
    b" ",
    b":",
    b"\x80",
    b"\t",
    b"\x7f",
    b"\r\n\r\n",
    b"\r\n ",
    b"\x0b",
];

/// What is done to a head, at a place of it.
#[derive(Debug, Clone)]
enum Change {
    Insert(usize, usize),
    Remove(usize),
    Cut(usize),
    Double,
}

fn heads() -> impl Strategy<Value = Vec<u8>> {
    let change = prop_oneof![
        6 => (any::<usize>(), 0..ADDED.len()).prop_map(|(at, which)| Change::Insert(at, which)),
        2 => any::<usize>().prop_map(Change::Remove),
        1 => any::<usize>().prop_map(Change::Cut),
        1 => Just(Change::Double),
    ];
    let fields = vec(prop_oneof![3 => 0..5_usize, 1 => 0..FIELDS.len()], 0..6);
    let lines = prop_oneof![3 => 0..3_usize, 1 => 0..LINES.len()];
    (lines, fields, vec(change, 0..3)).prop_map(|(line, fields, changes)| {
        let lines = fields.iter().map(|field| FIELDS[*field]);
        let lines: Vec<_> = [LINES[line]].into_iter().chain(lines).collect();
        let head = (lines.join("\r\n") + "\r\n\r\n").into_bytes();
        changes.iter().fold(head, changed)
    })
}

fn changed(mut head: Vec<u8>, change: &Change) -> Vec<u8> {
    let place = |at: &usize| at % (head.len() + 1);
    match change {
        Change::Insert(at, which) => {
            let at = place(at);
            head.splice(at..at, ADDED[*which].iter().copied());
        }
        Change::Remove(at) => {
            let at = place(at);
            head.drain(at..head.len().min(at + 1));
        }
        Change::Cut(at) => head.truncate(place(at)),
        Change::Double => head.extend_from_within(..),
    }
    head
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// What is read here hyper would read in the same way, to the same end.
    #[test]
    fn what_is_read_hyper_reads_so(came in heads()) {
        let Some(head) = read(&came) else { return Ok(()) };
        let fields = head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
        let mut fields: Vec<_> = fields.collect();
        // A map has fields of one name together.
        fields.sort_by(|one, other| one.0.cmp(&other.0));
        let told = parsed(&came, |status, request| {
            let told = request.headers.iter();
            let told = told.map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec()));
            let mut told: Vec<_> = told.collect();
            told.sort_by(|one, other| one.0.cmp(&other.0));
            let line = (request.method, request.path, request.version);
            let [method, path] = [line.0, line.1].map(|part| part.map(str::to_owned));
            (status, method, path, line.2, told)
        });
        let (status, method, path, version, told) = told.expect("httparse reads it");
        prop_assert_eq!(status, httparse::Status::Complete(came.len()));
        prop_assert_eq!((method.as_deref(), version), (Some("GET"), Some(1)));
        prop_assert_eq!(path, Some(head.uri.to_string()));
        prop_assert_eq!(told, fields);
        for name in ["content-length", "transfer-encoding", "expect", "upgrade"] {
            prop_assert!(!head.headers.contains_key(name));
        }
    }
}
