//! What is acknowledged holds: over restarts, failing disks, cuts and flipped bits.

use super::writer::{COMPACT_BYTES_MIN, unix_ms};
use super::*;
use crate::purge::What;
use crate::purge::file::{self, Header};
use crate::purge::rules::tests::{any_head, by_the_list, numbered, purge};
use crate::row::tests::head;
use proptest::prelude::*;
use std::fs::File;

fn open(path: &Path) -> PurgeLog {
    PurgeLog::open(path, &Registry::new()).unwrap()
}

fn of(what: What) -> Purge {
    Purge { what, site: None, soft: false, note: "test".to_owned() }
}

fn url(text: &str) -> Purge {
    of(What::Url(text.to_owned()))
}

/// A head fetched when the log stood at `epoch`.
fn at(epoch: u64, url: &str) -> Head {
    Head { epoch, ..head("s", url, 1) }
}

#[tokio::test]
async fn a_purge_outlives_a_restart_and_reaches_what_is_being_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("purges");
    let log = open(&path);
    let before = at(log.number(), "h.test/a");
    assert_eq!(log.verdict(&before), Verdict::Valid);
    let number = log.append(url("h.test/a")).await.unwrap();
    // The fetch of `before` may still run: its epoch is from when it began.
    assert_eq!(log.verdict(&before), Verdict::Hard);
    let after = at(log.number(), "h.test/a");
    assert_eq!(log.verdict(&after), Verdict::Valid);
    let soft = Purge { soft: true, ..of(What::Tag("film".into())) };
    log.append(soft).await.unwrap();
    assert_eq!(log.verdict(&after), Verdict::Soft);
    let at_last = log.number();
    drop(log);

    let log = open(&path);
    assert_eq!(log.number(), at_last);
    // Heads as they come back from disk.
    let (before, after) = (before.clone(), after.clone());
    assert_eq!(log.verdict(&before), Verdict::Hard);
    assert_eq!(log.verdict(&after), Verdict::Soft);
    assert_eq!(log.recent(9).last().unwrap().number, number);
    assert!(log.append(url("h.test/b")).await.unwrap() > at_last);
}

#[tokio::test]
async fn a_bad_purge_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder.path().join("purges"));
    let number = log.number();
    let site = Purge { site: Some(String::new()), ..of(What::All) };
    for (purge, wanted) in [
        (of(What::Prefix(String::new())), "prefix: is empty"),
        (of(What::Tag("x".repeat(9_000))), "tag: has 9000 bytes: expected at most 8192"),
        (site, "site: is empty"),
    ] {
        let error = log.append(purge).await.unwrap_err().to_string();
        assert!(error.starts_with(wanted), "{error}");
    }
    assert_eq!(log.number(), number);
    let long = Purge { note: "é".repeat(400), ..url("h.test/a") };
    log.append(long).await.unwrap();
    assert_eq!(log.recent(1)[0].purge.note, "é".repeat(256));
}

#[tokio::test]
async fn purges_that_wait_together_are_all_durable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("purges");
    let log = open(&path);
    let mut appends = tokio::task::JoinSet::new();
    for number in 0..500 {
        let log = log.clone();
        appends.spawn(async move { log.append(url(&format!("h.test/{number}"))).await });
    }
    let mut numbers: Vec<u64> = appends.join_all().await.into_iter().map(Result::unwrap).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 500, "a number was given twice");
    let epoch = numbers[0] - 1;
    drop(log);
    let log = open(&path);
    for number in 0..500 {
        assert_eq!(log.verdict(&at(epoch, &format!("h.test/{number}"))), Verdict::Hard);
    }
}

#[tokio::test]
async fn the_file_stays_within_twice_what_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("purges");
    let log = open(&path);
    let epoch = log.number();
    let text = "h.test/".to_owned() + &"a".repeat(1_000);
    for _ in 0..8 {
        let mut appends = tokio::task::JoinSet::new();
        for _ in 0..250 {
            let (log, purge) = (log.clone(), url(&text));
            appends.spawn(async move { log.append(purge).await });
        }
        assert!(appends.join_all().await.iter().all(Result::is_ok));
    }
    assert!(log.state.metrics.compactions.get() > 0);
    let bytes = std::fs::metadata(&path).unwrap().len();
    assert!(bytes < 2 * COMPACT_BYTES_MIN, "{bytes}");
    let number = log.number();
    drop(log);
    let log = open(&path);
    assert_eq!((log.number(), log.verdict(&at(epoch, &text))), (number, Verdict::Hard));
}

