//! Stories of a player and an edge: what it gets, from where, and how often the origin is asked.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{
    Misdeed, RANGE_BYTES_MAX, Stage, ask, get, get_over, head, now_s, range_bytes, token,
    token_between,
};
use futures::future::join_all;
use http::{Method, StatusCode};

#[tokio::test]
async fn a_segment_is_fetched_once_and_then_comes_from_memory() {
    let stage = Stage::new().await;
    let first = stage.get("v1/2.m4s").await;
    assert_eq!(first.status, 200);
    assert_eq!(first.verdict(), "origin");
    assert_eq!(first.header("cache-status"), "edge-a;fwd=miss;stored;detail=\"origin\"");
    assert_eq!(first.bytes(), &stage.film.segment("v1", 2));
    let again = stage.get("v1/2.m4s").await;
    assert_eq!(again.verdict(), "hit-memory");
    assert_eq!(again.bytes(), first.bytes());
    // Six chunks in one request; the index in another.
    assert_eq!(stage.origin.media().len(), 1);
    assert_eq!(stage.origin.indexes(), 1);
    assert_eq!(again.header("access-control-allow-origin"), "*");
    assert_eq!(again.header("cache-control"), "public, max-age=31536000, immutable");
    assert_eq!(again.header("content-type"), "video/mp4");
}

#[tokio::test]
async fn a_hundred_players_of_one_cold_segment_cost_one_origin_request() {
    let stage = Stage::new().await;
    stage.get("hls.m3u8").await;
    stage.origin.hold(true);
    let players = join_all((0..100).map(|_| stage.get("v1/3.m4s")));
    let release = async {
        common::until("all are in", || async {
            let open = stage.edge.metric("nearcast_edge_connections").await;
            (open >= 100.0 && stage.origin.media().len() == 1).then_some(())
        })
        .await;
        stage.origin.hold(false);
    };
    let (answers, ()) = tokio::join!(players, release);
    let expected = stage.film.segment("v1", 3);
    assert!(answers.iter().all(|answer| answer.bytes() == &expected));
    assert_eq!(stage.origin.media().len(), 1);
    let count = |verdict| answers.iter().filter(|answer| answer.verdict() == verdict).count();
    assert_eq!(count("origin"), 1);
    assert_eq!(count("filling") + count("hit-memory"), 99);
}

#[tokio::test]
async fn manifests_init_segments_and_subtitles() {
    let stage = Stage::new().await;
    let hls = stage.get("hls.m3u8").await;
    assert_eq!(hls.header("content-type"), "application/vnd.apple.mpegurl");
    assert!(hls.text().starts_with("#EXTM3U"));
    assert!(stage.get("v1.m3u8").await.text().contains("v1/7.m4s"));
    let dash = stage.get("dash.mpd").await;
    assert_eq!(dash.header("content-type"), "application/dash+xml");
    assert!(dash.text().contains("<MPD"));
    let init = stage.get("a1/init.mp4").await;
    assert_eq!(init.bytes(), &stage.film.files["a1.mp4"].slice(..1000));
    assert_eq!(init.header("content-type"), "audio/mp4");
    assert_eq!(stage.get("s-en.vtt").await.bytes(), &stage.film.files["s-en.vtt"]);
    assert_eq!(stage.origin.indexes(), 1);
}

#[tokio::test]
async fn every_protocol_gets_the_same_bytes() {
    let stage = Stage::new().await;
    let certificate = stage.edge.dir.join("tls/cert.pem");
    let url = stage.url_at(&stage.edge.https, "v1/5.m4s");
    for protocol in ["http/1.1", "h2", "h3"] {
        let answer = get_over(protocol, &url, &certificate).await;
        assert_eq!(answer.status, 200, "{protocol}");
        assert_eq!(answer.bytes(), &stage.film.segment("v1", 5), "{protocol}");
        let port = stage.edge.https.rsplit(':').next().unwrap();
        assert_eq!(answer.header("alt-svc"), format!("h3=\":{port}\"; ma=86400"), "{protocol}");
        let bad = stage.url_at(&stage.edge.https, "v1/99.m4s");
        assert_eq!(get_over(protocol, &bad, &certificate).await.code(), "no-such-object");
        let line = format!(
            "nearcast_edge_requests_total{{protocol=\"{protocol}\",site=\"titles\",status=\"404\",\
             verdict=\"absent\"}}"
        );
        assert_eq!(stage.edge.metric(&line).await, 1.0);
    }
    assert_eq!(stage.origin.media().len(), 1);
}

