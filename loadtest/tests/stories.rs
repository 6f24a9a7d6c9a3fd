//! Stories of plays over real sockets: all bytes right by every protocol and both formats, and
//! an edge that dies in any way is left without losing a segment.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod world;

use nearcast_loadtest::{
    Client, Error, Format, PlayOptions, PlayReport, Protocol, SegmentReport, Tracks, play,
};
use std::sync::Arc;
use std::time::Duration;
use world::edge::{Edge, Fault, playback};
use world::title::{SEGMENTS, Title};

const FIRST_BYTE_MAX: Duration = Duration::from_millis(400);
/// Generous: the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(30);

fn options(title: &Title, edges: &[&Edge], format: Format, protocol: Protocol) -> PlayOptions {
    PlayOptions {
        playback: playback(title, edges, "http://127.0.0.1:9/steering.json?base=edge-a"),
        format,
        protocol,
        ca_pem: edges.iter().map(|edge| edge.pem.clone()).collect(),
        tracks: Tracks::All,
        first_byte_max: FIRST_BYTE_MAX,
        paced: false,
    }
}

/// Plays, and checks each body against the title.
async fn watch(title: &Title, options: PlayOptions) -> (PlayReport, Vec<SegmentReport>) {
    let mut seen = Vec::new();
    let mut wrong = Vec::new();
    let mut check = |segment: &SegmentReport, body: &bytes::Bytes| {
        if title.body(&segment.path).as_ref() != Some(body) {
            wrong.push(segment.path.clone());
        }
        seen.push(segment.clone());
    };
    let report = tokio::time::timeout(DEADLINE, play(options, &mut check)).await.unwrap().unwrap();
    assert!(wrong.is_empty(), "wrong bytes at {wrong:?}");
    (report, seen)
}

/// Init and segments of four tracks, and one text.
const BODIES: u64 = 4 * (SEGMENTS + 1) + 1;

#[tokio::test]
async fn every_byte_is_right_by_every_protocol_and_format() {
    let title = Arc::new(Title::new());
    for protocol in Protocol::ALL {
        let edge = Edge::start("edge-a", "127.0.0.2", protocol, &title).await;
        for format in [Format::Hls, Format::Dash] {
            let (report, seen) = watch(&title, options(&title, &[&edge], format, protocol)).await;
            assert!(report.ended, "{protocol} {format:?}: {report:?}");
            assert_eq!((report.segments, report.failed_segments), (BODIES, 0), "{report:?}");
            assert_eq!(report.protocols.get(protocol.alpn()), Some(&BODIES));
            assert_eq!(report.verdicts.get("hit-memory"), Some(&BODIES));
            assert!(report.start_to_first_segment.unwrap() < report.elapsed);
            assert!(seen.iter().all(|segment| segment.edge == edge.address.to_string()));
            assert!(seen.iter().all(|segment| segment.path.starts_with("/t/film/")));
        }
    }
}

#[tokio::test]
async fn one_of_each_track_cycles_through_the_renditions() {
    let title = Arc::new(Title::new());
    let edge = Edge::start("edge-a", "127.0.0.2", Protocol::H1, &title).await;
    let mut options = options(&title, &[&edge], Format::Hls, Protocol::H1);
    options.tracks = Tracks::One;
    let (report, seen) = watch(&title, options).await;
    assert_eq!(report.segments, 2 + SEGMENTS + 1 + SEGMENTS + 1);
    let has = |end: &str| seen.iter().any(|segment| segment.path.ends_with(end));
    assert!(has("v1/0.m4s") && has("v2/1.m4s") && !has("v2/0.m4s") && !has("v1/1.m4s"));
    assert!(has("a-en/0.m4s") && !has("a-de/0.m4s") && has("s-en.vtt"));
}

#[tokio::test]
async fn an_edge_that_fails_in_any_way_is_left_for_the_next_one() {
    let title = Arc::new(Title::new());
    let faults = [Fault::Silent, Fault::Frozen, Fault::Cut, Fault::Busy];
    for protocol in Protocol::ALL {
        for fault in faults {
            let first = Edge::start("edge-a", "127.0.0.2", protocol, &title).await;
            let second = Edge::start("edge-b", "127.0.0.3", protocol, &title).await;
            first.fail(10, fault);
            let options = options(&title, &[&first, &second], Format::Dash, protocol);
            let (report, seen) = watch(&title, options).await;
            let what = format!("{protocol} {fault:?}: {report:?}");
            assert!(report.ended && report.failed_segments == 0, "{what}");
            assert_eq!(report.segments, BODIES, "{what}");
            // The manifest and nine bodies came from the first edge, then none did.
            assert_eq!((first.requests(), second.requests()), (11, BODIES - 9), "{what}");
            assert_eq!(report.failovers.len(), 1, "{what}");
            let waits = matches!(fault, Fault::Silent | Fault::Frozen);
            assert_eq!(report.failovers[0] >= FIRST_BYTE_MAX, waits, "{what}");
            assert!(seen[9].failed_over && seen[9].failover == Some(report.failovers[0]));
            assert!(!seen[10].failed_over && seen[10].edge == second.address.to_string());
            assert_eq!(report.errors.len(), 1, "{what}");
            assert!(!report.errors[0].contains("secret"), "{what}");
        }
    }
}

