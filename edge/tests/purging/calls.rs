//! Calls to the admin port that are not purges of what is stored: explanations, mistakes, strangers.

use crate::common::DEADLINE;
use crate::stage::Stage;
use bytes::Bytes;
use http::StatusCode;
use model::admin::{ChunkPlace, Explanation};
use model::api::ApiError;
use serde_json::json;
use service::client::{Client, Error};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A title's URL is explained as well; what is on the planned tier and in memory is told apart.
#[tokio::test]
async fn a_titles_url_is_explained_without_its_token() {
    let stage = crate::common::Stage::new().await;
    let admin = Client::new(DEADLINE, None, None).unwrap();
    let explain = async |url: String| {
        let url = format!("{}/v1/explain?url={url}", stage.edge.admin);
        admin.get_json::<Explanation>(&url).await
    };
    let track = &stage.film.index.tracks[0];
    let file = format!("{}.mp4", track.facts.id);
    let told = explain(stage.url(&file)).await.unwrap();
    assert!(!told.url.contains(&stage.token) && told.url.ends_with(&file), "{}", told.url);
    let media = told.title.unwrap().media.unwrap();
    assert!(media.chunks.iter().all(|run| run.place == ChunkPlace::Absent), "{media:?}");
    assert_eq!((media.first, media.count), (0, track.facts.file_bytes));

    stage.get(&file).await.bytes();
    let without_token = stage.url(&file).replace(&format!("~{}/", stage.token), "");
    let told = explain(without_token).await.unwrap();
    let media = told.title.unwrap().media.unwrap();
    assert!(media.chunks.iter().all(|run| run.place == ChunkPlace::Memory), "{media:?}");
    assert_eq!(told.site, "titles");
    let manifest = explain(stage.url("hls.m3u8")).await.unwrap();
    assert_eq!(manifest.title.unwrap().media, None);
    let error = explain(stage.url("none.mp4")).await.unwrap_err().to_string();
    assert!(error.contains("no such track"), "{error}");
}

#[tokio::test]
async fn a_purge_of_nothing_that_could_be_stored_is_refused_by_name() {
    let stage = Stage::new().await;
    for (request, wanted) in [
        (json!({}), "exactly one of url, prefix, tag and all"),
        (json!({ "url": "http://films.test/a", "all": true }), "exactly one"),
        (json!({ "url": "films.test/a" }), "url: \\\"films.test/a\\\": expected http://"),
        (json!({ "url": "http://films.test/%zz" }), "url: "),
        (json!({ "prefix": "ftp://films.test/" }), "prefix: "),
        (json!({ "tag": "" }), "tag: is empty"),
        (json!({ "all": true, "site": "films" }), "site: \\\"films\\\" is none of *"),
        (json!({ "tags": "season-1" }), "unknown field `tags`"),
    ] {
        let error = stage.purge(request).await.unwrap_err().to_string();
        assert!(error.contains("400 Bad Request") && error.contains(wanted), "{error}");
    }
    assert_eq!(stage.edge.metric("nearcast_edge_purges_kept").await, 0.0);
}

/// What a web page may send to any address without asking first: a form.
#[tokio::test]
async fn a_page_in_a_browser_can_purge_nothing() {
    let stage = Stage::new().await;
    let request = http::Request::post(format!("{}/v1/purge", stage.edge.admin))
        .header("content-type", "text/plain")
        .body(http_body_util::Full::new(Bytes::from_static(b"{\"all\": true}")));
    let answer = stage.admin.send(request.unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn a_call_that_is_too_long_is_told_so_as_any_mistake_is() {
    let stage = Stage::new().await;
    let refused = stage.purge(json!({ "tag": "t".repeat(64 << 10) })).await;
    let Err(Error::Status { status, body, .. }) = refused else { panic!("{refused:?}") };
    let told: ApiError = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &*told.code), (StatusCode::PAYLOAD_TOO_LARGE, "too-large"));
    assert!(told.message.contains("expected at most 65536 bytes"), "{}", told.message);
}

/// It goes on sending after the answer (RFC 9112 section 9.6).
#[tokio::test]
async fn a_caller_that_sends_more_than_is_taken_hears_so_and_is_not_reset() {
    let stage = Stage::new().await;
    let admin = stage.edge.admin.strip_prefix("http://").unwrap();
    let mut caller = TcpStream::connect(admin).await.unwrap();
    let head = "POST /v1/purge HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                content-length: 300000\r\n\r\n";
    caller.write_all(&[head.as_bytes(), &[b' '; 240_000]].concat()).await.unwrap();
    let mut first = [0; 12];
    caller.read_exact(&mut first).await.unwrap();
    assert_eq!(first, *b"HTTP/1.1 413");
    caller.write_all(&[b' '; 10_000]).await.unwrap();
    let mut rest = Vec::new();
    caller.read_to_end(&mut rest).await.expect("an end, no reset");
}
