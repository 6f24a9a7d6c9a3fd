//! Hundreds of clients that stop reading in mid-body, each of another chunk: memory stays below
//! its ceiling, for the cache and for the process, and others are served. One story: others in this
//! process would count as its memory.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;
mod versions;

use common::{Edge, Stopped, get, settings, until};
use service::value::ByteSize;
use std::time::Instant;
use versions::{Origin, Thing};

const MIB: usize = 1 << 20;
const READERS: usize = 500;
const MEMORY: usize = 64 * MIB;
/// What this process may hold beside the memory tier for each reader, all in all: its
/// connection and its response here, and the origin that answers, which is in this process too.
/// Half of the one chunk that a reader who held its own would hold.
const BYTES_A_READER: usize = 512 << 10;

/// Resident bytes of this process, of which the arena is a part.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() << 10
}

/// Memory that the cache keeps, and that only fetches and responses hold, at one time.
async fn kept_and_held(edge: &Edge) -> (usize, usize) {
    let text = get(&format!("{}/metrics", edge.admin), &[]).await.text();
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse().unwrap()
    };
    (of("nearcast_edge_memory_kept_bytes "), of("nearcast_edge_memory_held_bytes "))
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_stop_leave_memory_to_others() {
    let dir = tempfile::tempdir().unwrap();
    // What others ask for, and something for each reader.
    let things = [&[Thing::strong(3 * MIB); 2][..], &[Thing::strong(12 * MIB); READERS]].concat();
    let origin = Origin::start(things).await;
    let mut settings = settings(dir.path(), &origin.url);
    settings.control_plane = None;
    settings.listen = vec!["http://127.0.0.1:0".into()];
    settings.memory = Some(ByteSize(MEMORY as u64));
    let edge = Edge::start(settings).await;
    let hit = format!("{}/0", edge.http);
    let right = origin.content(0, 1);
    assert_eq!(get(&hit, &[]).await.bytes(), &right);

    let before = resident_bytes();
    let mut readers = Vec::new();
    for reader in 0..READERS {
        readers.push(Stopped::at(&edge, &format!("/{}", 2 + reader)).await);
        let (kept, held) = kept_and_held(&edge).await;
        assert!(kept + held <= MEMORY, "{kept} + {held}");
        if reader % 50 == 0 {
            assert_eq!(get(&hit, &[]).await.bytes(), &right);
        }
    }
    let grown = resident_bytes().saturating_sub(before);
    let (_, held) = kept_and_held(&edge).await;
    println!(
        "{READERS} stopped readers hold {} MiB of {} MiB; the process grew by {} MiB",
        held / MIB,
        MEMORY / MIB,
        grown / MIB
    );
    assert!(grown <= MEMORY + READERS * BYTES_A_READER, "{grown}");
    // What others want comes: from memory, and from the origin.
    let asked = Instant::now();
    for _ in 0..20 {
        assert_eq!(get(&hit, &[]).await.bytes(), &right);
    }
    assert!(get(&hit, &[]).await.verdict().contains("hit-memory"));
    assert_eq!(get(&format!("{}/1", edge.http), &[]).await.bytes(), &origin.content(1, 1));
    println!("22 others took {:?}", asked.elapsed());
    drop(readers);
    until("nothing is held", || async { (kept_and_held(&edge).await.1 == 0).then_some(()) }).await;
}
