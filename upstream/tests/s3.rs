//! A bucket of a real S3 server, named by the usual AWS variables and
//! `NEARCAST_TEST_S3_BUCKET`. Fails where there is none.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use bytes::Bytes;
use common::*;
use http::Method;
use nearcast_upstream::{Ask, SiteKind};
use store::Store;

fn bucket() -> String {
    std::env::var("NEARCAST_TEST_S3_BUCKET")
        .expect("NEARCAST_TEST_S3_BUCKET names a bucket of a real S3 server")
}

async fn stored(prefix: &str, objects: &[(&str, &str)]) -> Site {
    let store = Store::open(&format!("s3://{}/{prefix}", bucket())).unwrap();
    for (name, text) in objects {
        // Left over from an earlier run, it is the same.
        _ = store.put_if_absent(name, Bytes::copy_from_slice(text.as_bytes())).await;
    }
    site(SiteKind::Proxy, &format!("origins = [\"s3://{}/{prefix}\"]", bucket()))
}

#[tokio::test]
async fn objects_ranges_and_conditions() {
    let site = stored("upstream/plain", &[("film/init.mp4", "0123456789")]).await;
    assert_eq!(site.get("/film/init.mp4").await.unwrap(), (200, "0123456789".into()));
    let mut ranged = ask("/film/init.mp4");
    ranged.fields.insert("range", "bytes=2-4".parse().unwrap());
    let answer = site.upstream.send(ranged).await.unwrap();
    assert_eq!(answer.head.headers["content-range"], "bytes 2-4/10");
    let etag = answer.head.headers["etag"].clone();
    assert_eq!(whole(answer).await.unwrap(), (206, "234".into()));
    let mut known = ask("/film/init.mp4");
    known.fields.insert("if-none-match", etag.clone());
    assert_eq!(site.upstream.send(known).await.unwrap().head.status, 304);
    let mut changed = ask("/film/init.mp4");
    changed.fields.insert("if-match", "\"other\"".parse().unwrap());
    assert_eq!(site.upstream.send(changed).await.unwrap().head.status, 412);
    let mut beyond = ask("/film/init.mp4");
    beyond.fields.insert("range", "bytes=10-".parse().unwrap());
    assert_eq!(site.upstream.send(beyond).await.unwrap().head.status, 416);
    let head = Ask { method: Method::HEAD, ..ask("/film/init.mp4") };
    let head = site.upstream.send(head).await.unwrap();
    assert_eq!(
        (head.head.status.as_u16(), &head.head.headers["content-length"]),
        (200, &"10".parse().unwrap())
    );
    assert_eq!(site.get("/film/none.mp4").await.unwrap().0, 404);
}

#[tokio::test]
async fn odd_names_are_signed_as_they_are_sent() {
    // Names that the store takes; their spellings are what is odd.
    let site = stored("upstream/odd", &[("a.b-c_d/e", "odd")]).await;
    for path in ["/a.b-c_d/e", "/a%2Eb%2Dc%5Fd%2Fe", "/%61.b-c_d/%65?versionId=x&acl"] {
        assert_eq!(site.get(path).await.unwrap(), (200, "odd".into()), "{path}");
    }
    // Not there, but the signature is right: else it would be 403.
    for path in ["/with%20space", "/plus+and&amp", "/%E2%82%AC(1)'*!~", "/a:b@c=d,e;f$g"] {
        assert_eq!(site.get(path).await.unwrap().0, 404, "{path}");
    }
}

#[tokio::test]
async fn a_wrong_secret_is_refused_and_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("credentials");
    let id = std::env::var("AWS_ACCESS_KEY_ID").unwrap();
    let text = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = wrong\n");
    std::fs::write(&path, text).unwrap();
    let text = format!("origins = [\"s3://{}\"]\n[s3]\ncredentials-file = {path:?}", bucket());
    let answer = site(SiteKind::Proxy, &text).upstream.send(ask("/a")).await.unwrap();
    assert_eq!((answer.head.status.as_u16(), answer.storable), (403, false));
    assert_eq!(answer.head.headers["cache-control"], "no-store");
}

#[tokio::test]
async fn a_missing_bucket_is_no_missing_object() {
    bucket();
    let site = site(SiteKind::Proxy, "origins = [\"s3://nearcast-no-such-bucket\"]");
    let fault = site.upstream.send(ask("/a")).await.unwrap_err();
    assert!(fault.to_string().contains("there is no such bucket"), "{fault}");
}

#[tokio::test]
async fn a_health_check_is_signed() {
    drop(stored("upstream/health", &[("ok", "ok")]).await);
    let checked = |path: &str| {
        let check = format!("{{ path = \"{path}\", interval = \"100ms\" }}");
        let origin = format!("s3://{}/upstream/health", bucket());
        site(SiteKind::Proxy, &format!("origins = [{origin:?}]\nhealth-check = {check}"))
    };
    let (well, unwell) = (checked("/ok"), checked("/none"));
    until("unwell", || !unwell.upstream.status()[0].healthy).await;
    assert!(well.upstream.status()[0].healthy);
}
