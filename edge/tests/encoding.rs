//! Stories of texts that an edge compresses: once for each coding, for whoever likes it, and
//! never what is not to be touched.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use common::{Answer, Edge, Scripted, Stage, get, head, open, until};
use futures::StreamExt;
use futures::future::join_all;
use futures::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use std::convert::Infallible;
use std::io::Read;

/// A playlist long enough to be compressed.
fn playlist() -> Bytes {
    let line = |number: usize| format!("#EXTINF:4.00000,\nsegment-{number}.m4s\n");
    let lines: String = (0..500).map(line).collect();
    Bytes::from(format!("#EXTM3U\n#EXT-X-VERSION:7\n{lines}"))
}

type Fields = &'static [(&'static str, &'static str)];

/// Comes without a length.
const GROWING: &str = "/growing.m3u8";

/// Known by a date alone.
const DATED: &str = "/dated.vtt";
const MODIFIED: &str = "Mon, 01 Jan 2024 00:00:00 GMT";

/// Begins to come, and never ends.
const SLOW: &str = "/slow";

/// What the origin has: each path is a case.
const HAS: [(&str, Fields); 9] = [
    (DATED, &[("content-type", "text/vtt"), ("last-modified", MODIFIED)]),
    (SLOW, &[("content-type", "application/json"), ("etag", "\"4\"")]),
    (GROWING, &[("content-type", "application/vnd.apple.mpegurl"), ("etag", "\"3\"")]),
    ("/list.m3u8", &[("content-type", "application/vnd.apple.mpegurl"), ("etag", "\"1\"")]),
    ("/no-validator.mpd", &[("content-type", "application/dash+xml")]),
    ("/kept.txt", &[("content-type", "text/plain"), ("cache-control", "max-age=60, no-transform")]),
    ("/video.mp4", &[("content-type", "video/mp4"), ("etag", "\"2\"")]),
    ("/packed.json", &[("content-type", "application/json"), ("content-encoding", "deflate")]),
    ("/private.json", &[("content-type", "application/json"), ("cache-control", "private")]),
];

