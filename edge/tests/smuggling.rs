//! Bytes on a raw socket that servers have disagreed about, sent to the real listener: each is
//! refused, or answered and the connection ended, or means one thing. A request hidden in
//! another one's body is never answered.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

#[path = "common/bytes.rs"]
mod bytes;
mod common;
#[path = "common/raw.rs"]
mod raw;

use bytes::{address, answers, exchange, show};
use common::{Edge, Item, Stage, Web, proxy_settings};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use raw::Raw;

/// The hidden request: an answer to it would be one too many.
const HIDDEN: &str = "DELETE /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
const FIRST: &str = "POST /first";
/// The request behind, whose answer is 401 with a code of its own.
const BEHIND: &str = "GET /t/behind HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
/// How a connection went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The first request was refused with this status, and nothing else was read.
    Refused(u16),
    /// The first request was answered, and then the connection ended.
    Answered,
    /// The first request and the one behind it were answered.
    Both,
}

fn end(answers: &[(u16, String)]) -> Option<End> {
    let is_behind =
        |(status, body): &(u16, String)| *status == 401 && body.contains("token-missing");
    match answers {
        // The edge's own answers have a body that names their code.
        [(status, body)] if body.is_empty() => Some(End::Refused(*status)),
        [first] if !is_behind(first) => Some(End::Answered),
        [first, second] if !is_behind(first) && is_behind(second) => Some(End::Both),
        _ => None,
    }
}

