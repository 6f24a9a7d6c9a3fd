//! Sites before a bucket, as far as no server of buckets has a say: what of a request makes a thing
//! of its own. (`s3.rs` asks a real server.)

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{Answer, Edge, Item, Web, get, settings};
use nearcast_edge::{Settings, SiteSettings};
use serde_json::{Value, json};
use tempfile::TempDir;

const FILM: &str = "/film.mp4";
const STORED: [&str; 2] = ["/films/film.mp4", "/others/film.mp4"];

struct Story {
    _dir: TempDir,
    web: Web,
    edge: Edge,
}

impl Story {
    /// A bucket, behind what else the site's table has.
    async fn new(mut site: Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let web = Web::start().await;
        for path in STORED {
            web.put(path, Item::of(100));
        }
        web.put(FILM, Item::of(100));
        let origins = site["origins"].as_array_mut();
        origins.into_iter().flatten().filter(|url| *url == "WEB").for_each(|url| {
            *url = json!(web.url);
        });
        site["s3"] = json!({ "endpoint": web.url, "anonymous": true });
        let site: SiteSettings = serde_json::from_value(site).unwrap();
        let sites = [("*".to_owned(), site)].into();
        let settings =
            Settings { control_plane: None, origin: Vec::new(), sites, ..settings(dir.path(), "") };
        Self { _dir: dir, web, edge: Edge::start(settings).await }
    }

    async fn get(&self, target: &str) -> Answer {
        get(&format!("{}{target}", self.edge.http), &[]).await
    }
}

/// No query reaches a bucket: each would be a copy.
#[tokio::test]
async fn a_query_makes_no_copy_of_what_is_in_a_bucket() {
    let story = Story::new(json!({ "origins": ["s3://films", "s3://others"] })).await;
    for (target, verdict) in [
        ("/film.mp4?bust=0", "origin"),
        ("/film.mp4?bust=1", "hit-memory"),
        ("/film.mp4?uploads", "hit-memory"),
        (FILM, "hit-memory"),
    ] {
        assert_eq!(story.get(target).await.verdict(), verdict, "{target}");
    }
    assert_eq!(story.web.asked().len(), 1);
    let url = format!("{}/v1/explain?url={}{FILM}%3Fbust=2", story.edge.admin, story.edge.http);
    let told: Value = serde_json::from_slice(get(&url, &[]).await.bytes()).unwrap();
    assert_eq!(told["url"], format!("*{FILM}"));
    assert_eq!(told["variants"].as_array().unwrap().len(), 1, "{told}");
}

/// Nor does a field of the client's, whatever the server names in `Vary`.
#[tokio::test]
async fn what_a_client_says_makes_no_copy_of_what_is_in_a_bucket() {
    let story = Story::new(json!({ "origins": ["s3://films"] })).await;
    story.web.put(STORED[0], Item::of(100).vary("origin"));
    for (origin, verdict) in [("https://a.test", "origin"), ("https://b.test", "hit-memory")] {
        let url = format!("{}{FILM}", story.edge.http);
        let answer = get(&url, &[("origin", origin)]).await;
        assert_eq!((answer.status.as_u16(), answer.verdict()), (200, verdict), "{origin}");
    }
}

/// What it answers is the same for all, whoever they say they are: also what is not there.
#[tokio::test]
async fn who_a_client_says_it_is_keeps_nothing_of_a_bucket_from_others() {
    let ttl = json!([{ "path": "*", "fixed": "1h", "negative": "1h" }]);
    let story = Story::new(json!({ "origins": ["s3://films"], "ttl": ttl })).await;
    for (path, stored, status) in [(FILM, STORED[0], 200), ("/gone", "/films/gone", 404)] {
        for field in [("cookie", "_ga=1"), ("authorization", "Basic eDp5"), ("accept", "*/*")] {
            let answer = get(&format!("{}{path}", story.edge.http), &[field]).await;
            assert_eq!(answer.status, status, "{path} {field:?}");
        }
        assert_eq!(story.web.count(stored), 1, "{path}");
    }
}

/// Who says so has a copy for each, and so has who has a web server among the buckets.
#[tokio::test]
async fn a_query_counts_where_the_site_says_so_or_an_origin_may_look_at_it() {
    for site in [
        json!({ "origins": ["s3://films"], "query": "all" }),
        json!({ "origins": ["WEB", "s3://films"] }),
    ] {
        let story = Story::new(site.clone()).await;
        for target in ["/film.mp4?bust=0", "/film.mp4?bust=1"] {
            assert_eq!(story.get(target).await.verdict(), "origin", "{site}");
        }
        assert_eq!(story.web.asked().len(), 2, "{site}");
    }
}

/// A key has slashes only, however they are written: one object, by one rule, for one purge.
#[tokio::test]
async fn an_escaped_slash_is_one_of_the_key() {
    let site = json!({ "origins": ["s3://films"], "ttl": [{ "path": "/a/*", "fixed": "1h" }] });
    let story = Story::new(site).await;
    story.web.put("/films/a/b", Item::of(100).cache_control("max-age=10"));
    for (target, verdict) in
        [("/a%2Fb", "origin"), ("/a/b", "hit-memory"), ("/a%2fb", "hit-memory")]
    {
        let answer = story.get(target).await;
        assert_eq!((answer.status.as_u16(), answer.verdict()), (200, verdict), "{target}");
    }
    let url = format!("{}/v1/explain?url={}/a%252Fb", story.edge.admin, story.edge.http);
    let told: Value = serde_json::from_slice(get(&url, &[]).await.bytes()).unwrap();
    assert_eq!(
        (&told["url"], &told["variants"][0]["lifetime_ms"]),
        (&json!("*/a/b"), &json!(3_600_000))
    );
    story.edge.purge(&json!({ "prefix": format!("{}/a/", story.edge.http) })).await;
    assert_eq!(story.get("/a%2Fb").await.verdict(), "origin");
}

/// Who asked a web server first for what that does not have would have it told of the object.
#[tokio::test]
async fn an_escaped_slash_is_refused_where_a_bucket_is_among_other_origins() {
    let story = Story::new(json!({ "origins": ["WEB", "s3://films"] })).await;
    let answer = story.get("/a%2Fb").await;
    assert_eq!((answer.status.as_u16(), answer.code()), (400, "path-hidden-separator".into()));
    assert_eq!(story.web.asked().len(), 0);
}
