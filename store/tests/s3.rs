//! The S3 store against a real S3 server, named by the usual AWS variables and
//! `NEARCAST_TEST_S3_BUCKET` (an empty bucket). Fails where there is none.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod conformance;

use bytes::Bytes;
use nearcast_store::{Error, S3Settings, Store};

fn bucket() -> String {
    std::env::var("NEARCAST_TEST_S3_BUCKET")
        .expect("NEARCAST_TEST_S3_BUCKET names an empty bucket of a real S3 server")
}

fn url(prefix: &str) -> String {
    format!("s3://{}/{prefix}", bucket())
}

/// The server's settings, with a change.
fn with(change: impl FnOnce(&mut S3Settings)) -> S3Settings {
    let mut settings = S3Settings::from_env();
    assert!(settings.endpoint.is_some(), "AWS_ENDPOINT_URL names a real S3 server");
    change(&mut settings);
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_conforms() {
    conformance::conforms(&Store::open(&url("conformance/deep")).unwrap()).await;
    // A prefix keeps stores apart.
    let other = Store::open(&url("conformance/de")).unwrap();
    assert_eq!(other.list("").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_goes_on_past_one_page() {
    let store = Store::open(&url("pages")).unwrap();
    let put = |n| {
        let store = store.clone();
        async move { store.put_if_absent(&format!("p/{n:04}"), Bytes::new()).await.unwrap() }
    };
    use futures::StreamExt;
    futures::stream::iter((0..1005).map(put)).buffer_unordered(16).collect::<Vec<_>>().await;
    assert_eq!(store.list("p/").await.unwrap().len(), 1005);
}

#[tokio::test]
async fn a_wrong_secret_is_refused_and_not_repeated() {
    let secret = "not-the-secret-at-all";
    let settings = with(|settings| settings.secret_access_key = Some(secret.to_owned()));
    let store = Store::open_s3(&url("refused"), &settings).unwrap();
    for error in [
        store.put_if_absent("a", Bytes::new()).await.unwrap_err(),
        store.get("a", 1).await.unwrap_err(),
        store.head("a").await.unwrap_err(),
        store.list("").await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::Refused { .. }), "{error}");
        assert!(!error.to_string().contains(secret), "{error}");
    }
}

#[tokio::test]
async fn a_missing_bucket_is_no_missing_object() {
    bucket();
    let store = Store::open("s3://nearcast-no-such-bucket/a").unwrap();
    for error in [
        store.put_if_absent("a", Bytes::new()).await.unwrap_err(),
        store.get("a", 1).await.unwrap_err(),
        store.head("a").await.unwrap_err(),
        store.list("").await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("there is no such bucket"), "{error}");
    }
}
