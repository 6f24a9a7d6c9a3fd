//! Stories of origins that get ranges half right, as many a tutorial's server does: players, which
//! ask for `bytes=N-`, play from them, and so they do from here.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::nodes::{fetch, nodes, region};
use common::{
    Answer, CHUNK, Edge, Hold, Item, Proxy, Validator, Web, WebMisdeed, proxy_settings, until,
};

const FILM: &str = "/film";
const BYTES: u64 = 7 * CHUNK + 4321;
/// Bytes at a time, as tutorials have it.
const BLOCK: u64 = 1_000_000;

/// With one try, so that none hides another.
async fn stage(item: Item, misdeed: WebMisdeed) -> Proxy {
    let proxy = Proxy::with(serde_json::json!({ "retries": 0, "hedge": false })).await;
    proxy.web.put(FILM, item);
    proxy.web.always(Some(misdeed));
    proxy
}

async fn from(proxy: &Proxy, path: &str, start: u64) -> Answer {
    let range = format!("bytes={start}-");
    let answer = proxy.get_with(path, &[("range", &range)]).await;
    let asked = proxy.web.ranges(path);
    assert_eq!(answer.status, 206, "{path} from {start}: {answer:?} of {asked:?}");
    let end = start + answer.bytes().len() as u64;
    let told = format!("bytes {start}-{}/{BYTES}", end - 1);
    assert_eq!(answer.header("content-range"), told, "{path}: {asked:?}");
    assert!(answer.bytes() == &proxy.web.part(path, start..end), "{path} from {start}");
    answer
}

/// A player plays a film: it asks for what is missing of each answer.
async fn plays(proxy: &Proxy, path: &str) -> usize {
    let (mut at, mut answers) = (0, 0);
    while at < BYTES {
        at += from(proxy, path, at).await.bytes().len() as u64;
        answers += 1;
    }
    answers
}

/// It heeds where a range begins, and not where it ends.
#[tokio::test]
async fn what_an_origin_sends_beyond_a_range_is_taken_as_far_as_it_is_wanted() {
    for block in [BLOCK, 3 * BLOCK, u64::MAX] {
        let proxy = stage(Item::of(BYTES), WebMisdeed::Endless(block)).await;
        assert_eq!(plays(&proxy, FILM).await, 1, "the first viewer gets all of it");
        assert_eq!(proxy.web.sent(FILM), BYTES, "{block}: {:?}", proxy.web.ranges(FILM));
        assert_eq!(from(&proxy, FILM, 0).await.verdict(), "hit-memory");
        // Who seeks first has the chunk of that byte, too.
        proxy.web.put("/sought", Item::of(BYTES));
        let start = 2 * CHUNK + 7;
        let sought = from(&proxy, "/sought", start).await;
        assert_eq!(sought.bytes().len() as u64, BYTES - start);
        assert_eq!(proxy.web.sent("/sought"), BYTES - 2 * CHUNK, "{block}");
    }
}

/// What is beyond the chunks that are wanted costs no more than sockets have room for.
#[tokio::test]
async fn a_range_with_an_end_is_left_where_it_ends() {
    const LONG: u64 = 100 * CHUNK;
    for validator in [Validator::Strong, Validator::None] {
        let film = Item::of(LONG).validator(validator);
        let proxy = stage(film, WebMisdeed::Endless(u64::MAX)).await;
        // Unknown, and known.
        for range in [10..20, 4 * CHUNK + 5..5 * CHUNK + 6] {
            let part = proxy.part(FILM, range.clone()).await;
            assert_eq!(part.status, 206, "{validator:?} {range:?}: {part:?}");
            let told = format!("bytes {}-{}/{LONG}", range.start, range.end - 1);
            assert_eq!(part.header("content-range"), told);
            assert!(part.bytes() == &proxy.web.part(FILM, range), "{validator:?}");
        }
        let are_over =
            || async { proxy.web.asked().iter().all(|asked| asked.is_over).then_some(()) };
        until("the answers are over", are_over).await;
        assert!(proxy.web.asked().iter().all(|asked| asked.is_left), "{validator:?}");
        proxy.has_filled().await;
        if validator == Validator::Strong {
            let asked = proxy.web.count(FILM);
            for number in [0, 4, 5] {
                let part = proxy.part(FILM, number * CHUNK..(number + 1) * CHUNK).await;
                assert_eq!(part.verdict(), "hit-memory", "{number}");
            }
            assert_eq!(proxy.web.count(FILM), asked);
        }
    }
}

