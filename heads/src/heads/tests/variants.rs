//! Of one key there are few representations, in memory and on disk, and the same ones.

use super::*;
use crate::head::VARIANTS_MAX;

/// By what they were selected, newest first.
fn numbers(variants: &Variants) -> Vec<usize> {
    let number = |head: &Arc<Head>| head.selecting[0].1.as_deref().unwrap().parse().unwrap();
    variants.iter().map(number).collect()
}

fn numbered(head: &Head, number: usize) -> Arc<Head> {
    Arc::new(selected(head.clone(), &number.to_string()))
}

fn rows(path: &Path, key: &KeyId) -> i64 {
    let sql = "SELECT count(*) FROM heads WHERE key = ?1";
    db::open_reader(path).unwrap().query_row(sql, [&key.0[..]], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn the_oldest_goes_from_memory_and_the_same_one_from_disk() {
    let (_folder, path) = folder();
    let heads = open(&path, Limits { flush_max: PATIENCE, ..limits() });
    let (key, head) = of("h.test/a", 0);
    // Batches of all sizes, in which some are put again and some are only refreshed.
    for number in 0..2_000 {
        heads.put(key, numbered(&head, number));
        if number % 7 == 0 {
            heads.put(key, numbered(&head, number.saturating_sub(20)));
            heads.update(key, &numbered(&head, number.saturating_sub(9)));
        }
        if number.is_power_of_two() || number % 150 == 0 {
            heads.flushed().await.unwrap();
            assert!(rows(&path, &key) <= VARIANTS_MAX as i64, "after {number}");
        }
    }
    // The last ones each by itself.
    for number in (1_990..2_010).chain([1_985]) {
        heads.put(key, numbered(&head, number));
        heads.flushed().await.unwrap();
    }
    // Nobody has asked so far: memory can't know that there are no others.
    let kept = numbers(&heads.get(&key).await);
    assert_eq!((kept.len(), kept[0], kept[1]), (VARIANTS_MAX, 1_985, 2_009));
    assert_eq!(rows(&path, &key), VARIANTS_MAX as i64);
    assert_eq!(heads.0.shared.metrics.rows.get(), VARIANTS_MAX as i64);
    heads.close(PATIENCE).await;
    assert_eq!(numbers(&open(&path, limits()).get(&key).await), kept);
}

/// As a database is from before there was a limit.
#[tokio::test]
async fn too_many_rows_of_a_key_are_not_all_read_and_go() {
    let (_folder, path) = folder();
    let heads = open(&path, limits());
    let (key, head) = of("h.test/a", 0);
    heads.put(key, numbered(&head, 0));
    heads.close(PATIENCE).await;
    let connection = Connection::open(&path).unwrap();
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
               INSERT INTO heads (key, variant, body, used, row)
               SELECT key, i, body, used, row FROM heads, n WHERE id = 1";
    connection.execute(sql, []).unwrap();
    connection.execute("UPDATE counted SET heads = 5001", []).unwrap();
    drop(connection);
    let heads = open(&path, limits());
    assert_eq!(heads.get(&key).await.len(), VARIANTS_MAX);
    let gauge = &heads.0.shared.metrics.rows;
    until("few rows", async || gauge.get() == VARIANTS_MAX as i64).await;
    assert_eq!(rows(&path, &key), VARIANTS_MAX as i64);
}
