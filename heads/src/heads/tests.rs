//! Heads are kept, found again, and lost without harm: restarts, damage, disks that fail.

use super::*;
use crate::db;
use crate::row::tests::{head, selected};
use rand::{Rng, SeedableRng};
use rusqlite::Connection;
use std::time::Instant;

mod variants;

const PATIENCE: Duration = Duration::from_secs(20);

fn limits() -> Limits {
    Limits { read_max: PATIENCE, ..Limits::default() }
}

fn open(path: &Path, limits: Limits) -> Heads {
    Heads::open(path, limits, &Registry::new()).unwrap()
}

fn of(url: &str, body: u8) -> (KeyId, Arc<Head>) {
    (KeyId::of("s", url), Arc::new(head("s", url, body)))
}

/// Waits until it is so.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < end, "never came: {what}");
        tokio::task::yield_now().await;
    }
}

/// A folder for one test, and the database in it.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("heads.db");
    (folder, path)
}

fn bodies(variants: &Variants) -> Vec<u8> {
    variants.iter().map(|head| head.body[0]).collect()
}

#[tokio::test]
async fn heads_outlive_a_restart() {
    let (_folder, path) = folder();
    let heads = open(&path, limits());
    let (key, first) = of("h.test/a", 1);
    assert!(heads.get(&key).await.is_empty());
    heads.put(key, Arc::clone(&first));
    heads.put(key, Arc::new(selected((*first).clone(), "br")));
    assert_eq!(heads.in_memory(&key).unwrap().len(), 2);
    let (gone, head) = of("h.test/gone", 2);
    heads.put(gone, Arc::clone(&head));
    heads.remove(gone, &head);
    let (all_gone, head) = of("h.test/all-gone", 3);
    heads.put(all_gone, head);
    heads.invalidate(&[all_gone]).await.unwrap();
    heads.close(PATIENCE).await;

    let heads = open(&path, limits());
    assert!(heads.in_memory(&key).is_none());
    let back = heads.get(&key).await;
    assert_eq!(back.len(), 2);
    assert!(back.iter().any(|head| format!("{head:?}") == format!("{first:?}")));
    assert!(heads.in_memory(&key).is_some());
    assert!(heads.get(&gone).await.is_empty() && heads.get(&all_gone).await.is_empty());
    heads.close(PATIENCE).await;
}

/// As a kill would leave the files: what is there when the future ends, not what is written
/// in the tenth of a second after.
#[tokio::test]
async fn what_was_invalidated_is_gone_from_disk_when_that_is_answered() {
    let (_folder, path) = folder();
    let heads = open(&path, Limits { flush_max: PATIENCE, ..limits() });
    let put: Vec<_> = (0..100).map(|number| of(&format!("h.test/{number}"), 1)).collect();
    put.iter().for_each(|(key, head)| heads.put(*key, Arc::clone(head)));
    heads.flushed().await.unwrap();
    let reader = db::open_reader(&path).unwrap();
    let rows = |key: &KeyId| db::read(&reader, key, &heads.0.shared.metrics).unwrap().0.len();
    assert!(put.iter().all(|(key, _)| rows(key) == 1));
    // Half of them by as many at a time.
    let ending = put[..50].iter().map(|(key, _)| heads.invalidate(std::slice::from_ref(key)));
    let ended = futures::future::join_all(ending).await;
    assert!(ended.into_iter().all(|ended| ended.is_ok()));
    assert!(put.iter().zip(0..).all(|((key, _), place)| rows(key) == usize::from(place >= 50)));
    // Now that this is known, there is nothing to wait for.
    let nothing = heads.0.shared.metrics.invalidations.with_label_values(&["nothing"]);
    assert_eq!(nothing.get(), 0);
    heads.invalidate(&[put[0].0, put[1].0]).await.unwrap();
    assert_eq!(nothing.get(), 1);
    heads.put(put[0].0, Arc::clone(&put[0].1));
    heads.invalidate(&[put[0].0]).await.unwrap();
    assert_eq!((rows(&put[0].0), nothing.get()), (0, 1));
    heads.close(PATIENCE).await;
    assert!(matches!(heads.invalidate(&[put[60].0]).await, Err(Error::Closed)));
}

