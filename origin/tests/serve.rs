//! The origin server over real sockets: what an edge may ask, and what it is told.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use nearcast_origin::serve::{self, Config};
use service::Shutdown;
use service::client::Client;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Store;
use tokio::task::JoinHandle;

const VERSION: &str = "00112233445566778899aabbccddeeff";
const WAIT: Duration = Duration::from_secs(10);

fn content() -> Vec<u8> {
    (0..3_000_000u32).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect()
}

/// A store with a published version, one that is not, and their files.
async fn filled(url: &str) -> Store {
    let store = Store::open(url).unwrap();
    store.create().await.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content()).unwrap();
    let other = VERSION.replace('f', "0");
    for key in [format!("titles/film/{VERSION}/v1.mp4"), format!("titles/film/{other}/v1.mp4")] {
        store.put_file(&key, file.path(), Arc::new(|_| {}), &Shutdown::new()).await.unwrap();
    }
    for (key, text) in [
        (format!("titles/film/{VERSION}/index"), "the index"),
        (format!("titles/film/{VERSION}/s-en.vtt"), "WEBVTT\n"),
        (format!("published/film/{VERSION}"), "{}"),
    ] {
        store.put_if_absent(&key, Bytes::from_static(text.as_bytes())).await.unwrap();
    }
    store
}

/// Header fields of a request.
type Fields<'a> = &'a [(&'a str, &'a str)];

/// A running origin.
struct Origin {
    url: String,
    admin: String,
    client: Client,
    shutdown: Shutdown,
    server: JoinHandle<Result<(), nearcast_origin::Error>>,
}

impl Origin {
    async fn start(store: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let announce = dir.path().join("announce");
        let any = "127.0.0.1:0".parse().unwrap();
        let config = Config {
            store: store.to_owned(),
            listen: any,
            admin: any,
            announce: Some(announce.clone()),
        };
        let shutdown = Shutdown::new();
        let server = tokio::spawn(serve::run(config, shutdown.clone()));
        let said = announced(&announce).await;
        let url = said["urls"][0].as_str().unwrap().to_owned();
        let admin = said["admin"].as_str().unwrap().to_owned();
        let client = Client::new(WAIT, None, None).unwrap();
        Self { url, admin, client, shutdown, server }
    }