#[tokio::test]
async fn an_edge_that_is_gone_from_the_start_is_left_at_the_manifest() {
    let title = Arc::new(Title::new());
    let gone = Edge::start("edge-a", "127.0.0.2", Protocol::H1, &title).await;
    let second = Edge::start("edge-b", "127.0.0.3", Protocol::H1, &title).await;
    let options = options(&title, &[&gone, &second], Format::Hls, Protocol::H1);
    gone.stop().await;
    let (report, _) = watch(&title, options).await;
    assert_eq!((report.segments, report.failed_segments), (BODIES, 0));
    assert_eq!(report.failovers.len(), 1);
    assert_eq!(report.edges.get(&second.address.to_string()), Some(&BODIES));
}

#[tokio::test]
async fn when_all_fail_steering_names_the_order() {
    let title = Arc::new(Title::new());
    let first = Edge::start("edge-a", "127.0.0.2", Protocol::H1, &title).await;
    let port = first.address.port();
    // A steering service that also revives the edges: each is asked again, clone first.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let steering = format!("http://{}/steering.json?base=edge-a", listener.local_addr().unwrap());
    let mut options = options(&title, &[&first], Format::Hls, Protocol::H1);
    options.playback.steering = steering;
    first.fail(12, Fault::Busy);
    let body = concat!(
        r#"{"VERSION":1,"TTL":30,"RELOAD-URI":"x.json?base=edge-a","#,
        r#""PATHWAY-PRIORITY":["edge-b","."],"PATHWAY-CLONES":[{"BASE-ID":".","ID":"edge-b","#,
        r#""URI-REPLACEMENT":{"HOST":"127.0.0.3"}}]}"#
    );
    let service = async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let read = socket.read(&mut request).await.unwrap();
        first.recover();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        socket.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        String::from_utf8_lossy(&request[..read]).into_owned()
    };
    let ((report, _), asked) = tokio::join!(watch(&title, options), service);
    assert!(asked.starts_with("GET /steering.json?base=edge-a "), "{asked}");
    assert!(report.ended && report.failed_segments == 0, "{report:?}");
    // Busy, then the clone (nobody listens there), then the base again.
    let clone = format!("127.0.0.3:{port} can't be reached");
    assert_eq!(report.errors.len(), 2, "{report:?}");
    assert!(report.errors[1].contains(&clone), "{report:?}");
    assert_eq!(report.failovers.len(), 1);
}

#[tokio::test]
async fn segments_that_nobody_serves_are_counted_and_end_the_play() {
    let title = Arc::new(Title::new());
    let edge = Edge::start("edge-a", "127.0.0.2", Protocol::H1, &title).await;
    edge.fail(9, Fault::Busy);
    let (report, _) = watch(&title, options(&title, &[&edge], Format::Dash, Protocol::H1)).await;
    assert_eq!((report.ended, report.segments, report.failed_segments), (false, 8, 3));
}

#[tokio::test]
async fn a_play_without_a_usable_answer_is_an_error_with_a_name() {
    let title = Arc::new(Title::new());
    let edge = Edge::start("edge-a", "127.0.0.2", Protocol::H1, &title).await;
    let none = options(&title, &[&edge], Format::Hls, Protocol::H2);
    let error = play(none, &mut |_, _| {}).await.unwrap_err();
    assert_eq!(error, Error::NoEdge { scheme: "https" });
    let mut unknown = options(&title, &[&edge], Format::Hls, Protocol::H1);
    unknown.playback.hls[0] = unknown.playback.hls[0].replace("film", "other");
    unknown.playback.hls[0].push('x');
    let error = play(unknown, &mut |_, _| {}).await.unwrap_err();
    assert!(matches!(error, Error::Status { status: 404, .. }), "{error}");
}

#[tokio::test]
async fn a_certificate_that_was_not_given_is_refused() {
    let title = Arc::new(Title::new());
    let edge = Edge::start("edge-a", "127.0.0.2", Protocol::H2, &title).await;
    let other = Edge::start("edge-b", "127.0.0.3", Protocol::H2, &title).await;
    let client = |pem: &[u8]| Client::new(Protocol::H2, &[pem.to_vec()], FIRST_BYTE_MAX);
    let refused = client(&other.pem).unwrap().get(&edge.url(), &[]).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Unavailable { reason, .. } if reason.contains("certificate"))
    );
    assert!(matches!(client(b"nonsense"), Err(Error::Tls(_))));
}

#[tokio::test]
async fn ranges_and_statuses_are_answers_and_connections_are_used_again() {
    let title = Arc::new(Title::new());
    for protocol in Protocol::ALL {
        let edge = Edge::start("edge-a", "127.0.0.2", protocol, &title).await;
        let client =
            Client::new(protocol, std::slice::from_ref(&edge.pem), FIRST_BYTE_MAX).unwrap();
        let missing = client.get(&format!("{}/nothing", edge.url()), &[]).await.unwrap();
        assert_eq!((missing.status, missing.body.as_ref()), (404, b"no such path".as_slice()));
        let first = missing.first_byte;
        assert!(first <= missing.total);
        // Many at once share connections or open new ones; all bodies arrive whole.
        let path = format!("/t/film/{}/v1/3.m4s", title.version);
        let url = format!("{}/~secret{path}", edge.url());
        let gets = (0..16).map(|_| client.get(&url, &[("accept", "*/*")]));
        for fetched in futures::future::join_all(gets).await {
            let fetched = fetched.unwrap();
            assert_eq!(Some(fetched.body), title.body(&path));
            assert_eq!(fetched.protocol, protocol.alpn());
        }
        let wrong = client.get("gopher://x/", &[]).await.unwrap_err();
        assert!(matches!(wrong, Error::BadUrl { .. }));
    }
}
