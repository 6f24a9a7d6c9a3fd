//! Stories of browsers that send a cookie of the whole domain with every request, before content that
//! depends on none: where the operator says so, nothing of it counts or goes on.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::nodes::{self, below, fetch, node_with};
use common::{
    Answer, CHUNK, Edge, Hold, Item, Proxy, Validator, Web, ask, get, head, proxy_settings, until,
};
use futures::future::join_all;
use http::Method;
use model::admin::Explanation;
use serde_json::{Value, json};
use upstream::hierarchy;

const PLAYERS: usize = 10;
const RELOAD: &str = "/live.m3u8?_HLS_msn=7";
const FILM: &str = "/film.mp4";
const PAGE: &str = "/account";

/// What all paths have dropped, and a rule for them.
fn dropping() -> Value {
    json!({ "cookies": "drop", "ttl": [{ "path": "*", "fixed": "1h" }] })
}

/// What every answer of the origin sets.
fn setting(item: Item) -> Item {
    item.field("set-cookie", "seen=1")
}

fn sets_one(answer: &Answer) -> bool {
    answer.headers.contains_key("set-cookie")
}

/// How many of the requests that the origin saw had a cookie.
fn sent(web: &Web) -> usize {
    web.asked().iter().filter(|asked| asked.fields.contains_key("cookie")).count()
}

/// What players with a cookie each are answered that ask while the packager holds their reload.
async fn held(proxy: &Proxy) -> Vec<Answer> {
    proxy.web.hold(Hold::Head);
    let cookies: Vec<_> = (0..PLAYERS).map(|number| format!("_ga=GA1.{number}")).collect();
    let players = cookies.iter().map(|cookie| async move {
        let fields = [("cookie", &**cookie)];
        proxy.get_with(RELOAD, &fields).await
    });
    let (answers, ()) = tokio::join!(join_all(players), async {
        until("all are in", || async {
            let open = proxy.edge.metric("nearcast_edge_connections").await;
            (open >= PLAYERS as f64 && proxy.web.held() > 0).then_some(())
        })
        .await;
        proxy.web.release();
    });
    answers
}

/// Found by an audit: the packager held a request for each player, though a rule named a time.
#[tokio::test]
async fn players_with_cookies_share_a_held_reload_where_cookies_are_dropped() {
    for (cookies, is_shared) in [("drop", true), ("keep", false)] {
        let rules = json!({ "cookies": cookies, "ttl": [
            { "path": "*.m3u8", "query": "_HLS_msn", "fixed": "1h", "negative": "1s" },
        ]});
        let proxy = Proxy::with(rules).await;
        proxy.web.put("/live.m3u8", setting(Item::of(3000).cache_control("no-cache")));
        let answers = held(&proxy).await;
        let whole = proxy.web.whole("/live.m3u8");
        assert!(answers.iter().all(|answer| answer.bytes() == &whole), "{cookies}");
        assert!(answers.iter().all(|answer| sets_one(answer) != is_shared), "{cookies}");
        let requests = if is_shared { (1, 0) } else { (PLAYERS, PLAYERS) };
        assert_eq!((proxy.web.count("/live.m3u8"), sent(&proxy.web)), requests, "{cookies}");
        let late = proxy.get_with(RELOAD, &[("cookie", "_ga=late")]).await;
        assert_eq!(late.verdict() == "hit-memory", is_shared, "{cookies} {late:?}");
    }
}