    async fn ask(&self, method: &str, path: &str, fields: Fields<'_>) -> Response<Bytes> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let response = self.client.send(request.body(Full::default()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }

    async fn stop(self) {
        self.shutdown.trigger();
        tokio::time::timeout(WAIT, self.server).await.unwrap().unwrap().unwrap();
    }
}

async fn announced(path: &Path) -> serde_json::Value {
    let started = Instant::now();
    loop {
        if let Ok(text) = std::fs::read(path) {
            return serde_json::from_slice(&text).unwrap();
        }
        assert!(started.elapsed() < WAIT, "the origin did not announce itself");
        tokio::task::yield_now().await;
    }
}

fn field(response: &Response<Bytes>, name: header::HeaderName) -> &str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

fn path(file: &str) -> String {
    format!("/titles/film/{VERSION}/{file}")
}

#[tokio::test]
async fn ranges_and_conditions_are_answered_as_rfc_9110_says() {
    let _store = filled("mem:conditions").await;
    let origin = Origin::start("mem:conditions").await;
    let all = content();
    let etag = format!("\"{VERSION}-v1.mp4\"");
    let (weak, two) = (format!("W/{etag}"), format!("\"other\", {etag}"));
    let end = all.len();
    let cases: [(Fields, u16, Option<Range<usize>>); 19] = [
        (&[], 200, Some(0..end)),
        (&[("range", "bytes=0-0")], 206, Some(0..1)),
        (&[("range", "bytes=1000-2000999")], 206, Some(1000..2_001_000)),
        (&[("range", "bytes=2999999-")], 206, Some(end - 1..end)),
        (&[("range", "bytes=-5")], 206, Some(end - 5..end)),
        (&[("range", "bytes=2999990-9999999")], 206, Some(end - 10..end)),
        (&[("range", "bytes=3000000-")], 416, None),
        (&[("range", "bytes=-0")], 416, None),
        (&[("range", "bytes=0-1,5-6")], 200, Some(0..end)),
        (&[("range", "lines=1-2")], 200, Some(0..end)),
        (&[("if-none-match", &etag)], 304, Some(0..0)),
        (&[("if-none-match", &weak), ("range", "bytes=0-0")], 304, Some(0..0)),
        (&[("if-none-match", "\"other\"")], 200, Some(0..end)),
        (&[("if-match", &two), ("range", "bytes=0-9")], 206, Some(0..10)),
        (&[("if-match", "*")], 200, Some(0..end)),
        (&[("if-match", &weak)], 412, None),
        (&[("if-match", "\"other\""), ("range", "bytes=0-9")], 412, None),
        (&[("if-range", &etag), ("range", "bytes=7-9")], 206, Some(7..10)),
        (&[("if-range", "\"other\""), ("range", "bytes=7-9")], 200, Some(0..end)),
    ];
    for (fields, status, bytes) in cases {
        let got = origin.ask("GET", &path("v1.mp4"), fields).await;
        assert_eq!(got.status().as_u16(), status, "{fields:?}");
        let head = origin.ask("HEAD", &path("v1.mp4"), fields).await;
        assert_eq!(head.status().as_u16(), status, "HEAD {fields:?}");
        assert!(head.body().is_empty());
        for name in [header::ETAG, header::CONTENT_RANGE] {
            assert_eq!(field(&head, name.clone()), field(&got, name), "HEAD {fields:?}");
        }
        // With 304 it is what the 200 would say, where it is said at all.
        let length = if status == 304 { "3000000" } else { field(&got, header::CONTENT_LENGTH) };
        assert_eq!(field(&head, header::CONTENT_LENGTH), length, "HEAD {fields:?}");
        match bytes {
            None => assert_eq!(field(&got, header::CACHE_CONTROL), "no-store"),
            Some(range) => {
                assert!(got.body()[..] == all[range.clone()], "{fields:?}");
                assert_eq!(field(&got, header::ETAG), etag);
                let immutable = "public, max-age=31536000, immutable";
                assert_eq!(field(&got, header::CACHE_CONTROL), immutable);
                if status == 206 {
                    let wanted = format!("bytes {}-{}/{end}", range.start, range.end - 1);
                    assert_eq!(field(&got, header::CONTENT_RANGE), wanted);
                }
            }
        }
        if status == 416 {
            assert_eq!(field(&got, header::CONTENT_RANGE), format!("bytes */{end}"));
        }
    }
    origin.stop().await;
}

#[tokio::test]
async fn only_what_is_published_is_there() {
    let store = filled("mem:published").await;
    let origin = Origin::start("mem:published").await;
    assert_eq!(origin.ask("GET", &path("index"), &[]).await.body(), "the index");
    let text = origin.ask("GET", &path("s-en.vtt"), &[]).await;
    assert_eq!(field(&text, header::CONTENT_TYPE), "text/vtt");
    let other = VERSION.replace('f', "0");
    let unpublished = format!("/titles/film/{other}/v1.mp4");
    for path in [
        unpublished.clone(),
        path("v2.mp4"),
        path("v1.exe"),
        path("..%2fv1.mp4"),
        path("v1.mp4/more"),
        format!("/titles/Film/{VERSION}/v1.mp4"),
        "/titles/film/short/v1.mp4".to_owned(),
        format!("/published/film/{VERSION}"),
        "/".to_owned(),
    ] {
        let got = origin.ask("GET", &path, &[]).await;
        assert_eq!(got.status(), StatusCode::NOT_FOUND, "{path}");
        let error: serde_json::Value = serde_json::from_slice(got.body()).unwrap();
        assert_eq!(error["code"], "not-found", "{path}");
    }
    let refused = origin.ask("POST", &path("v1.mp4"), &[]).await;
    assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(field(&refused, header::ALLOW), "GET, HEAD");
    // Published a moment later, it is there a moment later.
    let record = format!("published/film/{other}");
    store.put_if_absent(&record, Bytes::from_static(b"{}")).await.unwrap();
    assert_eq!(origin.ask("GET", &unpublished, &[]).await.status(), StatusCode::OK);
    origin.stop().await;
}

#[tokio::test]
async fn many_origins_serve_one_store_and_say_what_they_did() {
    let _store = filled("mem:many").await;
    let origins = [Origin::start("mem:many").await, Origin::start("mem:many").await];
    let mut etags = Vec::new();
    for origin in &origins {
        let got = origin.ask("GET", &path("v1.mp4"), &[]).await;
        assert!(got.body()[..] == content());
        etags.push(field(&got, header::ETAG).to_owned());
        origin.ask("GET", &path("v9.mp4"), &[]).await;
    }
    assert_eq!(etags[0], etags[1]);
    for origin in origins {
        let metrics = format!("{}/metrics", origin.admin);
        let request = Request::get(metrics).body(Full::default()).unwrap();
        let body = origin.client.send(request).await.unwrap().into_body();
        let text = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(text.to_vec()).unwrap();
        for line in [
            "nearcast_origin_requests_total{status=\"200\"} 1",
            "nearcast_origin_requests_total{status=\"404\"} 1",
            "nearcast_origin_sent_bytes_total 3000000",
            "nearcast_origin_store_errors_total 0",
        ] {
            assert!(text.contains(line), "no {line:?} in:\n{text}");
        }
        origin.stop().await;
    }
}

#[tokio::test]
async fn a_store_that_is_gone_is_named_and_no_missing_title() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("store");
    let url = format!("dir:{}", place.display());
    filled(&url).await;
    let origin = Origin::start(&url).await;
    assert_eq!(origin.ask("GET", &path("v1.mp4"), &[]).await.status(), StatusCode::OK);
    std::fs::rename(&place, dir.path().join("away")).unwrap();
    // Also what was not asked before: nobody knows whether it is published.
    for path in [path("v1.mp4"), format!("/titles/other/{VERSION}/v1.mp4")] {
        let got = origin.ask("GET", &path, &[]).await;
        assert_eq!(got.status(), StatusCode::BAD_GATEWAY, "{path}");
        let error: serde_json::Value = serde_json::from_slice(got.body()).unwrap();
        assert_eq!(error["code"], "store-unavailable");
        assert!(!got.body().windows(4).any(|word| word == b"/tmp"), "a path leaks");
    }
    std::fs::rename(dir.path().join("away"), &place).unwrap();
    assert_eq!(origin.ask("GET", &path("v1.mp4"), &[]).await.status(), StatusCode::OK);
    origin.stop().await;
}

#[tokio::test]
async fn a_half_sent_request_on_the_admin_port_does_not_keep_the_origin_from_ending() {
    use tokio::io::AsyncWriteExt;
    let url = "mem:admin-held";
    let _store = filled(url).await;
    let origin = Origin::start(url).await;
    let addr = origin.admin.trim_start_matches("http://");
    let mut held = tokio::net::TcpStream::connect(addr).await.unwrap();
    held.write_all(b"GET /he").await.unwrap();
    origin.shutdown.trigger();
    tokio::time::timeout(WAIT, origin.server).await.unwrap().unwrap().unwrap();
}