#[tokio::test]
async fn an_invalidation_that_the_disk_refuses_says_so_and_is_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("later");
    let path = dir.join("heads.db");
    let heads = open(&path, limits());
    let (key, head) = of("h.test/a", 1);
    heads.put(key, Arc::clone(&head));
    let error = heads.invalidate(&[key]).await.unwrap_err().to_string();
    assert!(error.contains("heads.db is not on disk: the disk"), "{error}");
    assert!(heads.get(&key).await.is_empty());
}

#[tokio::test]
async fn what_a_304_refreshed_is_kept_and_what_went_meanwhile_is_not_brought_back() {
    let (_folder, path) = folder();
    let heads = open(&path, limits());
    let (key, old) = of("h.test/a", 1);
    heads.put(key, Arc::clone(&old));
    heads.update(key, &Arc::new(Head { epoch: 99, ..(*old).clone() }));
    assert_eq!(heads.get(&key).await[0].epoch, 99);
    // The origin has another version since: the 304 for the old one comes late.
    heads.put(key, of("h.test/a", 2).1);
    heads.update(key, &Arc::new(Head { epoch: 100, ..(*old).clone() }));
    assert_eq!(bodies(&heads.get(&key).await), [2]);
    heads.close(PATIENCE).await;
    assert_eq!(bodies(&open(&path, limits()).get(&key).await), [2]);
}

#[tokio::test]
async fn bytes_are_of_the_earliest_moment_that_was_told_of_their_body() {
    let (_folder, path) = folder();
    let heads = open(&path, limits());
    let (key, old) = of("h.test/a", 1);
    let fetched = |fetched_ms| Head { fetched_ms, ..(*old).clone() };
    heads.put(key, Arc::new(fetched(9)));
    assert_eq!(heads.update(key, &fetched(5)).fetched_ms, 5);
    // Who looked before that renews it, or has it whole.
    assert_eq!(heads.update(key, &fetched(9)).fetched_ms, 5);
    heads.put(key, Arc::new(fetched(9)));
    assert_eq!(heads.get(&key).await[0].fetched_ms, 5);
    heads.put(key, Arc::new(Head { body: [2; 16], ..fetched(9) }));
    assert_eq!(heads.get(&key).await[0].fetched_ms, 9, "other bytes");
}

/// With hardly any memory every lookup goes by the disk and what waits for it.
#[tokio::test]
async fn a_head_that_left_memory_is_as_it_was_left() {
    let (_folder, path) = folder();
    let small = Limits { memory_bytes: 0, ..limits() };
    let heads = open(&path, small);
    for round in 0..40u8 {
        for number in 0..10u8 {
            let (key, head) = of(&format!("h.test/{number}"), round * 5 + number % 5);
            match (round + number) % 3 {
                0 => {
                    heads.put(key, Arc::clone(&head));
                    assert_eq!(bodies(&heads.get(&key).await), [head.body[0]]);
                }
                1 => {
                    heads.invalidate(&[key]).await.unwrap();
                    assert!(heads.get(&key).await.is_empty());
                }
                _ => {
                    let before = bodies(&heads.get(&key).await);
                    heads.remove(key, &head);
                    heads.update(key, &head);
                    assert_eq!(bodies(&heads.get(&key).await), before);
                }
            }
            assert!(heads.in_memory(&key).is_none());
        }
    }
}

#[tokio::test]
async fn many_that_ask_for_one_key_share_a_read() {
    let (_folder, path) = folder();
    let heads = open(&path, limits());
    let (key, head) = of("h.test/a", 1);
    heads.put(key, head);
    heads.close(PATIENCE).await;
    let heads = open(&path, limits());
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..2_000 {
        let heads = heads.clone();
        asking.spawn(async move { heads.get(&key).await.len() });
    }
    assert!(asking.join_all().await.into_iter().all(|found| found == 1));
}