#[tokio::test]
async fn ranges_of_a_track_file() {
    let stage = Stage::new().await;
    let file = &stage.film.files["v1.mp4"];
    let (url, last) = (stage.url("v1.mp4"), file.len() - 1);
    let part = |from: usize, to: usize| {
        (Some(file.slice(from..=to)), format!("bytes {from}-{to}/{}", file.len()))
    };
    let table = [
        ("bytes=0-99".to_owned(), part(0, 99)),
        ("bytes=1048570-1048590".to_owned(), part(1_048_570, 1_048_590)),
        (format!("bytes={}-", last - 9), part(last - 9, last)),
        ("bytes=-7".to_owned(), part(last - 6, last)),
        (format!("bytes={}-{}", last, last + 1000), part(last, last)),
        (format!("bytes={}-", last + 1), (None, format!("bytes */{}", file.len()))),
        ("bytes=-0".to_owned(), (None, format!("bytes */{}", file.len()))),
    ];
    for (field, (expected, range)) in table {
        let answer = get(&url, &[("range", &field)]).await;
        assert_eq!(answer.header("content-range"), range, "{field}");
        match expected {
            Some(bytes) => {
                assert_eq!(answer.status, 206, "{field}");
                assert_eq!(answer.bytes(), &bytes, "{field}");
            }
            None => assert_eq!(
                (answer.status, answer.code()),
                (StatusCode::RANGE_NOT_SATISFIABLE, "bad-range".into())
            ),
        }
    }
    for field in ["bytes=9-5", "bytes=0-1,3-4", "lines=1-2"] {
        let answer = get(&url, &[("range", field)]).await;
        assert_eq!(answer.status, 200, "{field}");
        assert_eq!(answer.bytes(), file, "{field}");
    }
    let asked = stage.origin.media();
    assert!(asked.iter().all(|asked| range_bytes(asked) <= RANGE_BYTES_MAX), "{asked:?}");
    // Neighbours together: the two parts at the beginning, the end, and 38 MiB between them, more
    // at a time for who stays.
    assert_eq!(asked.len(), 8, "{asked:?}");
    assert_eq!(asked.iter().map(|asked| range_bytes(asked)).sum::<u64>(), last as u64 + 1);
}

