//! A bucket as an origin: what is sent and signed, and what its refusals lead to. (`s3.rs` asks
//! a real server; this one here says what a real one says only at bad times.)
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::*;
use http::Method;
use nearcast_upstream::{Ask, Fault, SiteKind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime};

fn write_keys(path: &Path, id: &str, lives: Option<Duration>) {
    let mut text = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = s3cret\n");
    if let Some(lives) = lives {
        let expires = jiff::Timestamp::try_from(SystemTime::now() + lives).unwrap();
        text += &format!("aws_session_token = token-{id}\nexpiration = {expires}\n");
    }
    let part = path.with_extension("part");
    std::fs::write(&part, text).unwrap();
    std::fs::rename(part, path).unwrap();
}

struct Bucket {
    origin: Origin,
    site: Arc<Site>,
    keys: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

/// A site on `s3://films/v1`, whose server answers with `steps`.
async fn bucket(
    steps: impl Fn(usize, &Seen) -> Vec<Step> + Send + Sync + 'static,
    lives: Option<Duration>,
) -> Bucket {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("credentials");
    write_keys(&keys, "first", lives);
    let origin = Origin::new(steps).await;
    let text = format!(
        "origins = [\"s3://films/v1\"]\n[s3]\nendpoint = {:?}\nregion = \"eu-north-1\"\n\
         credentials-file = {keys:?}\n",
        origin.url()
    );
    let site = Arc::new(site(SiteKind::Proxy, &text));
    Bucket { origin, site, keys, _dir: dir }
}

fn refusal(status: u16, code: &str, fields: &str) -> Vec<Step> {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
    let length = body.len();
    vec![send(format!("HTTP/1.1 {status} X\r\n{fields}Content-Length: {length}\r\n\r\n{body}"))]
}

fn key_of(seen: &Seen) -> String {
    let authorization = seen.field("authorization").unwrap();
    let rest = authorization.split_once("Credential=").unwrap().1;
    rest.split_once('/').unwrap().0.to_owned()
}

#[tokio::test]
async fn only_the_name_the_range_and_conditions_are_sent() {
    let answer = "HTTP/1.1 206 X\r\nx-amz-request-id: 1\r\nx-amz-meta-who: me\r\nETag: \"e\"\r\n\
                  Content-Range: bytes 0-1/5\r\nContent-Length: 2\r\n\r\nhe";
    let b = bucket(move |_, _| vec![send(answer)], Some(Duration::from_secs(3600))).await;
    let mut ask = ask("/a/b%20c+(1).mp4?acl&list-type=2");
    for (name, value) in [
        ("range", "bytes=0-1"),
        ("if-match", "\"e\""),
        ("authorization", "Bearer client"),
        ("cookie", "a=b"),
        ("x-amz-acl", "public-read"),
        ("accept-encoding", "gzip"),
    ] {
        ask.fields.append(name, value.parse().unwrap());
    }
    let answer = b.site.upstream.send(ask).await.unwrap();
    assert!(answer.storable);
    assert_eq!(answer.hop.as_str(), "s3://films/v1");
    let mut fields: Vec<&str> = answer.head.headers.keys().map(|name| name.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["content-length", "content-range", "etag", "x-amz-meta-who"]);
    assert_eq!(whole(answer).await.unwrap(), (206, "he".into()));
    let seen = &b.origin.seen()[0];
    assert_eq!(seen.line, "GET /films/v1/a/b%20c%2B%281%29.mp4 HTTP/1.1");
    let names: Vec<&str> = seen.head.lines().map(|line| line.split_once(':').unwrap().0).collect();
    let mut names = names;
    names.sort_unstable();
    let expected = [
        "authorization",
        "host",
        "if-match",
        "range",
        "x-amz-content-sha256",
        "x-amz-date",
        "x-amz-security-token",
    ];
    assert_eq!(names, expected);
    assert!(seen.field("authorization").unwrap().contains("/eu-north-1/s3/aws4_request"));
    assert_eq!(seen.field("x-amz-security-token"), Some("token-first"));
}

#[tokio::test]
async fn all_spellings_of_a_name_are_one() {
    let b = bucket(|_, _| ok("x"), None).await;
    for path in ["/a/b", "/a%2Fb", "/%61/b", "/a/%62?x=1"] {
        b.site.get(path).await.unwrap();
        assert_eq!(b.site.upstream.canonical_path(path).as_deref(), Some("/a/b"));
    }
    assert!(b.origin.seen().iter().all(|seen| seen.line == "GET /films/v1/a/b HTTP/1.1"));
}

#[tokio::test]
async fn nothing_but_reading_an_object_reaches_the_bucket() {
    let b = bucket(|_, _| ok("x"), None).await;
    for path in ["/", "/?list-type=2", "/../other/a", "/%2e%2e/a", "/a/%2e%2e/%2e%2e/x", "/a%00"] {
        let fault = b.site.upstream.send(ask(path)).await.unwrap_err();
        assert!(matches!(fault, Fault::NotFound { .. }), "{path}: {fault}");
    }
    for method in [Method::PUT, Method::DELETE, Method::POST, Method::OPTIONS] {
        let fault = b.site.upstream.send(Ask { method, ..ask("/a") }).await.unwrap_err();
        assert!(matches!(fault, Fault::Refused { .. }), "{fault}");
    }
    assert_eq!(b.origin.count(), 0);
}

#[tokio::test]
async fn a_refusal_may_be_kept_by_nobody() {
    let fields = "Cache-Control: max-age=60\r\nCDN-Cache-Control: max-age=60\r\nx-amz-id-2: x\r\n";
    let b = bucket(move |_, _| refusal(403, "AccessDenied", fields), None).await;
    let answer = b.site.upstream.send(ask("/secret%2Fa")).await.unwrap();
    assert!(!answer.storable);
    assert_eq!(answer.head.headers["cache-control"], "no-store");
    assert!(!answer.head.headers.contains_key("cdn-cache-control"));
    assert!(!answer.head.headers.contains_key("x-amz-id-2"));
    assert_eq!(whole(answer).await.unwrap().0, 403);
    assert_eq!(b.origin.count(), 1, "a refusal is not asked for twice");
}

#[tokio::test]
async fn a_missing_bucket_is_no_missing_object() {
    let b = bucket(|_, _| refusal(404, "NoSuchKey", ""), None).await;
    let answer = b.site.upstream.send(ask("/a")).await.unwrap();
    assert!(answer.storable && answer.head.status == 404);
    let b = bucket(|_, _| refusal(404, "NoSuchBucket", ""), None).await;
    let fault = b.site.upstream.send(ask("/a")).await.unwrap_err();
    assert!(fault.to_string().contains("no such bucket"), "{fault}");
}

/// Nor a redirect for viewers, or a fault of the keys.
#[tokio::test]
async fn a_bucket_in_another_region_is_told_by_its_name() {
    const REGION: &str = "x-amz-bucket-region: eu-west-1\r\n";
    let named = "the bucket is in region \"eu-west-1\", and is asked in \"eu-north-1\"";
    let elsewhere = "Location: http://films.s3.example/\r\n";
    for (status, code, fields, told) in [
        (301, "PermanentRedirect", REGION, named),
        (400, "AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region><Code>", "", named),
        // To HEAD.
        (400, "", REGION, named),
        (307, "TemporaryRedirect", elsewhere, "TemporaryRedirect (\"http://films.s3.example/\")"),
    ] {
        let b = bucket(move |_, _| refusal(status, code, fields), None).await;
        let fault = b.site.upstream.send(ask("/a")).await.unwrap_err();
        assert!(fault.to_string().contains(told), "{status} {code}: {fault}");
        assert_eq!(b.site.metric("key_refusals_total", &[]), 0.0);
    }
    // What a server says of an object is given on.
    for (status, code) in [(302, ""), (307, ""), (400, "AuthorizationHeaderMalformed")] {
        let b = bucket(move |_, _| refusal(status, code, "Location: /b\r\n"), None).await;
        let answer = b.site.upstream.send(ask("/a")).await.unwrap();
        assert_eq!(answer.head.status, status);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_were_revoked_are_asked_for_once_more_by_one() {
    let revoked = Arc::new(AtomicBool::new(false));
    let now = revoked.clone();
    let steps = move |_: usize, seen: &Seen| {
        let old = key_of(seen) == "first" && now.load(SeqCst);
        if old { refusal(400, "ExpiredToken", "") } else { ok("x") }
    };
    let b = bucket(steps, Some(Duration::from_secs(3600))).await;
    b.site.get("/a").await.unwrap();
    revoked.store(true, SeqCst);
    write_keys(&b.keys, "second", Some(Duration::from_secs(3600)));
    let get = |site: Arc<Site>| tokio::spawn(async move { site.get("/a").await });
    let tasks: Vec<_> = (0..50).map(|_| get(b.site.clone())).collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), (200, "x".into()));
    }
    assert_eq!(b.site.metric("credential_refreshes_total", &[("outcome", "good")]), 2.0);
}