#[tokio::test]
async fn what_is_folded_holds_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("purges");
    let few = || PurgeLog::open_for(&path, &Registry::new(), 3_000, Words::PURGES).unwrap();
    let log = few();
    let epoch = log.number();
    for hundreds in 0..7 {
        let mut appends = tokio::task::JoinSet::new();
        for number in hundreds * 500..(hundreds + 1) * 500 {
            let purge = Purge { site: Some("s".into()), ..url(&format!("h.test/{number}")) };
            let log = log.clone();
            appends.spawn(async move { log.append(purge).await });
        }
        assert!(appends.join_all().await.iter().all(Result::is_ok));
    }
    let is_ended = |log: &PurgeLog, number: usize| {
        log.verdict(&at(epoch, &format!("h.test/{number}"))) == Verdict::Hard
    };
    assert!((0..3_500).all(|number| is_ended(&log, number)));
    // Its thread has ended once another purge is answered.
    log.append(url("h.test/last")).await.unwrap();
    let kept = log.state.rules.read().unwrap().len();
    assert!((1_500..2_600).contains(&kept), "{kept}");
    assert_eq!(log.state.metrics.folded.get() as usize, 3_501 + 1 - kept);
    drop(log);
    let log = few();
    assert!((0..3_500).all(|number| is_ended(&log, number)));
}

#[tokio::test]
async fn a_disk_that_fails_refuses_purges_until_it_works() {
    let folder = tempfile::tempdir().unwrap();
    // A folder stands where the file should be: nothing can be opened, read or renamed.
    let path = folder.path().join("purges");
    std::fs::create_dir_all(path.join("in the way")).unwrap();
    let log = open(&path);
    let stored = at(5, "h.test/b");
    assert_eq!(log.verdict(&stored), Verdict::Hard, "an unknown log's head was trusted");
    let fresh = at(log.number(), "h.test/a");
    let error = log.append(url("h.test/a")).await.unwrap_err();
    assert!(matches!(error, Error::NotDurable { .. }), "{error}");
    assert!(error.to_string().contains("purges can't be written"), "{error}");
    assert_eq!(log.verdict(&fresh), Verdict::Valid, "a purge in force that is not durable");
    std::fs::remove_dir_all(&path).unwrap();
    log.append(url("h.test/a")).await.unwrap();
    assert_eq!(log.verdict(&fresh), Verdict::Hard);
    drop(log);
    assert_eq!(open(&path).verdict(&fresh.clone()), Verdict::Hard);
}

#[test]
fn a_failed_write_is_followed_by_a_whole_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("purges");
    let metrics = PurgeMetrics::new(&Registry::new()).unwrap();
    let (mut writer, rules, recent) = Writer::open(&path, PURGES_MAX, &metrics, Words::PURGES);
    let number = AtomicU64::new(writer.number);
    let state = InForce {
        words: Words::PURGES,
        number,
        rules: RwLock::new(rules),
        recent: RwLock::new(recent),
        metrics,
    };
    // Open for reading alone, so the kernel refuses to write.
    writer.file = Some(File::open(&path).unwrap());
    let lost = writer.number_them(vec![url("h.test/a")]);
    assert!(writer.append(&lost, &state).is_err());
    let kept = writer.number_them(vec![url("h.test/b")]);
    writer.append(&kept, &state).unwrap();
    assert!(kept[0].number > lost[0].number);
    let (again, rules, _) = Writer::open(&path, PURGES_MAX, &state.metrics, Words::PURGES);
    assert_eq!(again.number, kept[0].number);
    assert_eq!(rules.kept().map(|kept| kept.number).collect::<Vec<_>>(), [kept[0].number]);
}

/// What another node has kept since before it must not be had again.
#[test]
fn a_purge_of_everything_is_known_with_its_time_after_a_rewrite_and_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("purges");
    let metrics = PurgeMetrics::new(&Registry::new()).unwrap();
    let last = |rules: &Rules| rules.last("s", "h.test/a", &[]).hard_ms;
    let (mut writer, mut rules, _) = Writer::open(&path, PURGES_MAX, &metrics, Words::PURGES);
    assert_eq!(last(&rules), None, "a log that was never there has lost nothing");
    for purged in writer.number_them(vec![url("h.test/b"), of(What::All)]) {
        drop(rules.apply(purged));
    }
    writer.rewrite(&rules).unwrap();
    let (again, read, _) = Writer::open(&path, PURGES_MAX, &metrics, Words::PURGES);
    assert_eq!((again.number, last(&read)), (writer.number, last(&rules)));
    assert!(last(&read).is_some());
    assert_eq!(metrics.damaged.with_label_values(&["damaged"]).get(), 0);
}