fn answer(request: &Request) -> Response {
    let path = request.uri().path();
    if path == "/short.json" {
        let fields = [("content-type", "application/json"), ("cache-control", "max-age=60")];
        return (fields, "{}").into_response();
    }
    let path = if path.starts_with(SLOW) { SLOW } else { path };
    let Some((_, has)) = HAS.iter().find(|(known, _)| *known == path) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let mut fields = HeaderMap::new();
    fields.insert("cache-control", HeaderValue::from_static("max-age=60"));
    for (name, value) in *has {
        fields.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if path.starts_with(SLOW) {
        let begins = stream::iter([Ok::<_, Infallible>(playlist())]);
        fields.insert("content-length", HeaderValue::from(8 << 20));
        return (fields, Body::from_stream(begins.chain(stream::pending()))).into_response();
    }
    if path == GROWING {
        let pieces = playlist().chunks(1000).map(Bytes::copy_from_slice).collect::<Vec<_>>();
        let pieces = pieces.into_iter().map(Ok::<_, std::io::Error>);
        return (fields, Body::from_stream(stream::iter(pieces))).into_response();
    }
    (fields, playlist()).into_response()
}

/// From what is stored, with this `Accept-Encoding`.
async fn stored(proxy: &Scripted, path: &str, accepted: &str) -> Answer {
    until("the answer is stored", || async {
        let answer = proxy.get(path, &[("accept-encoding", accepted)]).await;
        answer.verdict().contains("hit-memory").then_some(answer)
    })
    .await
}

async fn done(edge: &Edge, encoding: &str) -> f64 {
    let line =
        format!("nearcast_edge_compressions_total{{encoding=\"{encoding}\",outcome=\"done\"}}");
    edge.metric(&line).await
}

/// The body, decoded by what its head says.
fn decoded(answer: &Answer) -> Vec<u8> {
    let bytes: &[u8] = answer.bytes();
    let mut decoder: Box<dyn Read> = match answer.header("content-encoding") {
        "" => Box::new(bytes),
        "gzip" => Box::new(flate2::read::GzDecoder::new(bytes)),
        "br" => Box::new(brotli::Decompressor::new(bytes, 4096)),
        "zstd" => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
        other => panic!("{other} was not asked for"),
    };
    let mut out = Vec::new();
    decoder.read_to_end(&mut out).unwrap();
    out
}

#[tokio::test]
async fn a_text_is_compressed_once_for_each_coding() {
    let proxy = Scripted::new(answer).await;
    for path in ["/list.m3u8", "/no-validator.mpd", GROWING] {
        // Whatever the first client gets: it is the text.
        let first = proxy.get(path, &[("accept-encoding", "br")]).await;
        assert_eq!(decoded(&first), playlist());
        for (accepted, encoding) in
            [("gzip, deflate, br, zstd", "br"), ("zstd", "zstd"), ("gzip", "gzip")]
        {
            let answer = stored(&proxy, path, accepted).await;
            assert_eq!(answer.header("content-encoding"), encoding, "{path}");
            assert_eq!(answer.header("vary"), "Accept-Encoding");
            assert_eq!(answer.header("content-length"), answer.bytes().len().to_string());
            assert!(answer.bytes().len() < playlist().len() / 4);
            assert_eq!(decoded(&answer), playlist());
        }
        assert_eq!(proxy.times(path), 1);
    }
    let many =
        join_all((0..20).map(|_| proxy.get("/list.m3u8", &[("accept-encoding", "gzip")]))).await;
    assert!(many.iter().all(|answer| answer.header("content-encoding") == "gzip"));
    for encoding in ["br", "zstd", "gzip"] {
        assert_eq!(
            done(&proxy.edge, encoding).await,
            3.0,
            "{encoding}: once for each of three texts"
        );
    }
    proxy.edge.stop().await;
}

/// Texts that an origin sends slowly go out as they are, and others are compressed meanwhile.
#[tokio::test]
async fn texts_that_come_slowly_keep_no_other_from_being_compressed() {
    const MANY: usize = 10;
    let proxy = Scripted::new(answer).await;
    let br = [("accept-encoding", "br")];
    let slow = |number: usize| format!("{}{SLOW}/{number}", proxy.edge.http);
    let urls: Vec<String> = (0..MANY).map(slow).collect();
    let opened = join_all(urls.iter().map(|url| open(url, &br)));
    let others = async {
        until("all are being sent", async || (proxy.asked().len() == MANY).then_some(())).await;
        stored(&proxy, "/list.m3u8", "br").await
    };
    let (opened, other) = futures::join!(opened, others);
    assert_eq!(other.header("content-encoding"), "br");
    assert_eq!(decoded(&other), playlist());
    for mut slow in opened {
        let told = ["content-encoding", "vary"].map(|name| slow.header(name).to_owned());
        assert_eq!((slow.status.as_u16(), told), (200, [String::new(), "Accept-Encoding".into()]));
        assert_eq!(slow.take(playlist().len()).await.unwrap(), playlist());
    }
    proxy.edge.stop().await;
}

/// Who waits for a text gets it as it comes, who asks later gets it encoded: caches on the way can
/// tell one from the other.
#[tokio::test]
async fn a_text_that_is_growing_is_another_than_its_encoded_form() {
    let proxy = Scripted::new(answer).await;
    let told = |answer: &Answer| {
        ["content-encoding", "etag", "vary"].map(|name| answer.header(name).to_owned())
    };
    let growing = proxy.get(GROWING, &[("accept-encoding", "br")]).await;
    assert_eq!(told(&growing), ["", "\"3\"", "Accept-Encoding"]);
    let encoded = stored(&proxy, GROWING, "br").await;
    assert_eq!(told(&encoded), ["br", "W/\"3\"", "Accept-Encoding"]);
    let plain = stored(&proxy, GROWING, "identity").await;
    assert_eq!(told(&plain), told(&growing));
    proxy.edge.stop().await;
}

#[tokio::test]
async fn who_does_not_ask_for_it_gets_the_text_as_it_is() {
    let proxy = Scripted::new(answer).await;
    stored(&proxy, "/list.m3u8", "gzip").await;
    for fields in [&[][..], &[("accept-encoding", "identity")], &[("accept-encoding", "gzip;q=0")]]
    {
        let answer = proxy.get("/list.m3u8", fields).await;
        assert_eq!(answer.header("content-encoding"), "");
        assert_eq!((answer.header("etag"), answer.header("vary")), ("\"1\"", "Accept-Encoding"));
        assert_eq!(answer.bytes(), &playlist());
    }
    // A range is one of the text as it is.
    let part =
        proxy.get("/list.m3u8", &[("accept-encoding", "gzip"), ("range", "bytes=8-15")]).await;
    assert_eq!((part.status.as_u16(), part.header("content-encoding")), (206, ""));
    assert_eq!(part.bytes(), &playlist().slice(8..16));
    assert_eq!(proxy.times("/list.m3u8"), 1);
    proxy.edge.stop().await;
}

/// It and its encoded form have one date and no tag: that is a weak validator (RFC 9110 section
/// 8.8.1).
#[tokio::test]
async fn no_part_of_a_text_goes_on_from_its_encoded_form() {
    let proxy = Scripted::new(answer).await;
    let brotli = ("accept-encoding", "br");
    let encoded = stored(&proxy, DATED, "br").await;
    assert_eq!(
        (encoded.header("content-encoding"), encoded.header("last-modified")),
        ("br", MODIFIED)
    );
    let [range, condition] = [("range", "bytes=8-15"), ("if-range", MODIFIED)];
    for (fields, status) in [
        (&[range, condition, brotli][..], 200),
        (&[range, condition, ("accept-encoding", "identity")], 206),
        (&[range, condition], 206),
        (&[range, brotli], 206),
    ] {
        let answer = proxy.get(DATED, fields).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-encoding")),
            (status, ""),
            "{fields:?}"
        );
    }
    assert_eq!(proxy.times(DATED), 1);
    proxy.edge.stop().await;
}