/// A file, once a second: as many requests as there are cost the bucket no second one each.
#[tokio::test]
async fn keys_that_stay_refused_are_not_asked_for_each_time() {
    let b = bucket(|_, _| refusal(400, "ExpiredToken", ""), Some(Duration::from_secs(3600))).await;
    let began = Instant::now();
    for _ in 0..10 {
        assert_eq!(b.site.get("/a").await.unwrap().0, 400);
    }
    let may = 2.0 + began.elapsed().as_secs_f64().floor();
    let refreshes = b.site.metric("credential_refreshes_total", &[]);
    assert!((2.0..=may).contains(&refreshes), "{refreshes} of {may}");
    assert_eq!(b.origin.count(), 10);
    assert_eq!(b.site.metric("key_refusals_total", &[("reason", "expired")]), 10.0);
}

/// Deactivated before there were new ones; these are in the file a while later.
#[tokio::test]
async fn new_keys_are_read_soon_after_the_old_were_refused_in_vain() {
    let steps = |_: usize, seen: &Seen| match key_of(seen).as_str() {
        "first" => refusal(403, "InvalidAccessKeyId", ""),
        _ => ok("x"),
    };
    let b = bucket(steps, None).await;
    assert_eq!(b.site.get("/a").await.unwrap().0, 403);
    write_keys(&b.keys, "second", None);
    let began = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    while b.site.get("/a").await.unwrap().0 != 200 {
        assert!(began.elapsed() < Duration::from_secs(20), "they are not read");
        pace.tick().await;
    }
    println!("read after {} ms", began.elapsed().as_millis());
}