#[tokio::test]
async fn conditional_requests_head_and_preflight() {
    let stage = Stage::new().await;
    for resource in ["v1/1.m4s", "hls.m3u8"] {
        let url = stage.url(resource);
        let whole = get(&url, &[]).await;
        let etag = whole.header("etag").to_owned();
        assert!(etag.starts_with('"'), "{resource}: {etag}");
        let unchanged = get(&url, &[("if-none-match", &etag)]).await;
        assert_eq!((unchanged.status, unchanged.bytes().len()), (StatusCode::NOT_MODIFIED, 0));
        let other = get(&url, &[("if-none-match", "\"other\"")]).await;
        assert_eq!(other.bytes(), whole.bytes());
        let head = head(Method::HEAD, &url).await;
        assert_eq!((head.status, head.bytes().len()), (StatusCode::OK, 0));
        assert_eq!(head.header("content-length"), whole.bytes().len().to_string());
        // RFC 9110 section 14.2: of a GET alone a part is asked for.
        for range in ["bytes=5-9", "bytes=999999999-"] {
            let part = ask(Method::HEAD, &url, &[("range", range)]).await;
            assert_eq!((part.status, part.header("content-range")), (StatusCode::OK, ""));
            assert_eq!(part.header("content-length"), head.header("content-length"));
        }
    }
    let stale = [("range", "bytes=0-9"), ("if-range", "\"other\"")];
    assert_eq!(get(&stage.url("v1/1.m4s"), &stale).await.status, 200);
    let preflight = head(Method::OPTIONS, &stage.url("v1/1.m4s")).await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-methods"), "GET, HEAD, OPTIONS");
    let post = head(Method::POST, &stage.url("v1/1.m4s")).await;
    assert_eq!(
        (post.status, post.header("allow")),
        (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD, OPTIONS")
    );
}

#[tokio::test]
async fn bad_requests_get_their_named_error_and_never_reach_the_origin() {
    let stage = Stage::new().await;
    let (now, version, http) = (now_s(), stage.film.version, &stage.edge.http);
    let path = format!("t/film/{version}/v1/0.m4s");
    let stranger = token::Signer::generate().unwrap();
    let cut = &stage.token[..stage.token.len() - 5];
    let table = [
        (format!("{http}/{path}"), 401, "token-missing"),
        (format!("{http}/~/{path}"), 401, "token-malformed"),
        (format!("{http}/~abc/{path}"), 401, "token-malformed"),
        (format!("{http}/~{cut}/{path}"), 401, "token-malformed"),
        (format!("{http}/~{}/{path}", token(&stranger, "film")), 401, "token-unknown-key"),
        (
            format!(
                "{http}/~{}/{path}",
                token_between(&stage.signer, "film", now - 7200, now - 3600)
            ),
            403,
            "token-expired",
        ),
        (
            format!(
                "{http}/~{}/{path}",
                token_between(&stage.signer, "film", now + 3600, now + 7200)
            ),
            403,
            "token-not-yet",
        ),
        (format!("{http}/~{}/{path}", token(&stage.signer, "other")), 403, "token-wrong-path"),
        (stage.url("v1/0.m4s?x=1"), 400, "bad-parameter"),
        (stage.url("v1/00.m4s"), 400, "bad-path"),
        (stage.url("V1/0.m4s"), 400, "bad-name"),
        (format!("{http}/"), 400, "bad-path"),
        (format!("{http}/~{}", "a".repeat(5000)), 414, "path-too-long"),
    ];
    for (url, status, code) in table {
        let answer = get(&url, &[]).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{url}");
        assert_eq!(answer.verdict(), "refused", "{url}");
    }
    assert_eq!((stage.origin.media().len(), stage.origin.indexes()), (0, 0));
}

#[tokio::test]
async fn what_does_not_exist_is_absent_and_not_asked_for_again_at_once() {
    let stage = Stage::new().await;
    for resource in ["v1/8.m4s", "v9/0.m4s", "s-en.mp4", "v1.vtt", "s-en/init.mp4", "s-en/0.m4s"] {
        let answer = stage.get(resource).await;
        assert_eq!((answer.status.as_u16(), answer.verdict()), (404, "absent"), "{resource}");
    }
    let other = format!("{}/~{}/t/film/{}/hls.m3u8", stage.edge.http, stage.token, "00".repeat(16));
    for _ in 0..5 {
        assert_eq!(get(&other, &[]).await.code(), "no-such-title");
    }
    assert_eq!(stage.origin.indexes(), 2);
}

#[tokio::test]
async fn a_corrupted_byte_is_refetched_and_never_served() {
    let stage = Stage::new().await;
    stage.origin.misbehave(&[Misdeed::Corrupt(2_000_000)]);
    let answer = stage.get("v1/0.m4s").await;
    assert_eq!(answer.bytes(), &stage.film.segment("v1", 0));
    // The first chunk was good, so only the rest was asked for again.
    let asked = stage.origin.media();
    assert_eq!(asked.len(), 2);
    assert!(asked[1].starts_with("v1.mp4 bytes=1048576-"), "{asked:?}");
    assert_eq!(
        stage.edge.metric("nearcast_edge_corrupt_chunks_total{source=\"origin\"}").await,
        1.0
    );

    stage.origin.always(Some(Misdeed::Corrupt(0)));
    let answer = stage.get("a1/0.m4s").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (502, "origin-corrupt"));
    assert_eq!(answer.verdict(), "failed");
    stage.origin.always(None);
    assert_eq!(stage.get("a1/0.m4s").await.bytes(), &stage.film.segment("a1", 0));
}