#[tokio::test]
async fn what_is_not_to_be_touched_is_not() {
    let proxy = Scripted::new(answer).await;
    for path in ["/kept.txt", "/video.mp4", "/packed.json", "/short.json"] {
        let answer = stored(&proxy, path, "gzip, br").await;
        let kept = if path == "/packed.json" { "deflate" } else { "" };
        assert_eq!(answer.header("content-encoding"), kept, "{path}");
        assert_eq!(answer.header("vary"), "", "{path}");
    }
    // What is one client's is passed on as it came.
    let answer = proxy.get("/private.json", &[("accept-encoding", "gzip")]).await;
    assert_eq!((answer.header("content-encoding"), answer.bytes()), ("", &playlist()));
    proxy.edge.stop().await;
}

#[tokio::test]
async fn a_validator_names_the_text_in_any_coding() {
    let proxy = Scripted::new(answer).await;
    let answer = stored(&proxy, "/list.m3u8", "gzip").await;
    assert_eq!(answer.header("etag"), "W/\"1\"");
    for etag in ["W/\"1\"", "\"1\""] {
        for accepted in ["gzip", "identity"] {
            let fields = [("accept-encoding", accepted), ("if-none-match", etag)];
            let again = proxy.get("/list.m3u8", &fields).await;
            assert_eq!(again.status, 304, "{etag} {accepted}");
        }
    }
    // Two nodes' bytes of an encoded text need not be equal: nothing is joined to them.
    let fields = [("accept-encoding", "gzip"), ("range", "bytes=0-9"), ("if-range", "W/\"1\"")];
    let whole = proxy.get("/list.m3u8", &fields).await;
    assert_eq!((whole.status.as_u16(), decoded(&whole)), (200, playlist().to_vec()));
    proxy.edge.stop().await;
}