/// A rule goes before the site's own word.
#[tokio::test]
async fn cookies_are_dropped_where_the_rules_say_so_and_nowhere_else() {
    let film = |cookies: &str| json!([{ "path": "*.mp4", "cookies": cookies, "fixed": "1h" }]);
    let sites = [
        json!({ "ttl": film("drop") }),
        json!({ "cookies": "keep", "ttl": film("drop") }),
        json!({ "cookies": "drop", "ttl": [{ "path": PAGE, "cookies": "keep" }] }),
    ];
    for site in sites {
        let proxy = Proxy::with(site.clone()).await;
        for path in [FILM, PAGE] {
            proxy.web.put(path, setting(Item::of(3000)).vary("cookie"));
        }
        for (path, is_kept) in [(FILM, false), (PAGE, true)] {
            let told = format!("{site} {path}");
            for (cookie, verdict) in [("a=1", "origin"), ("b=2", "hit-memory")] {
                let answer = proxy.get_with(path, &[("cookie", cookie)]).await;
                let verdict = if is_kept { "origin" } else { verdict };
                assert_eq!((answer.verdict(), sets_one(&answer)), (verdict, is_kept), "{told}");
            }
            // Nor has a HEAD or what is passed on any.
            for method in [Method::HEAD, Method::POST] {
                let answer = ask(method, &proxy.url(path), &[("cookie", "c=3")]).await;
                assert_eq!(sets_one(&answer), is_kept, "{told}");
            }
            let asked = proxy.web.asked_for(path);
            let sent = |asked: &common::Asked| asked.fields.contains_key("cookie");
            assert!(asked.iter().all(|asked| sent(asked) == is_kept), "{told}");
            let url = format!("{}/v1/explain?url={}", proxy.edge.admin, proxy.url(path));
            let explained = get(&url, &[]).await;
            let explained: Explanation = serde_json::from_slice(explained.bytes()).unwrap();
            assert_eq!(explained.drops_cookies, !is_kept, "{told}");
        }
    }
}

/// What is missing of it comes by answers that set one as well.
#[tokio::test]
async fn more_of_what_is_stored_in_part_is_kept_though_its_answer_sets_a_cookie() {
    let proxy = Proxy::with(dropping()).await;
    proxy.web.put(FILM, setting(Item::of(3 * CHUNK).cache_control("no-cache")));
    for at in [0, 2 * CHUNK] {
        for verdict in ["origin", "hit-memory"] {
            let range = format!("bytes={at}-{}", at + 99);
            let fields = [("range", &*range), ("cookie", "a=b")];
            let part = proxy.get_with(FILM, &fields).await;
            assert_eq!((part.verdict(), sets_one(&part)), (verdict, false), "{at}");
            proxy.has_filled().await;
        }
    }
    assert_eq!((proxy.web.count(FILM), sent(&proxy.web)), (2, 0));
}

#[tokio::test]
async fn a_node_asks_the_one_above_without_cookies() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [own, parent] = nodes::nodes(["edge-a", "region-1"]);
    let web = Web::start().await;
    web.put(FILM, setting(Item::of(1000)));
    let above = node_with(&dirs[1], &parent, &web.url, hierarchy::Settings::default(), &json!({}));
    let above = Edge::start(above).await;
    let edge = node_with(&dirs[0], &own, &web.url, below(&[parent]), &dropping());
    let edge = Edge::start(edge).await;
    for verdict in ["parent", "hit-memory"] {
        let answer = fetch(&edge, FILM, &[("cookie", "a=b")]).await;
        let by_own = nodes::verdict(&answer, "edge-a");
        assert_eq!((&*by_own, sets_one(&answer)), (verdict, false));
    }
    assert_eq!((web.count(FILM), sent(&web)), (1, 0));
    edge.stop().await;
    above.stop().await;
}

#[tokio::test]
async fn what_was_stored_with_a_cookie_before_goes_out_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let web = Web::start().await;
    web.put(FILM, setting(Item::of(1000)));
    for (site, is_kept) in [(json!({}), true), (dropping(), false)] {
        let edge = Edge::start(proxy_settings(dir.path(), &web.url, &site)).await;
        let url = format!("{}{FILM}", edge.http);
        if is_kept {
            assert!(sets_one(&get(&url, &[]).await));
        }
        assert_eq!(sets_one(&head(Method::HEAD, &url).await), is_kept);
        edge.stop().await;
    }
    assert_eq!(web.count(FILM), 1);
}

/// What docs/edge.md warns of, and what it has an operator set.
#[tokio::test]
async fn what_only_says_when_it_changed_is_everybodys_for_a_guessed_time_unless_nothing_is_guessed()
{
    for (site, is_shared) in [(json!({}), true), (json!({ "heuristic": false }), false)] {
        let proxy = Proxy::with(site.clone()).await;
        let fields = Vec::new();
        let item = Item { fields, ..Item::of(1000).validator(Validator::Date) };
        proxy.web.put(PAGE, item);
        for cookie in ["session=alice", "session=bob"] {
            proxy.get_with(PAGE, &[("cookie", cookie)]).await;
        }
        assert_eq!(proxy.web.count(PAGE), if is_shared { 1 } else { 2 }, "{site}");
    }
}
