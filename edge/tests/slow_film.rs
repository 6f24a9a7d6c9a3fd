//! A few clients that read one cold film slowly, which is larger than memory: the origin sends it
//! about once.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{
    Edge, Item, Proxy, RANGE_BYTES_MAX, SMALL_BUFFER_BYTES, Stopped, Web, proxy_settings,
    range_bytes,
};
use service::value::ByteSize;

const MIB: usize = 1 << 20;
const FILM: &str = "/film";
const FILM_BYTES: usize = 70 * MIB;
const SLOW_READERS: usize = 8;
/// From one slow reader to the next.
const LAG_BYTES: usize = MIB;
const PORTION_BYTES: usize = 256 << 10;

/// Each takes a portion in turn, some further on than others, of a film that is larger than
/// memory. A fetch is further ahead of them than what a full memory keeps of what nobody has read.
#[tokio::test(flavor = "multi_thread")]
async fn those_who_read_a_cold_film_slowly_cost_each_byte_about_once() {
    // One answer for all of it, and one for each 16 MiB.
    for is_begun in [false, true] {
        film_is_read_slowly(is_begun).await;
    }
}

async fn film_is_read_slowly(is_begun: bool) {
    let (dir, web) = (tempfile::tempdir().unwrap(), Web::start().await);
    let mut settings = proxy_settings(dir.path(), &web.url, &serde_json::json!({}));
    settings.memory = Some(ByteSize(48 * MIB as u64));
    let proxy = Proxy { edge: Edge::start(settings).await, dir, web };
    proxy.web.put(FILM, Item::of(FILM_BYTES as u64));
    let whole = proxy.web.whole(FILM);
    if is_begun {
        proxy.part(FILM, 0..9).await;
    }
    let mut readers = Vec::new();
    for _ in 0..SLOW_READERS {
        let reader = Stopped::with_buffer(&proxy.edge, FILM, 4 * SMALL_BUFFER_BYTES).await;
        readers.push(reader);
    }
    let last = FILM_BYTES + (SLOW_READERS - 1) * LAG_BYTES;
    for foremost in (0..last).step_by(PORTION_BYTES) {
        for (number, reader) in readers.iter_mut().enumerate() {
            let Some(at) = foremost.checked_sub(number * LAG_BYTES) else { continue };
            if at < FILM_BYTES {
                let portion = reader.takes(PORTION_BYTES).await;
                assert!(portion == whole[at..at + PORTION_BYTES], "reader {number} at {at}");
            }
        }
    }
    let sent = proxy.web.sent(FILM);
    println!("{sent} bytes sent of {FILM_BYTES}, by {} answers", proxy.web.count(FILM));
    let ranges = proxy.web.ranges(FILM);
    assert!(sent <= FILM_BYTES as u64 * 11 / 10, "{sent}: {ranges:?}");
    if is_begun {
        let is_short = |range: &String| range_bytes(range) <= RANGE_BYTES_MAX;
        assert!(ranges.iter().all(is_short), "{ranges:?}");
    }
}