#[tokio::test]
async fn keys_that_have_nothing_push_none_out_that_has_something() {
    let (_folder, path) = folder();
    let small = Limits { memory_bytes: 256 << 10, ..limits() };
    let heads = open(&path, small);
    let (key, head) = of("h.test/a", 1);
    heads.put(key, head);
    assert_eq!(heads.get(&key).await.len(), 1);
    for number in 0..3_000 {
        assert!(heads.get(&KeyId::of("s", &number.to_string())).await.is_empty());
    }
    assert!(heads.in_memory(&key).is_some());
    assert!(heads.0.shared.metrics.evicted.with_label_values(&["memory"]).get() > 0);
}

#[tokio::test]
async fn rows_are_bounded_and_the_longest_unused_go() {
    const MAX: i64 = 512 << 10;
    let (_folder, path) = folder();
    let few = Limits { disk_bytes: MAX as u64, flush_max: PATIENCE, ..limits() };
    let heads = open(&path, few);
    for number in 0..3_000 {
        let (key, head) = of(&format!("h.test/{number}"), 1);
        heads.put(key, head);
        if number % 300 == 299 {
            heads.flushed().await.unwrap();
        }
    }
    let metrics = &heads.0.shared.metrics;
    let (rows, bytes) = (&metrics.rows, &metrics.disk_bytes);
    let evicted = metrics.evicted.with_label_values(&["disk"]);
    until("few bytes", async || bytes.get() <= MAX && rows.get() + evicted.get() as i64 == 3_000)
        .await;
    assert!(bytes.get() > MAX / 2 && rows.get() > 300, "{} {}", bytes.get(), rows.get());
    // What goes leaves room for what comes.
    assert!(std::fs::metadata(&path).unwrap().len() <= 2 * MAX as u64);
    let left = rows.get();
    heads.close(PATIENCE).await;
    // After a restart the number is known at once: nobody waits until all are counted.
    let connection = Connection::open(&path).unwrap();
    let count = "SELECT count(*) FROM heads";
    assert_eq!(connection.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap(), left);
    connection.execute_batch("DROP TABLE heads").unwrap();
    assert_eq!(db::count(&connection).unwrap() as i64, left);
}

#[tokio::test]
async fn a_damaged_row_is_a_miss() {
    let (_folder, path) = folder();
    let heads = open(&path, limits());
    let (key, head) = of("h.test/a", 1);
    heads.put(key, head);
    heads.close(PATIENCE).await;
    let connection = Connection::open(&path).unwrap();
    connection.execute("UPDATE heads SET row = zeroblob(300)", []).unwrap();
    drop(connection);
    let heads = open(&path, limits());
    assert!(heads.get(&key).await.is_empty());
    assert_eq!(heads.0.shared.metrics.damaged.with_label_values(&["row"]).get(), 1);
    heads.put(key, of("h.test/a", 2).1);
    heads.close(PATIENCE).await;
    assert_eq!(bodies(&open(&path, limits()).get(&key).await), [2]);
}

#[tokio::test]
async fn what_is_no_database_is_put_aside() {
    let (_folder, path) = folder();
    for damage in ["not a database, but long enough to be looked at as one", "newer"] {
        if damage == "newer" {
            std::fs::remove_file(&path).unwrap();
            let connection = Connection::open(&path).unwrap();
            connection.pragma_update(None, "user_version", 99).unwrap();
        } else {
            std::fs::write(&path, damage.repeat(50)).unwrap();
        }
        let heads = open(&path, limits());
        let (key, head) = of("h.test/a", 1);
        heads.put(key, head);
        heads.close(PATIENCE).await;
        assert!(path.with_extension("damaged").exists());
        assert_eq!(open(&path, limits()).get(&key).await.len(), 1);
    }
}