#[test]
fn where_purges_are_lost_everything_was_purged_now() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("purges");
    let metrics = PurgeMetrics::new(&Registry::new()).unwrap();
    let before = unix_ms();
    std::fs::write(&path, b"no log").unwrap();
    let last = |rules: &Rules| rules.last("s", "h.test/a", &[]).hard_ms;
    let (writer, rules, _) = Writer::open(&path, PURGES_MAX, &metrics, Words::PURGES);
    assert!(last(&rules) >= Some(before));
    let ended = at(writer.number - 1, "h.test/a");
    assert_eq!(rules.verdict(&ended, writer.number), Verdict::Hard);
    assert_eq!(rules.verdict(&at(writer.number, "h.test/a"), writer.number), Verdict::Valid);
    let (again, read, _) = Writer::open(&path, PURGES_MAX, &metrics, Words::PURGES);
    assert_eq!((again.number, last(&read)), (writer.number, last(&rules)));
    assert_eq!(metrics.damaged.with_label_values(&["damaged"]).get(), 1, "once");
}

/// A log of few purges as a file, and where each ends.
fn small_log(path: &Path, purges: Vec<Purge>) -> (Vec<Purged>, Vec<u64>) {
    let purges = numbered(purges, 101);
    let header = Header { number: 100, floor: 100 };
    let (_, bytes) = file::replace(path, header, purges.iter()).unwrap();
    let mut ends: Vec<u64> = purges.iter().map(file::record_bytes).collect();
    ends.iter_mut().fold(file::HEADER_BYTES, |start, end| {
        *end += start;
        *end
    });
    assert_eq!(ends.last().copied().unwrap_or(file::HEADER_BYTES), bytes);
    (purges, ends)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2))]

    /// Wherever a crash cuts the file, the purges before the cut hold, and the next ones
    /// are appended as though nothing had been.
    #[test]
    fn a_file_cut_anywhere_loses_no_whole_record(
        purges in proptest::collection::vec(purge(), 1..4),
        heads in proptest::collection::vec(any_head(100..104), 1..6),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("purges");
        let metrics = PurgeMetrics::new(&Registry::new()).unwrap();
        let (purges, ends) = small_log(&path, purges);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (writer, rules, _) = Writer::open(&path, PURGES_MAX, &metrics, Words::PURGES);
            let kept = ends.iter().filter(|end| **end <= cut as u64).count();
            for head in &heads {
                let got = rules.verdict(head, writer.number.max(head.epoch));
                if cut < file::HEADER_BYTES as usize {
                    prop_assert_eq!(got, Verdict::Hard, "cut at {}", cut);
                } else {
                    prop_assert_eq!(got, by_the_list(&purges[..kept], head), "cut at {}", cut);
                }
            }
            let again = Writer::open(&path, PURGES_MAX, &metrics, Words::PURGES);
            prop_assert_eq!(again.0.number, writer.number);
            prop_assert_eq!(again.1.len(), rules.len());
        }
    }

    /// Whatever bit a disk flips, no head comes back that was purged.
    #[test]
    fn a_flipped_bit_resurrects_nothing(
        purges in proptest::collection::vec(purge(), 1..4),
        heads in proptest::collection::vec(any_head(100..104), 1..6),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("purges");
        let metrics = PurgeMetrics::new(&Registry::new()).unwrap();
        let (purges, _) = small_log(&path, purges);
        let whole = std::fs::read(&path).unwrap();
        // One bit of each byte, another one in each.
        for bit in (0..whole.len()).map(|byte| byte * 8 + byte % 8) {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &flipped).unwrap();
            let (writer, rules, _) = Writer::open(&path, PURGES_MAX, &metrics, Words::PURGES);
            prop_assert!(writer.number > 104, "bit {bit}: numbers are given again");
            for head in &heads {
                let got = rules.verdict(head, writer.number);
                prop_assert!(got >= by_the_list(&purges, head), "bit {bit}");
            }
        }
    }
}
