//! Stories of origins that answer a range with less than was asked for, as they may: the edge
//! goes on from there, byte for byte, and where that is too little to be worth it, the client
//! gets what the origin gives.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{
    Answer, CHUNK, Edge, Hold, Item, Proxy, Validator, Web, WebMisdeed, ask, get, proxy_settings,
    until,
};
use http::Method;
use service::value::ByteSize;
use std::ops::Range;

const FILM: &str = "/film";
const BYTES: u64 = 7 * CHUNK + 4321;
/// Whole chunks, parts of some, and the least that is of use to the cache.
const CAPS: [u64; 7] =
    [CHUNK, 3 * CHUNK, CHUNK + 1, CHUNK * 3 / 2, CHUNK * 2 / 3, CHUNK / 2, CHUNK / 16];

async fn stage(item: Item, cap: u64) -> Proxy {
    let proxy = Proxy::with(serde_json::json!({ "retries": 0, "hedge": false })).await;
    proxy.web.put(FILM, item);
    proxy.web.always(Some(WebMisdeed::Cap(cap)));
    proxy
}

fn told(range: &Range<u64>, total: u64) -> String {
    format!("bytes {}-{}/{total}", range.start, range.end - 1)
}

/// It is a part, of these bytes.
fn is_part(proxy: &Proxy, answer: &Answer, range: Range<u64>, total: u64, why: &str) {
    let given = (answer.status.as_u16(), answer.header("content-range").to_owned());
    assert_eq!(given, (206, told(&range, total)), "{why}: {:?}", proxy.web.ranges(FILM));
    assert!(answer.bytes() == &proxy.web.part(FILM, range), "{why}");
}

/// Bytes of the chunks that a range touches.
fn touched(range: &Range<u64>) -> u64 {
    let end = range.end.next_multiple_of(CHUNK).min(BYTES);
    end - range.start / CHUNK * CHUNK
}

/// Answers that so many bytes take.
fn answers(bytes: u64, cap: u64) -> usize {
    let chunk_by_chunk = bytes.div_ceil(CHUNK) * CHUNK.div_ceil(cap);
    usize::try_from(chunk_by_chunk.min(bytes.div_ceil(cap) + bytes.div_ceil(CHUNK))).unwrap()
}

#[tokio::test]
async fn a_range_is_whole_though_the_origin_sends_less_at_a_time() {
    let forms = [
        ("bytes=0-".to_owned(), 0..BYTES),
        (format!("bytes={}-", CHUNK + 7), CHUNK + 7..BYTES),
        (format!("bytes={}-", 6 * CHUNK), 6 * CHUNK..BYTES),
        (format!("bytes={}-{}", CHUNK - 9, 5 * CHUNK), CHUNK - 9..5 * CHUNK + 1),
        (format!("bytes={}-{}", 2 * CHUNK, 4 * CHUNK - 1), 2 * CHUNK..4 * CHUNK),
        (format!("bytes={}-{}", 3 * CHUNK - 20, 3 * CHUNK - 11), 3 * CHUNK - 20..3 * CHUNK - 10),
        (format!("bytes=-{}", 2 * CHUNK), BYTES - 2 * CHUNK..BYTES),
    ];
    for cap in CAPS {
        for (field, range) in &forms {
            let (proxy, why) = (stage(Item::of(BYTES), cap).await, format!("{field} by {cap}"));
            let answer = proxy.get_with(FILM, &[("range", field)]).await;
            is_part(&proxy, &answer, range.clone(), BYTES, &why);
            let ranges = proxy.web.ranges(FILM);
            let (sent, touched) = (proxy.web.sent(FILM), touched(range));
            assert!(sent <= touched, "{why}: {sent} bytes for {touched}: {ranges:?}");
            let plain = proxy
                .web
                .asked_for(FILM)
                .iter()
                .any(|asked| asked.method == "GET" && asked.field("range").is_empty());
            assert!(!plain, "{why}: the whole was asked for: {ranges:?}");
            // One HEAD, where only that tells where the end is.
            assert!(ranges.len() <= answers(touched, cap) + 1, "{why}: {ranges:?}");
            is_had_once(&proxy, &why, cap).await;
        }
    }
}