/// The pages are overwritten while it runs: found by a read, replaced, and used again.
#[tokio::test]
async fn a_database_that_is_damaged_while_it_runs_is_begun_anew() {
    let (_folder, path) = folder();
    let heads = open(&path, limits());
    for number in 0..200 {
        let (key, head) = of(&format!("h.test/{number}"), 1);
        heads.put(key, head);
    }
    heads.close(PATIENCE).await;
    let bytes = std::fs::read(&path).unwrap();
    let mut damaged = bytes[..4096].to_vec();
    damaged.resize(bytes.len(), 0xaa);
    std::fs::write(&path, damaged).unwrap();

    let heads = open(&path, limits());
    let (key, head) = of("h.test/7", 2);
    let damaged = heads.0.shared.metrics.damaged.with_label_values(&["database"]);
    until("the damage is found", async || {
        // By a read, or before it.
        let is_found = damaged.get() > 0;
        assert!(is_found || heads.get(&key).await.is_empty());
        is_found
    })
    .await;
    heads.put(key, head);
    assert_eq!(bodies(&heads.get(&key).await), [2]);
    heads.close(PATIENCE).await;
    assert_eq!(bodies(&open(&path, limits()).get(&key).await), [2]);
}

/// Bits flipped and ends cut off anywhere: heads are missing, none is another than was put.
#[tokio::test]
async fn no_damage_makes_another_head() {
    let (_folder, path) = folder();
    let heads = open(&path, limits());
    let put: Vec<_> = (0..100).map(|number| of(&format!("h.test/{number}"), number)).collect();
    put.iter().for_each(|(key, head)| heads.put(*key, Arc::clone(head)));
    heads.close(PATIENCE).await;
    let whole = std::fs::read(&path).unwrap();
    let mut random = rand::rngs::StdRng::seed_from_u64(4);
    let mut found = 0;
    for round in 0..60 {
        let mut damaged = whole.clone();
        for _ in 0..1 << (round % 6) {
            let bit = random.random_range(0..whole.len() * 8);
            damaged[bit / 8] ^= 1 << (bit % 8);
        }
        if round % 10 == 9 {
            damaged.truncate(random.random_range(0..whole.len()));
        }
        std::fs::write(&path, damaged).unwrap();
        let heads = open(&path, limits());
        for (key, head) in &put {
            for back in heads.get(key).await.iter() {
                assert_eq!(format!("{back:?}"), format!("{head:?}"), "round {round}");
                found += 1;
            }
        }
        heads.close(PATIENCE).await;
    }
    assert!(found > 1_000, "{found} of 6,000 heads came back");
}

#[tokio::test]
async fn a_disk_that_fails_leaves_heads_in_memory_until_it_works() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("later");
    let path = dir.join("heads.db");
    let heads = open(&path, limits());
    let (key, head) = of("h.test/a", 1);
    heads.put(key, head);
    assert_eq!(bodies(&heads.get(&key).await), [1]);
    assert!(heads.0.shared.metrics.failures.with_label_values(&["open"]).get() > 0);
    std::fs::create_dir(&dir).unwrap();
    until("the disk is tried again", async || heads.0.shared.metrics.rows.get() > 0).await;
    heads.close(PATIENCE).await;
    assert_eq!(bodies(&open(&path, limits()).get(&key).await), [1]);
}

/// Past the bound on what waits, heads stay in memory and the disk is emptied rather than
/// left to say what was removed.
#[tokio::test]
async fn removals_lost_while_the_disk_fails_empty_the_database() {
    let (_folder, path) = folder();
    let heads = open(&path, limits());
    let (key, head) = of("h.test/removed", 1);
    heads.put(key, Arc::clone(&head));
    heads.close(PATIENCE).await;

    // Held by another process, the database takes no change.
    let holder = Connection::open(&path).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let heads = open(&path, Limits { waiting_bytes: 64 << 10, ..limits() });
    assert_eq!(heads.get(&key).await.len(), 1);
    for number in 0..4_000 {
        let (other, head) = of(&format!("h.test/{number}"), 2);
        heads.put(other, Arc::clone(&head));
        heads.remove(other, &head);
    }
    heads.remove(key, &head);
    assert!(heads.0.shared.metrics.unwritten.with_label_values(&["busy"]).get() > 0);
    assert!(heads.get(&key).await.is_empty());
    holder.execute_batch("ROLLBACK").unwrap();
    drop(holder);
    until("the database is emptied", async || heads.0.shared.metrics.restarted.get() > 0).await;
    heads.close(PATIENCE).await;
    assert!(open(&path, limits()).get(&key).await.is_empty());
}