/// It takes all digits of a range for the number of its first byte, so it can be asked for `bytes=N-`
/// alone; any other is past its end, mostly.
#[tokio::test]
async fn a_player_gets_all_of_an_origin_that_reads_digits_alone() {
    for validator in [Validator::None, Validator::Weak] {
        let film = Item::of(BYTES).validator(validator);
        let proxy = stage(film.clone(), WebMisdeed::Digits(BLOCK + 1)).await;
        assert_eq!(plays(&proxy, FILM).await, 8, "{validator:?}");
        // Nor is it asked otherwise by who seeks first.
        for (n, start) in [CHUNK - 1, 1_000_001, 3 * CHUNK + 1_010_000].into_iter().enumerate() {
            let path = format!("/sought{n}");
            proxy.web.put(&path, film.clone());
            from(&proxy, &path, start).await;
        }
        let is_open = |range: &String| range.ends_with('-');
        let asked: Vec<_> = proxy.web.asked();
        let asked: Vec<_> = asked.iter().map(|asked| asked.field("range").to_owned()).collect();
        assert!(asked.iter().all(is_open), "{validator:?}: {asked:?}");
    }
}

/// What it says of the edge's own ranges is nothing about the version: it names the same length.
#[tokio::test]
async fn a_416_that_names_the_same_length_is_of_no_other_version() {
    let proxy = stage(Item::of(BYTES), WebMisdeed::Digits(BLOCK + 1)).await;
    assert_eq!(plays(&proxy, FILM).await, 1, "the first viewer gets all of it");
    let statuses: Vec<_> = proxy.web.asked().iter().map(|asked| asked.status).collect();
    let in_vain = statuses.iter().filter(|status| **status == 416).count();
    assert_eq!(in_vain, 1, "{statuses:?} to {:?}", proxy.web.ranges(FILM));
    assert_eq!(proxy.web.sent(FILM), BYTES);
    let asked = proxy.web.count(FILM);
    let part = proxy.part(FILM, 3 * CHUNK..3 * CHUNK + 9).await;
    assert_eq!((part.status.as_u16(), part.verdict()), (206, "hit-memory"));
    assert_eq!(proxy.web.count(FILM), asked, "it is stored still");
    // Somebody follows an answer that has to be gone on with in such a way.
    proxy.web.put("/other", Item::of(BYTES));
    proxy.web.hold(Hold::Byte(BLOCK));
    let mut first = proxy.open("/other", &[("range", "bytes=0-")]).await;
    let far = from(&proxy, "/other", 5 * CHUNK);
    let release = async {
        first.take(BLOCK as usize).await.unwrap();
        proxy.web.release();
        first.rest().await.unwrap()
    };
    let (far, rest) = tokio::join!(far, release);
    assert!(rest == proxy.web.part("/other", BLOCK..BYTES));
    assert_eq!(far.bytes().len() as u64, BYTES - 5 * CHUNK);
}

/// Nor is an answer from further on, where the number is one of its bytes: it is of what was not asked
/// for, and of none that is wanted.
#[tokio::test]
async fn what_begins_where_all_digits_say_is_asked_for_without_an_end() {
    let proxy = stage(Item::of(BYTES), WebMisdeed::Digits(u64::MAX)).await;
    from(&proxy, FILM, 3 * CHUNK).await;
    proxy.has_filled().await;
    // Of what is known.
    assert_eq!(from(&proxy, FILM, 0).await.bytes().len() as u64, BYTES);
    let asked = [3 * CHUNK, 0, 0].map(|start| format!("bytes={start}-"));
    let asked = [&asked[0], &format!("{}{}", asked[1], 3 * CHUNK - 1), &asked[2]];
    assert_eq!(proxy.web.ranges(FILM).iter().collect::<Vec<_>>(), asked);
    assert_eq!(from(&proxy, FILM, 0).await.verdict(), "hit-memory");
    // Of what is not, also by who wants no more than a part.
    for (path, validator) in [("/strong", Validator::Strong), ("/none", Validator::None)] {
        proxy.web.put(path, Item::of(BYTES).validator(validator));
        let part = proxy.part(path, 10..20).await;
        assert_eq!(part.status, 206, "{path}: {part:?}");
        assert!(part.bytes() == &proxy.web.part(path, 10..20), "{path}");
        assert_eq!(proxy.web.ranges(path), ["bytes=0-1048575", "bytes=0-"]);
    }
}