/// A whole GET brings what is missing, a HEAD nothing, and then all is here.
async fn is_had_once(proxy: &Proxy, why: &str, cap: u64) {
    let whole = proxy.get(FILM).await;
    assert_eq!(whole.status, 200, "{why}");
    assert!(whole.bytes() == &proxy.web.whole(FILM), "{why}");
    let (sent, ranges) = (proxy.web.sent(FILM), proxy.web.ranges(FILM));
    assert!(sent <= BYTES, "{why}: {sent} bytes of {BYTES}: {ranges:?}");
    assert!(ranges.len() <= answers(BYTES, cap) + 4, "{why}: {ranges:?}");
    let head = ask(Method::HEAD, &proxy.url(FILM), &[]).await;
    assert_eq!(head.header("content-length"), BYTES.to_string(), "{why}");
    let part = proxy.part(FILM, CHUNK - 5..6 * CHUNK).await;
    assert_eq!(part.verdict(), "hit-memory", "{why}");
    is_part(proxy, &part, CHUNK - 5..6 * CHUNK, BYTES, why);
    assert_eq!(proxy.web.count(FILM), ranges.len(), "{why}");
}

#[tokio::test]
async fn several_ranges_are_whole_though_the_origin_sends_less_at_a_time() {
    for cap in CAPS {
        let proxy = stage(Item::of(BYTES), cap).await;
        let parts = [CHUNK + 5..3 * CHUNK + 9, 5 * CHUNK..5 * CHUNK + 10];
        let spec = parts.clone().map(|part| format!("{}-{}", part.start, part.end - 1)).join(",");
        let answer = proxy.get_with(FILM, &[("range", &format!("bytes={spec}"))]).await;
        assert_eq!(answer.status, 206, "{cap}");
        let kind = answer.header("content-type");
        let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
        let mut expected = Vec::new();
        for part in parts {
            let head = format!(
                "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n\
                 Content-Range: {}\r\n\r\n",
                told(&part, BYTES)
            );
            expected.extend_from_slice(head.as_bytes());
            expected.extend_from_slice(&proxy.web.part(FILM, part));
        }
        expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        assert!(answer.bytes() == &expected, "{cap}");
        let sent = proxy.web.sent(FILM);
        assert!(sent <= 4 * CHUNK, "{cap}: {sent} bytes: {:?}", proxy.web.ranges(FILM));
        is_had_once(&proxy, "several", cap).await;
    }
}

/// What has come to be stored whole is asked for again in parts, once it has left memory.
#[tokio::test]
async fn a_gap_is_filled_by_many_answers() {
    for cap in CAPS {
        let proxy = stage(Item::of(BYTES), u64::MAX >> 1).await;
        for number in [0, 3] {
            proxy.part(FILM, number * CHUNK..number * CHUNK + 9).await;
        }
        proxy.web.always(Some(WebMisdeed::Cap(cap)));
        is_had_once(&proxy, &format!("gaps by {cap}"), cap).await;
    }
}

/// Too little for a chunk in a few requests: the client has what it would have had directly.
#[tokio::test]
async fn crumbs_are_passed_on_and_end() {
    for cap in [1, 100, CHUNK / 16 - 1] {
        let proxy = stage(Item::of(BYTES), cap).await;
        let far = 2 * CHUNK + CHUNK / 2;
        // The last chunk's beginning may hold what is wanted already.
        let last = BYTES - CHUNK..if cap > 4321 { 6 * CHUNK } else { BYTES - CHUNK } + cap;
        for (field, range) in [
            (format!("bytes={far}-"), far..far + cap),
            (format!("bytes={far}-{}", far + CHUNK), far..far + cap),
            (format!("bytes={far}-{far}"), far..far + 1),
            (format!("bytes=-{CHUNK}"), last),
            ("bytes=0-".to_owned(), 0..cap),
        ] {
            let (asked, sent) = (proxy.web.count(FILM), proxy.web.sent(FILM));
            let answer = proxy.get_with(FILM, &[("range", &field)]).await;
            is_part(&proxy, &answer, range, BYTES, &format!("{field} by {cap}"));
            // The chunk's beginning, what is wanted, and perhaps where the end is.
            let more = proxy.web.count(FILM) - asked;
            assert!(more <= 3, "{field} by {cap}: {:?}", proxy.web.ranges(FILM));
            assert!(proxy.web.sent(FILM) - sent <= 2 * cap, "{field} by {cap}");
        }
        let asked = proxy.web.count(FILM);
        assert!(proxy.get(FILM).await.bytes() == &proxy.web.whole(FILM), "{cap}");
        assert_eq!(proxy.part(FILM, far..far + 2 * CHUNK).await.verdict(), "hit-memory", "{cap}");
        assert_eq!(proxy.web.count(FILM), asked + 1, "{cap}");
    }
}