#[tokio::test]
async fn a_chunk_that_comes_in_parts_and_corrupt_is_given_up() {
    let stage = Stage::new().await;
    stage.origin.always(Some(Misdeed::CorruptAndShort(600_000)));
    let answer = stage.get("v1/0.m4s").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (502, "origin-corrupt"));
    // Two parts of the chunk, and again for each of the two `retries`.
    assert_eq!(stage.origin.media().len(), 6, "{:?}", stage.origin.media());
    stage.origin.always(None);
    assert_eq!(stage.get("v1/0.m4s").await.bytes(), &stage.film.segment("v1", 0));
}

#[tokio::test]
async fn an_origin_that_dies_in_mid_body_cuts_the_player_and_is_no_clean_end() {
    let stage = Stage::new().await;
    stage.get("hls.m3u8").await;
    let certificate = stage.edge.dir.join("tls/cert.pem");
    // The first chunk arrives, nothing after it, at any try.
    let cut = Misdeed::Cut(1_200_000);
    stage.origin.misbehave(&[cut]);
    stage.origin.always(Some(Misdeed::Fail));
    let answer = stage.get("v1/1.m4s").await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.is_err(), "a cut body ended cleanly");
    for protocol in ["h2", "h3"] {
        stage.origin.misbehave(&[cut]);
        let number = if protocol == "h2" { 3 } else { 5 };
        let url = stage.url_at(&stage.edge.https, &format!("v1/{number}.m4s"));
        let answer = get_over(protocol, &url, &certificate).await;
        assert_eq!(answer.status, 200, "{protocol}");
        assert!(answer.body.is_err(), "{protocol}: a cut body ended cleanly");
    }
    // An origin that only stumbles is not noticed.
    stage.origin.always(None);
    stage.origin.misbehave(&[cut]);
    assert_eq!(stage.get("v1/7.m4s").await.bytes(), &stage.film.segment("v1", 7));
}

#[tokio::test]
async fn an_origin_that_fails_or_stalls_has_a_named_error() {
    let stage = Stage::new().await;
    stage.get("hls.m3u8").await;
    stage.origin.always(Some(Misdeed::Fail));
    let answer = stage.get("v1/0.m4s").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (502, "origin-failed"));
    assert!(!answer.text().contains("127.0.0.1"), "the origin's address is nobody's business");
    stage.origin.always(Some(Misdeed::Stall(100)));
    let answer = stage.get("v1/0.m4s").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (504, "origin-slow"));
}

#[tokio::test]
async fn a_track_file_that_the_origin_has_lost_is_its_failure_and_no_unknown_title() {
    let stage = Stage::new().await;
    stage.origin.always(Some(Misdeed::Lose));
    let answer = stage.get("v1/0.m4s").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (502, "origin-failed"));
    assert_eq!(answer.verdict(), "failed");
    stage.origin.always(None);
    stage.origin.misbehave(&[Misdeed::Lose]);
    assert_eq!(stage.get("v1/0.m4s").await.bytes(), &stage.film.segment("v1", 0));
}

#[tokio::test]
async fn the_second_origin_serves_while_the_first_is_gone() {
    let stage = Stage::with(|mut settings| {
        settings.origin.insert(0, "http://127.0.0.1:9".into());
        settings
    })
    .await;
    assert_eq!(stage.get("v1/0.m4s").await.bytes(), &stage.film.segment("v1", 0));
    assert_eq!(stage.origin.media().len(), 1);
}

#[tokio::test]
async fn steering_starts_at_this_edge_and_reloads_at_the_control_plane() {
    let stage = Stage::new().await;
    let answer = stage.get("steering.json?_HLS_pathway=.").await;
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.verdict(), "steering");
    let manifest: serde_json::Value = serde_json::from_slice(answer.bytes()).unwrap();
    assert_eq!(manifest["PATHWAY-PRIORITY"][0], ".");
    assert_eq!(manifest["PATHWAY-CLONES"][0]["ID"], "edge-b");
    let reload = manifest["RELOAD-URI"].as_str().unwrap();
    let expected = format!("http://127.0.0.1:7080/v1/steering/~{}/t/film/", stage.token);
    assert!(reload.starts_with(&expected), "{reload}");
    assert!(reload.ends_with("steering.json?base=edge-a&scheme=http"), "{reload}");
}