/// A run is asked for where siblings share objects, and that has an end.
#[tokio::test]
async fn siblings_get_all_of_an_origin_that_reads_digits_alone() {
    const LONG: u64 = (64 << 20) + 3 * CHUNK;
    let (dirs, web) = ([(); 2].map(|()| tempfile::tempdir().unwrap()), Web::start().await);
    let peers = nodes(["edge-a", "edge-b"]);
    let start = |which: usize| {
        let (dir, node) = (&dirs[which], &peers[which]);
        Edge::start(common::nodes::node(dir, node, &web.url, region(&peers)))
    };
    let edges = [start(0).await, start(1).await];
    web.always(Some(WebMisdeed::Digits(u64::MAX)));
    web.put(FILM, Item::of(LONG));
    for edge in &edges {
        let film = fetch(edge, FILM, &[("range", "bytes=0-")]).await;
        assert_eq!(film.status, 206, "{:?}: {:?}", film.headers, web.ranges(FILM));
        assert!(film.bytes() == &web.whole(FILM), "{:?}", web.ranges(FILM));
    }
    assert!(web.count(FILM) <= 12, "{:?}", web.ranges(FILM));
}

/// What may be kept no more is had by who asked for it by the one answer there is.
#[tokio::test]
async fn what_goes_on_beyond_a_part_and_is_of_one_client_is_asked_for_once() {
    const LONG: u64 = 20 * CHUNK;
    let proxy = stage(Item::of(LONG), WebMisdeed::Endless(u64::MAX)).await;
    assert_eq!(proxy.part(FILM, 0..9).await.status, 206);
    proxy.has_filled().await;
    proxy.web.put(FILM, Item::of(LONG).cache_control("private"));
    let asked = proxy.web.count(FILM);
    let range = format!("bytes={}-", 2 * CHUNK + 7);
    let film = proxy.get_with(FILM, &[("range", &range)]).await;
    assert_eq!(film.status, 206);
    assert!(film.bytes() == &proxy.web.part(FILM, 2 * CHUNK + 7..LONG));
    assert_eq!(proxy.web.count(FILM) - asked, 1, "{:?}", proxy.web.ranges(FILM));
}

/// Nor from one that heeds where a range ends, and not where it begins: of it all is had by who asks
/// for no range.
#[tokio::test]
async fn an_origin_that_begins_at_the_first_byte_is_asked_for_the_whole() {
    let proxy = stage(Item::of(BYTES), WebMisdeed::Beginless).await;
    // A part of a film that is known by its first chunk, and all of it.
    for path in ["/sought", "/played", FILM] {
        proxy.web.put(path, Item::of(BYTES));
        if path != "/sought" {
            assert_eq!(proxy.part(path, 0..9).await.status, 206);
            proxy.has_filled().await;
        }
        match path {
            FILM => {
                let whole = proxy.get(FILM).await;
                assert_eq!(whole.status, 200);
                assert!(whole.bytes() == &proxy.web.whole(FILM), "{:?}", proxy.web.ranges(FILM));
            }
            path => {
                let sought = from(&proxy, path, 4 * CHUNK + 7).await;
                assert_eq!(sought.bytes().len() as u64, BYTES - 4 * CHUNK - 7);
            }
        }
        assert_eq!(from(&proxy, path, 0).await.bytes().len() as u64, BYTES);
        let asked = proxy.web.ranges(path);
        assert_eq!(asked.iter().filter(|range| range.is_empty()).count(), 1, "{path}: {asked:?}");
        assert!(asked.len() <= 3, "{path}: {asked:?}");
        // The whole once, and what of a wrong answer had come when its head was seen to be wrong.
        assert!(proxy.web.sent(path) <= 2 * BYTES + CHUNK, "{path}: {asked:?}");
    }
    // Once that is known of a version, it is asked so at once, also for what the first such answer has
    // not brought.
    proxy.web.put("/in-parts", Item::of(60 * CHUNK));
    for number in [0, 2, 50] {
        let part = proxy.part("/in-parts", number * CHUNK..number * CHUNK + 9).await;
        assert_eq!(part.status, 206, "{number}: {part:?}");
        assert!(part.bytes() == &proxy.web.part("/in-parts", number * CHUNK..number * CHUNK + 9));
        proxy.has_filled().await;
    }
    let asked = proxy.web.ranges("/in-parts");
    let wholes = asked.iter().filter(|range| range.is_empty()).count();
    assert_eq!((asked.len(), wholes), (4, 2), "{asked:?}");
}