/// The same of what is known, and partly here: a whole answer that has begun is cut, the next is
/// whole.
#[tokio::test]
async fn crumbs_of_what_is_known_end_too() {
    for cap in [1, 100, CHUNK / 16 - 1] {
        let proxy = stage(Item::of(BYTES), u64::MAX >> 1).await;
        proxy.part(FILM, 0..9).await;
        proxy.web.always(Some(WebMisdeed::Cap(cap)));
        let (asked, far) = (proxy.web.count(FILM), 2 * CHUNK + 200_000);
        let answer = proxy.part(FILM, far..far + CHUNK).await;
        is_part(&proxy, &answer, far..far + cap, BYTES, &format!("by {cap}"));
        let more = proxy.web.count(FILM) - asked;
        assert!(more <= 5, "by {cap}: {:?}", proxy.web.ranges(FILM));
        let failed = proxy.edge.metric("nearcast_edge_fills_total{end=\"failed\"}").await;
        assert_eq!(failed, 1.0, "by {cap}");
        proxy.web.always(None);
        proxy.part(FILM, 0..9).await;
        proxy.web.always(Some(WebMisdeed::Cap(cap)));
        let asked = proxy.web.count(FILM);
        assert!(proxy.get(FILM).await.body.is_err(), "by {cap}");
        assert!(proxy.web.count(FILM) - asked <= 3, "by {cap}: {:?}", proxy.web.ranges(FILM));
        assert!(proxy.get(FILM).await.bytes() == &proxy.web.whole(FILM), "by {cap}");
    }
}

/// The same where it was revalidated first.
#[tokio::test]
async fn crumbs_of_what_was_revalidated_end_too() {
    let item = Item::of(BYTES).cache_control("max-age=0");
    let proxy = stage(item, u64::MAX >> 1).await;
    proxy.part(FILM, 0..9).await;
    proxy.web.always(Some(WebMisdeed::Cap(100)));
    let (asked, far) = (proxy.web.count(FILM), 2 * CHUNK + 200_000);
    let answer = proxy.part(FILM, far..far + CHUNK).await;
    is_part(&proxy, &answer, far..far + 100, BYTES, "revalidated");
    assert!(proxy.web.count(FILM) - asked <= 8, "{:?}", proxy.web.ranges(FILM));
}

/// What is too large for the cache, or can't be kept in parts.
#[tokio::test]
async fn what_is_passed_on_is_passed_on_as_short_as_it_came() {
    let vast = 17 << 40;
    let weak = Item::of(BYTES).validator(Validator::Weak);
    for (item, cap) in [(Item::of(vast), CHUNK), (Item::of(vast), 100), (weak, 2 * CHUNK)] {
        let total = item.bytes;
        let proxy = stage(item, cap).await;
        for start in [0, CHUNK, 3 * CHUNK + 5000] {
            // A chunk is asked for at first; then it is known that none is kept.
            let end = start + cap;
            for (last, end) in [("", end), ("99999999999", end), ("1", start + 10)] {
                let last = if last == "1" { (start + 9).to_string() } else { last.to_owned() };
                let (field, asked) = (format!("bytes={start}-{last}"), proxy.web.count(FILM));
                let answer = proxy.get_with(FILM, &[("range", &field)]).await;
                is_part(&proxy, &answer, start..end.min(total), total, &field);
                assert_eq!(answer.verdict(), "bypass", "{field}");
                let more = proxy.web.count(FILM) - asked;
                assert_eq!(more, 1, "{:?}", proxy.web.ranges(FILM));
            }
        }
        assert!(proxy.web.ranges(FILM).iter().all(|range| !range.is_empty()));
    }
}

