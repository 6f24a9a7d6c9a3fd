//! Sites before buckets of a real S3 server, which `scripts/with-s3` starts.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{Answer, Edge, get, settings};
use futures::future::join_all;
use http::Method;
use nearcast_edge::{Settings, SiteSettings};
use std::path::Path;

/// Accounts of the server, each with a bucket of its own that no other may read.
const ACCOUNTS: [&str; 2] = ["one", "two"];

/// A site that signs as `account` and asks for what is in the bucket of `owner`.
fn site(dir: &Path, account: &str, owner: &str) -> (String, SiteSettings) {
    let file = dir.join(format!("{account}.credentials"));
    let keys = format!("aws_access_key_id = {account}\naws_secret_access_key = secret-{account}\n");
    std::fs::write(&file, format!("[default]\n{keys}")).unwrap();
    let site = serde_json::json!({
        "origins": [format!("s3://nearcast-{owner}")],
        "s3": { "credentials-file": file },
        "ttl": [{ "path": "*", "fixed": "1h" }],
    });
    (format!("{account}-of-{owner}.example"), serde_json::from_value(site).unwrap())
}

fn text(owner: &str) -> String {
    format!("what {owner} has")
}

/// As its administrator, who may do everything.
async fn stored(owner: &str) {
    let store = store::Store::open(&format!("s3://nearcast-{owner}")).unwrap();
    // Left over from an earlier story, it is the same.
    _ = store.put_if_absent("film/a", text(owner).into()).await;
}

async fn ask(edge: &Edge, account: &str, owner: &str, path: &str) -> Answer {
    let host = format!("{account}-of-{owner}.example");
    get(&format!("{}{path}", edge.http), &[("host", &host)]).await
}

#[tokio::test]
async fn each_site_signs_as_itself() {
    std::env::var("NEARCAST_TEST_S3_BUCKET").expect("run by scripts/with-s3");
    let dir = tempfile::tempdir().unwrap();
    let pairs = ACCOUNTS.map(|account| ACCOUNTS.map(|owner| (account, owner))).concat();
    let sites = pairs.iter().map(|(account, owner)| site(dir.path(), account, owner)).collect();
    let settings =
        Settings { control_plane: None, origin: Vec::new(), sites, ..settings(dir.path(), "") };
    let edge = Edge::start(settings).await;
    join_all(ACCOUNTS.map(stored)).await;
    // All at once, over and over: no identity is taken for another's.
    for round in 0..5 {
        let answers = join_all(pairs.iter().map(async |(account, owner)| {
            // No cache can answer what was never asked for.
            let other = ask(&edge, account, owner, &format!("/film/none-{round}")).await;
            (ask(&edge, account, owner, "/film/a").await, other)
        }));
        for ((account, owner), (there, absent)) in pairs.iter().zip(answers.await) {
            let whose = format!("{account} in the bucket of {owner}: {there:?}");
            if account == owner {
                assert_eq!((there.status.as_u16(), there.text()), (200, text(owner)), "{whose}");
                assert_eq!(absent.status, 404, "{whose}");
            } else {
                assert_eq!(there.status, 403, "{whose}");
                assert_eq!(absent.status, 403, "{whose}");
            }
        }
    }
    // A bucket is read; what else it would do is nobody's to ask for here.
    for (method, status) in [(Method::POST, 405), (Method::DELETE, 405), (Method::OPTIONS, 200)] {
        let host = "one-of-one.example";
        let answer =
            common::ask(method.clone(), &format!("{}/film/a", edge.http), &[("host", host)]).await;
        assert_eq!(answer.status, status, "{method}");
        assert!(answer.header("allow").starts_with("GET, HEAD"), "{method}: {answer:?}");
    }
}