#[tokio::test]
async fn a_titles_manifests_are_texts_too() {
    let stage = Stage::new().await;
    let url = stage.url("dash.mpd");
    let plain = get(&url, &[]).await;
    assert!(plain.bytes().len() > 1024, "the film's manifest is long enough");
    for encoding in ["br", "zstd", "gzip"] {
        let answer = get(&url, &[("accept-encoding", encoding)]).await;
        assert_eq!(answer.header("content-encoding"), encoding);
        assert_eq!(answer.header("etag"), format!("W/{}", plain.header("etag")));
        assert_eq!(decoded(&answer), plain.bytes().to_vec());
        let fields = [("accept-encoding", encoding), ("if-none-match", answer.header("etag"))];
        assert_eq!(get(&url, &fields).await.status, 304);
    }
    // Media is what it is.
    let segment = get(&stage.url("v1/0.m4s"), &[("accept-encoding", "gzip")]).await;
    assert_eq!((segment.header("content-encoding"), segment.header("vary")), ("", ""));
    let alone = head(Method::HEAD, &url).await;
    assert_eq!(alone.header("content-length"), plain.bytes().len().to_string());
    stage.edge.stop().await;
}

/// A node that asks another one is given the text: once, to encode for its own clients.
#[tokio::test]
async fn a_text_is_stored_once_behind_a_parent_and_its_ranges_are_of_the_text() {
    let by_nodes = |settings| nearcast_edge::Settings {
        peer_listen: vec!["http://127.0.0.1:0".into()],
        ..settings
    };
    let parent = Scripted::with(answer, by_nodes).await;
    let dir = tempfile::tempdir().unwrap();
    // Its own origin is not asked.
    let mut below = common::settings(dir.path(), "http://127.0.0.1:9");
    below.control_plane = None;
    below.id = Some("child".into());
    below.hierarchy.parents =
        vec![upstream::hierarchy::Peer { id: "edge-a".into(), url: parent.edge.peer.clone() }];
    let child = Edge::start(below).await;
    let ask = async |path: &str, fields: &[(&str, &str)]| {
        get(&format!("{}{path}", child.http), &[&[("host", "films.example")], fields].concat())
            .await
    };
    for path in ["/list.m3u8", "/no-validator.mpd", GROWING] {
        for (accepted, encoding) in
            [("br", "br"), ("gzip", "gzip"), ("zstd", "zstd"), ("identity", "")]
        {
            let answer = until("it is stored at the child", || async {
                let answer = ask(path, &[("accept-encoding", accepted)]).await;
                assert_eq!(decoded(&answer), playlist(), "{path} {accepted}");
                let said = answer.headers.get_all("cache-status").iter().next_back();
                let is_hit = said.is_some_and(|said| said.to_str().unwrap().contains("child;hit"));
                is_hit.then_some(answer)
            })
            .await;
            assert_eq!(answer.header("content-encoding"), encoding, "{path}");
        }
        let part = ask(path, &[("accept-encoding", "br"), ("range", "bytes=10-99")]).await;
        assert_eq!((part.status.as_u16(), part.header("content-encoding")), (206, ""), "{path}");
        assert!(part.bytes() == &playlist().slice(10..100), "{path}");
        assert_eq!(parent.times(path), 1, "{path}");
        let url = format!("{}/v1/explain?url=http://films.example{path}", child.admin);
        let told: serde_json::Value = serde_json::from_str(&get(&url, &[]).await.text()).unwrap();
        assert_eq!(told["variants"].as_array().unwrap().len(), 1, "{path}: {told}");
    }
}