fn request(fields: &str, body: &str) -> String {
    format!("POST /first HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
}

/// Each with how it must end; what follows is always [`BEHIND`].
fn corpus() -> Vec<(String, End)> {
    use End::{Answered, Both, Refused};
    let hidden = HIDDEN.len();
    let chunk = format!("{hidden:x}\r\n{HIDDEN}\r\n0\r\n\r\n");
    let of = request;
    let mut all = vec![
        // Well formed: the hidden request is a body.
        (of(&format!("Content-Length: {hidden}\r\n"), HIDDEN), Both),
        (of("Transfer-Encoding: chunked\r\n", &chunk), Both),
        (of("Transfer-Encoding: CHUNKED\r\n", &chunk), Both),
        (of(&format!("Content-Length: {hidden}\r\nContent-Length: {hidden}\r\n"), HIDDEN), Both),
        (of("Upgrade: h2c\r\nConnection: upgrade\r\n", ""), Both),
        (format!("\r\n{}", of("Content-Length: 0\r\n", "")), Both),
        // Both lengths: refused by name (`two_lengths`).
        (of("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", &chunk), Answered),
        (of("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", &chunk), Answered),
        (
            of(
                "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
                &format!("0\r\n\r\n{HIDDEN}"),
            ),
            Answered,
        ),
        // HTTP/1.0 keeps no connection.
        ("GET /first HTTP/1.0\r\n\r\n".to_owned(), Answered),
        // A tunnel that is not given, and a target without a path: refused by the site, the
        // next request begins where it should.
        ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Both),
        ("GET first HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Both),
        // A line may end with LF alone (RFC 9112 section 2.2), for all fields alike.
        (of(&format!("Content-Length: {hidden}\r\n"), HIDDEN).replacen("\r\n", "\n", 4), Both),
        (of("X: a\nTransfer-Encoding: chunked\r\n", &chunk), Both),
    ];
    let lengths = [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 5.0\r\n",
        "Content-Length: 1e1\r\n",
        "Content-Length:\r\n",
        "Content-Length: \u{b}5\r\n",
        "Content-Length: 18446744073709551616\r\n",
    ];
    // More than a body can have.
    all.push((of("Content-Length: 18446744073709551615\r\n", ""), Refused(431)));
    let codings = [
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    ];
    let lines = [
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        "Transfer-Encoding\r\n : chunked\r\n",
        "X: a\r\n Transfer-Encoding: chunked\r\n",
        "X: a\r\n\tfolded\r\n",
        "X: a\rTransfer-Encoding: chunked\r\n",
        "X: a\0b\r\n",
        "X: a\u{7f}b\r\n",
        ": empty\r\n",
        "no colon\r\n",
        "X(: a\r\n",
        "X\u{e4}: a\r\n",
    ];
    for fields in lengths.iter().chain(&codings).chain(&lines) {
        all.push((of(fields, &chunk), Refused(400)));
    }
    for line in [
        "GET /first HTTP/1.2",
        "GET /first HTTP/3.0",
        "GET /first http/1.1",
        "GET /first",
        "GET /fir st HTTP/1.1",
        "GET\t/first HTTP/1.1",
        "GET /first\0 HTTP/1.1",
        "G(T /first HTTP/1.1",
        "GET  HTTP/1.1",
        "GET /first HTTP/1.1 ",
    ] {
        all.push((format!("{line}\r\nHost: a\r\n\r\n"), Refused(400)));
    }
    // A request that is answered although its body will turn out to be broken ends there.
    for chunks in [
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-1\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhelloxx0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "5;a=\n\r\nhello\r\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        &format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(20_000)),
    ] {
        all.push((of("Transfer-Encoding: chunked\r\n", chunks), Answered));
    }
    all
}

#[tokio::test]
async fn what_servers_disagree_about_means_one_thing_or_nothing() {
    let stage = Stage::new().await;
    let address = address(&stage.edge);
    let mut wrong = Vec::new();
    for (first, expected) in corpus() {
        let read = exchange(&address, format!("{first}{BEHIND}").as_bytes(), false).await;
        let answers = answers(&read);
        if end(&answers) != Some(expected) {
            wrong.push(format!(
                "{}: expected {expected:?}, got {answers:?}",
                show(first.as_bytes())
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    stage.edge.stop().await;
}

/// The same through a proxy site: an origin that reads as strictly as can be sees each request
/// once, with its own body, and never the hidden one.
#[tokio::test]
async fn nothing_is_smuggled_to_an_origin() {
    let dir = tempfile::tempdir().unwrap();
    let raw = Raw::start().await;
    let edge = Edge::start(raw::settings(dir.path(), &raw)).await;
    let address = address(&edge);
    for (first, expected) in corpus() {
        let sent = format!("{first}{BEHIND}");
        let read = exchange(&address, sent.as_bytes(), false).await;
        let what = format!("{}: {}", show(sent.as_bytes()), read.escape_ascii());
        let answers = answers(&read);
        let seen = raw.take();
        let lines: Vec<&str> = seen.iter().map(|seen| seen.line.as_str()).collect();
        let whole = |line: &str| seen.iter().any(|seen| seen.line == line && seen.body.is_some());
        assert!(
            lines.iter().all(|line| [FIRST, "GET /first", "GET /t/behind"].contains(line)),
            "{what}"
        );
        let behind = usize::from(whole("GET /t/behind"));
        match expected {
            End::Refused(status) => {
                assert_eq!((answers.len(), answers[0].0, lines.len()), (1, status, 0), "{what}");
            }
            End::Answered => assert_eq!((answers.len(), behind), (1, 0), "{what}"),
            // What the site itself refuses ends the connection, too.
            End::Both => assert_eq!(answers.len(), 1 + behind, "{what}"),
        }
        for seen in seen.iter().filter(|seen| seen.line == FIRST) {
            let hidden = seen
                .body
                .as_deref()
                .is_none_or(|body| [&b""[..], HIDDEN.as_bytes(), b"G"].contains(&body));
            assert!(hidden, "{what}");
            let host = raw.url.strip_prefix("http://").unwrap();
            assert!(seen.fields.contains(&("host".into(), host.into())), "{what}");
            let odd = |(name, _): &(String, String)| {
                ["upgrade", "connection", "x"].contains(&name.as_str())
            };
            let odd = seen.fields.iter().filter(|field| odd(field)).filter(|field| field.1 != "a");
            assert_eq!(odd.count(), 0, "{what}");
        }
    }
    assert_eq!(raw.complaints(), Vec::<String>::new());
    edge.stop().await;
}

/// RFC 9112 section 3.2, whoever would answer: any host's site, that of one host, or titles.
#[tokio::test]
async fn a_request_without_one_good_host_is_refused_and_its_connection_closed() {
    let (dirs, web) = ([(); 2].map(|()| tempfile::tempdir().unwrap()), Web::start().await);
    web.put("/t/behind", Item::of(10));
    let any = proxy_settings(dirs[0].path(), &web.url, &serde_json::json!({}));
    let mut named = proxy_settings(dirs[1].path(), &web.url, &serde_json::json!({}));
    let site = named.sites.remove("*").unwrap();
    named.sites.insert("a".to_owned(), site);
    let (any, named, titles) = (Edge::start(any).await, Edge::start(named).await, Stage::new());
    let titles = titles.await;
    for edge in [&any, &named, &titles.edge] {
        for (hosts, code) in [
            ("", "host-missing"),
            ("X: a\r\n", "host-missing"),
            ("Host: a\r\nHost: a\r\n", "host-twice"),
            ("Host: b\r\nX: 1\r\nHost: a\r\n", "host-twice"),
            ("Host: b\r\nHost: c\r\n", "host-twice"),
            ("Host:\r\n", "host-bad"),
            ("Host: a b\r\n", "host-bad"),
            ("Host: a/b\r\n", "host-bad"),
            ("Host: user@a\r\n", "host-bad"),
            ("Host: a:port\r\n", "host-bad"),
            ("Host: [::1\r\n", "host-bad"),
        ] {
            let bytes = format!("GET /t/behind HTTP/1.1\r\n{hosts}\r\n{BEHIND}");
            let read = exchange(&address(edge), bytes.as_bytes(), false).await;
            let answers = answers(&read);
            let [(status, body)] = &answers[..] else { panic!("{hosts:?}: {answers:?}") };
            assert!(*status == 400 && body.contains(code), "{hosts:?}: {status} {body}");
        }
    }
    assert_eq!(web.count("/t/behind"), 0);
    // HTTP/1.0 knows sites without a name.
    for (edge, status) in [(&any, 200), (&named, 421)] {
        let read = exchange(&address(edge), b"GET /t/behind HTTP/1.0\r\n\r\n", false).await;
        assert!(read.starts_with(format!("HTTP/1.0 {status}").as_bytes()), "{}", show(&read));
    }
}

/// RFC 9110 section 9.3.7: nobody's path, so no site need be named, but a host must be.
#[tokio::test]
async fn what_the_server_can_do_is_told_by_itself() {
    let stage = Stage::new().await;
    for (request, told) in [
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", &[204, 401][..]),
        ("OPTIONS * HTTP/1.1\r\n\r\n", &[400]),
        // A title site has no such path.
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", &[400, 401]),
    ] {
        let bytes = format!("{request}{BEHIND}");
        let read = exchange(&address(&stage.edge), bytes.as_bytes(), false).await;
        let statuses: Vec<u16> = answers(&read).iter().map(|(status, _)| *status).collect();
        assert_eq!(statuses, told, "{request:?}: {}", show(&read));
        let allows = show(&read).to_ascii_lowercase().contains("allow: get, head, options");
        assert_eq!(allows, told[0] == 204, "{}", show(&read));
    }
}

/// No request should have one (RFC 9112 section 3.2). hyper's `Uri` drops it, so that it can't be
/// refused; it makes no copy of its own, and does not reach an origin.
#[tokio::test]
async fn a_fragment_is_no_part_of_what_is_asked_for() {
    let (dir, web) = (tempfile::tempdir().unwrap(), Web::start().await);
    web.put("/a", Item::of(10).field("cache-control", "max-age=60"));
    let edge = Edge::start(proxy_settings(dir.path(), &web.url, &serde_json::json!({}))).await;
    for target in ["/a#b", "/a#c?d", "/a"] {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let read = exchange(&address(&edge), bytes.as_bytes(), false).await;
        assert!(read.starts_with(b"HTTP/1.1 200"), "{target}: {}", show(&read));
    }
    assert_eq!(web.count("/a"), 1);
}

#[tokio::test]
async fn header_bombs_are_refused() {
    let stage = Stage::new().await;
    let address = address(&stage.edge);
    let many: String = (0..101).map(|number| format!("x-{number}: 1\r\n")).collect();
    let long = |bytes: usize| format!("x: {}\r\n", "a".repeat(bytes));
    let cases = [
        (request(&many, ""), 431),
        (request(&long(70 << 10), ""), 431),
        (request(&long(1 << 10).repeat(70), ""), 431),
        (request(&long(4 << 20), ""), 431),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(65_535)), 431),
        (format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(70_000)), 431),
        ("\r\n".repeat(50_000), 431),
    ];
    for (bomb, status) in cases {
        let read = exchange(&address, format!("{bomb}{BEHIND}").as_bytes(), false).await;
        let refused = end(&answers(&read));
        // A bomb that is still being sent when its connection ends may reset the answer away.
        let is_lost = read.is_empty() && bomb.len() > 64 << 10;
        assert!(
            refused == Some(End::Refused(status)) || is_lost,
            "{}: {refused:?}",
            show(bomb.as_bytes())
        );
    }
    stage.edge.stop().await;
}

/// What no request came of is in no other count.
#[tokio::test]
async fn what_cannot_be_read_is_counted() {
    let stage = Stage::new().await;
    let address = address(&stage.edge);
    let count = async |protocol: &str, reason: &str| {
        let labels = format!("{{protocol={protocol:?},reason={reason:?}}}");
        let line = format!("nearcast_edge_requests_unread_total{labels}");
        stage.edge.metric(&line).await
    };
    let many: String = (0..101).map(|number| format!("x-{number}: 1\r\n")).collect();
    let (mut malformed, mut too_large) = (0.0, 0.0);
    for (fields, status) in [
        ("X : b\r\n", 400),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", 400),
        (&many, 431),
        (&format!("x: {}\r\n", "a".repeat(70 << 10)), 431),
    ] {
        // The end of what is sent is read, so no reset overtakes the answer.
        let read = exchange(&address, request(fields, "").as_bytes(), true).await;
        let read = String::from_utf8(read).unwrap();
        let said = "\r\ncache-status: edge-a;detail=\"refused\"\r\n";
        assert!(read.starts_with(&format!("HTTP/1.1 {status} ")) && read.contains(said), "{read}");
        *(if status == 400 { &mut malformed } else { &mut too_large }) += 1.0;
        common::until("the count", || async {
            let counted =
                (count("http/1.1", "malformed").await, count("http/1.1", "too-large").await);
            (counted == (malformed, too_large)).then_some(())
        })
        .await;
    }
    // What is read, and refused by name, is not among them.
    exchange(&address, request("Connection: close\r\n", "").as_bytes(), true).await;
    assert_eq!(count("http/1.1", "malformed").await, malformed);
    stage.edge.stop().await;
}

/// Whatever comes, a connection ends, with answers to no more requests than were sent, the
/// origin has nothing to complain of, and the edge serves on.
#[tokio::test]
async fn mutants_end() {
    let stage = Stage::new().await;
    let dir = tempfile::tempdir().unwrap();
    let raw = Raw::start().await;
    let proxy = Edge::start(raw::settings(dir.path(), &raw)).await;
    let addresses = [address(&stage.edge), address(&proxy)];
    let corpus = corpus();
    for seed in 0..2000 {
        let bytes = mutant(&corpus, seed);
        let read = exchange(&addresses[seed as usize % 2], &bytes, true).await;
        let asked = bytes.windows(5).filter(|five| *five == b"HTTP/").count();
        let answered = answers(&read).len();
        // What can't be read is refused once.
        assert!(answered <= asked + 1, "seed {seed}: {answered} answers to {}", show(&bytes));
        assert_eq!(raw.complaints(), Vec::<String>::new(), "seed {seed}: {}", show(&bytes));
    }
    assert_eq!(stage.get("hls.m3u8").await.status, 200);
    assert_eq!(common::get(&format!("{}/x", proxy.http), &[]).await.status, 200);
    stage.edge.stop().await;
    proxy.stop().await;
}

/// One of the corpus with some bytes changed.
fn mutant(corpus: &[(String, End)], seed: u64) -> Vec<u8> {
    const ODD: &[u8] = b"\r\n\t\0 :;,=+-0123456789abcdefx\x0b\x7f\xff\"/?#%HTP.";
    let mut random = StdRng::seed_from_u64(seed);
    let first = &corpus[random.random_range(0..corpus.len())].0;
    let mut bytes = format!("{first}{BEHIND}").into_bytes();
    for _ in 0..random.random_range(1..6) {
        let place = random.random_range(0..bytes.len());
        let byte = ODD[random.random_range(0..ODD.len())];
        match random.random_range(0..4) {
            0 => bytes[place] = byte,
            1 => bytes.insert(place, byte),
            2 if bytes.len() > 1 => drop(bytes.remove(place)),
            _ => bytes.truncate(place + 1),
        }
    }
    bytes
}