/// A chunk that came in part keeps its place at the origin until it is whole: those who write
/// chunks would wait for a place, and those who have a place for one of the few turns to write.
#[tokio::test]
async fn more_objects_at_a_time_than_chunks_are_written_all_come() {
    // The second one says of each range with an end that there is none.
    for misdeed in [WebMisdeed::Cap(CHUNK / 2), WebMisdeed::Digits(CHUNK / 2)] {
        more_objects_than_are_written_come(misdeed).await;
    }
}

async fn more_objects_than_are_written_come(misdeed: WebMisdeed) {
    const OBJECTS: usize = 24;
    const PLACES: usize = 2;
    const FILM_BYTES: u64 = CHUNK + CHUNK / 2;
    let (dir, web) = (tempfile::tempdir().unwrap(), Web::start().await);
    let site = serde_json::json!({ "retries": 0, "hedge": false, "in-flight-max": PLACES });
    let mut settings = proxy_settings(dir.path(), &web.url, &site);
    // A quarter of it is written at a time: eight chunks.
    settings.memory = Some(ByteSize(32 * CHUNK));
    let proxy = Proxy { edge: Edge::start(settings).await, dir, web };
    proxy.web.always(Some(misdeed));
    proxy.web.hold(Hold::Head);
    let paths: Vec<_> = (0..OBJECTS).map(|number| format!("/film-{number}")).collect();
    let mut asked = Vec::new();
    for path in &paths {
        proxy.web.put(path, Item::of(FILM_BYTES));
        let url = proxy.url(path);
        let asking = async move { get(&url, &[("range", "bytes=0-")]).await };
        asked.push(tokio::spawn(asking));
    }
    let queued =
        format!("nearcast_edge_upstream_queued_requests{{hop={:?},site=\"*\"}}", proxy.web.url);
    until("all but two wait", || async {
        let waiting = proxy.edge.metric(&queued).await;
        (waiting == (OBJECTS - PLACES) as f64).then_some(())
    })
    .await;
    proxy.web.release();
    for (path, answer) in paths.iter().zip(asked) {
        let answer = answer.await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.verdict()), (206, "origin"), "{path}");
        assert!(answer.bytes() == &proxy.web.whole(path), "{path}");
        assert_eq!(proxy.web.sent(path), FILM_BYTES, "{path}: {:?}", proxy.web.ranges(path));
    }
    assert!(proxy.web.busy_max() <= PLACES);
}

/// What was begun is completed for nobody, but no more is asked for.
#[tokio::test]
async fn who_leaves_ends_the_series_of_answers() {
    let proxy = stage(Item::of(20 * CHUNK), CHUNK).await;
    proxy.web.hold(Hold::Byte(2 * CHUNK));
    let mut film = proxy.open(FILM, &[("range", "bytes=0-")]).await;
    // So far that the edge has somebody to ask the third one for, whatever sockets buffer.
    let taken = film.take(2 * CHUNK as usize).await.unwrap();
    assert!(taken == proxy.web.part(FILM, 0..2 * CHUNK));
    let is_held = || async { (proxy.web.held() == 1).then_some(()) };
    until("the third answer", is_held).await;
    drop(film);
    let gone = async |gauge: &str| (proxy.edge.metric(gauge).await == 0.0).then_some(());
    until("the client is gone", || gone("nearcast_edge_responses ")).await;
    proxy.web.release();
    until("nothing is fetched", || gone("nearcast_edge_filling_chunks ")).await;
    assert!(proxy.web.count(FILM) <= 3, "{:?}", proxy.web.ranges(FILM));
}