/// One that goes on to say so of whatever is asked for has another version, or is broken: the next
/// request begins anew.
#[tokio::test]
async fn an_origin_that_takes_no_range_any_more_is_asked_for_the_whole() {
    let proxy = stage(Item::of(BYTES), WebMisdeed::Endless(CHUNK)).await;
    assert_eq!(proxy.part(FILM, 0..9).await.status, 206);
    proxy.has_filled().await;
    proxy.web.always(Some(WebMisdeed::NoRange { but_open: false }));
    let asked = proxy.web.count(FILM);
    let part = proxy.part(FILM, 4 * CHUNK..4 * CHUNK + 9).await;
    assert_eq!(part.status, 416, "{:?}", proxy.web.ranges(FILM));
    // With an end and without, of what is known; then as if it were not, and to the byte.
    assert!(proxy.web.count(FILM) - asked <= 4, "{:?}", proxy.web.ranges(FILM));
    let whole = proxy.get(FILM).await;
    assert_eq!(whole.status, 200);
    assert!(whole.bytes() == &proxy.web.whole(FILM));
}

/// Nor is what another origin says remembered of one that takes ranges as they are.
#[tokio::test]
async fn one_of_two_origins_that_takes_no_range_with_an_end_changes_nothing_for_the_other() {
    let (odd, other) = (Web::start().await, Web::start().await);
    let dir = tempfile::tempdir().unwrap();
    let site = serde_json::json!({ "hedge": false });
    let mut settings = proxy_settings(dir.path(), &odd.url, &site);
    let more = serde_json::json!({ "url": other.url, "priority": 1 });
    let more = serde_json::from_value(more).unwrap();
    settings.sites.get_mut("*").unwrap().origins.push(more);
    let proxy = Proxy { edge: Edge::start(settings).await, dir, web: odd };
    for web in [&proxy.web, &other] {
        web.put(FILM, Item::of(BYTES));
    }
    assert_eq!(proxy.part(FILM, 0..9).await.status, 206);
    // The first one of these is the answer to the range with an end; then the other is asked.
    proxy.web.misbehave(&[WebMisdeed::NoRange { but_open: true }, WebMisdeed::WrongRange(7)]);
    for number in 2..5 {
        let part = proxy.part(FILM, number * CHUNK..number * CHUNK + 9).await;
        assert_eq!(part.status, 206, "{number}: {part:?}");
    }
    let asked = [proxy.web.ranges(FILM), other.ranges(FILM)];
    let open = asked.iter().flatten().filter(|range| range.ends_with('-')).count();
    assert_eq!(open, 2, "{asked:?}");
}

/// It takes none that ends past its end, as whole chunks do.
#[tokio::test]
async fn a_part_of_an_origin_that_counts_on_its_length_is_had() {
    for validator in [Validator::Strong, Validator::None] {
        let proxy = stage(Item::of(500).validator(validator), WebMisdeed::Strict).await;
        for range in [0..100, 300..500] {
            let part = proxy.part(FILM, range.clone()).await;
            assert_eq!(part.status, 206, "{validator:?} {range:?}: {part:?}");
            assert_eq!(part.bytes(), &proxy.web.part(FILM, range));
        }
        let before = proxy.web.count(FILM);
        assert_eq!(proxy.get_with(FILM, &[("range", "bytes=500-600")]).await.status, 416);
        assert!(proxy.web.count(FILM) <= before + 1, "what it says of its length is believed");
    }
}