/// The old ones may be good for all else.
#[tokio::test]
async fn keys_are_used_on_while_no_others_can_be_had() {
    let steps = |_: usize, seen: &Seen| match seen.line.contains("/odd") {
        true => refusal(403, "InvalidToken", ""),
        false => ok("x"),
    };
    let b = bucket(steps, Some(Duration::from_secs(3600))).await;
    assert_eq!(b.site.get("/a").await.unwrap().0, 200);
    std::fs::remove_file(&b.keys).unwrap();
    assert_eq!(b.site.get("/odd").await.unwrap().0, 403);
    assert_eq!(b.site.metric("credential_refreshes_total", &[("outcome", "failed")]), 1.0);
    assert_eq!(b.site.get("/a").await.unwrap(), (200, "x".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_expire_under_load_are_renewed_by_one() {
    let lives = Duration::from_secs(2);
    let b = bucket(|_, _| ok("x"), Some(lives)).await;
    b.site.get("/a").await.unwrap();
    write_keys(&b.keys, "second", Some(Duration::from_secs(3600)));
    let get = |site: Arc<Site>| {
        tokio::spawn(async move {
            let deadline = Instant::now() + Duration::from_secs(30);
            loop {
                site.get("/a").await.unwrap();
                if site.metric("credential_refreshes_total", &[]) >= 2.0 {
                    return;
                }
                assert!(Instant::now() < deadline, "never renewed");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    };
    let tasks: Vec<_> = (0..20).map(|_| get(b.site.clone())).collect();
    for task in tasks {
        task.await.unwrap();
    }
    b.site.get("/last").await.unwrap();
    assert_eq!(key_of(b.origin.seen().last().unwrap()), "second");
    assert_eq!(b.site.metric("credential_refreshes_total", &[]), 2.0);
}

#[tokio::test]
async fn expired_keys_sign_nothing() {
    let b = bucket(|_, _| ok("x"), Some(Duration::ZERO)).await;
    let fault = b.site.upstream.send(ask("/a")).await.unwrap_err();
    assert!(fault.to_string().contains("expired"), "{fault}");
    assert_eq!(b.origin.count(), 0);
}

#[tokio::test]
async fn the_servers_clock_is_taken_when_ours_is_wrong() {
    let at = "Date: Sun, 22 Nov 2026 09:00:00 GMT\r\n";
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let at = at.replace("Sun, 22 Nov 2026 09:00:00 GMT", &httpdate::fmt_http_date(hour_ago));
    let steps = move |n: usize, _: &Seen| {
        if n == 0 { refusal(403, "RequestTimeTooSkewed", &at) } else { ok("x") }
    };
    let b = bucket(steps, None).await;
    assert_eq!(b.site.get("/a").await.unwrap(), (200, "x".into()));
    let dates: Vec<String> =
        b.origin.seen().iter().map(|seen| seen.field("x-amz-date").unwrap().to_owned()).collect();
    assert!(dates[1] < dates[0], "{dates:?}");
}

#[tokio::test]
async fn a_busy_bucket_is_asked_again_within_limits() {
    let steps = |n: usize, _: &Seen| if n < 2 { refusal(503, "SlowDown", "") } else { ok("x") };
    let b = bucket(steps, None).await;
    assert_eq!(b.site.get("/a").await.unwrap(), (200, "x".into()));
    let b = bucket(|_, _| refusal(503, "SlowDown", ""), None).await;
    assert_eq!(b.site.get("/a").await.unwrap().0, 503);
    assert_eq!(b.origin.count(), 3);
}

#[tokio::test]
async fn a_public_bucket_is_asked_without_a_signature() {
    let origin = Origin::saying("x").await;
    let text = format!(
        "origins = [\"s3://films\"]\n[s3]\nendpoint = {:?}\nanonymous = true\n",
        origin.url()
    );
    site(SiteKind::Proxy, &text).get("/a").await.unwrap();
    assert_eq!(origin.seen()[0].line, "GET /films/a HTTP/1.1");
    assert_eq!(origin.seen()[0].field("authorization"), None);
}
