//! Verdicts are those of a list of all purges, and folding ends no less.

use super::*;
use crate::row::tests::head;
use proptest::prelude::*;

/// One of few sites, URLs and tags, so that purges and heads meet.
pub(in crate::purge) fn purge() -> impl Strategy<Value = Purge> {
    let path = || "[ab]{1,3}".prop_map(|path| format!("h.test/{path}"));
    let what = prop_oneof![
        4 => path().prop_map(What::Url),
        3 => path().prop_map(|path| What::Prefix(path[..path.len() - 1].to_owned())),
        3 => "[xyz]".prop_map(What::Tag),
        1 => Just(What::All),
    ];
    (what, proptest::option::of("[st]"), any::<bool>()).prop_map(|(what, site, soft)| Purge {
        what,
        site,
        soft,
        note: String::new(),
    })
}

/// Heads of the same few, fetched at any time.
pub(in crate::purge) fn any_head(numbers: std::ops::Range<u64>) -> impl Strategy<Value = Head> {
    let tags = proptest::collection::vec("[xyz]?", 0..3);
    ("[st]", "h.test/[ab]{1,4}", tags, numbers).prop_map(|(site, url, tags, epoch)| Head {
        tags: tags.into_iter().map(String::into_boxed_str).collect(),
        epoch,
        ..head(&site, &url, 1)
    })
}

/// What a list of all purges ever would say.
pub(in crate::purge) fn by_the_list(purges: &[Purged], head: &Head) -> Verdict {
    let matches = |purged: &&Purged| {
        let purge = &purged.purge;
        let names = match &purge.what {
            What::Url(url) => **url == *head.url,
            What::Prefix(prefix) => head.url.starts_with(&**prefix),
            What::Tag(tag) => {
                head.tags.iter().any(|other| **other == **tag || &**other == caching::OTHER_TAGS)
            }
            What::All => true,
        };
        let here = purge.site.as_deref().is_none_or(|site| site == &*head.site);
        names && here && purged.number > head.epoch
    };
    let verdicts = purges.iter().filter(matches);
    let verdicts = verdicts.map(|p| if p.purge.soft { Verdict::Soft } else { Verdict::Hard });
    verdicts.max().unwrap_or(Verdict::Valid)
}

pub(in crate::purge) fn numbered(purges: Vec<Purge>, first: u64) -> Vec<Purged> {
    let numbered = (first..).zip(purges);
    numbered.map(|(number, purge)| Purged { number, unix_ms: 0, purge }).collect()
}

proptest! {
    #[test]
    fn a_verdict_is_what_the_list_of_all_purges_says(
        purges in proptest::collection::vec(purge(), 0..40),
        heads in proptest::collection::vec(any_head(10..52), 1..20),
    ) {
        let purges = numbered(purges, 11);
        let last = purges.last().map_or(10, |purged| purged.number);
        let mut rules = Rules::new(10, PURGES_MAX);
        let mut bytes = 0;
        for purged in &purges {
            drop(rules.apply(Arc::new(purged.clone())));
            prop_assert_eq!(rules.fold(), 0);
            bytes += crate::purge::file::encode(purged).len() as u64;
            prop_assert!(rules.bytes() <= bytes);
        }
        let of = |rules: &Rules| -> Vec<_> {
            heads.iter().map(|head| rules.verdict(head, last.max(head.epoch))).collect()
        };
        let wanted: Vec<_> = heads.iter().map(|head| by_the_list(&purges, head)).collect();
        prop_assert_eq!(of(&rules), wanted.clone());
        let covered = rules.covered();
        rules.drop_some(&covered);
        prop_assert_eq!(of(&rules), wanted.clone());
        // As after a rewrite and a restart.
        let mut again = Rules::new(rules.floor(), PURGES_MAX);
        for kept in rules.kept() {
            drop(again.apply(Arc::clone(kept)));
        }
        prop_assert_eq!(again.fold(), 0);
        prop_assert_eq!(of(&again), wanted);
        prop_assert_eq!((again.len(), again.bytes()), (rules.len(), rules.bytes()));
        let written: usize = rules.kept().map(|kept| crate::purge::file::encode(kept).len()).sum();
        prop_assert_eq!(rules.bytes(), written as u64);
    }

    /// Past the limit more may be ended than was asked for, never less, nor between two of
    /// the steps.
    #[test]
    fn folding_forgets_no_purge(
        purges in proptest::collection::vec(purge(), 0..120),
        heads in proptest::collection::vec(any_head(10..130), 1..20),
    ) {
        let purges = numbered(purges, 11);
        let mut rules = Rules::new(10, 16);
        for (place, purged) in purges.iter().enumerate() {
            drop(rules.apply(Arc::new(purged.clone())));
            let wanted: Vec<_> =
                heads.iter().map(|head| by_the_list(&purges[..=place], head)).collect();
            let holds = |rules: &Rules| {
                heads.iter().zip(&wanted).all(|(head, wanted)| rules.verdict(head, 130) >= *wanted)
            };
            while let Some(fold) = rules.surplus() {
                let before = rules.len();
                rules.begin_fold(&fold);
                prop_assert!(holds(&rules));
                for number in fold.numbers() {
                    rules.drop_some(&[*number]);
                    prop_assert!(holds(&rules));
                }
                prop_assert!(rules.len() < before && fold.count() > 0);
            }
            prop_assert!(rules.len() <= 16 && holds(&rules));
        }
    }
}

#[test]
fn a_site_that_purges_without_end_costs_no_other_site() {
    let mut rules = Rules::new(10, 100);
    let mut folded = 0;
    for number in 11..10_011 {
        let what = What::Tag(format!("group-{number}"));
        let site = if number == 500 { "t" } else { "s" };
        let purge = Purge { what, site: Some(site.into()), soft: true, note: String::new() };
        drop(rules.apply(Arc::new(Purged { number, unix_ms: 0, purge })));
        folded += rules.fold();
        assert!(rules.len() <= 100);
    }
    assert!(folded > 9_000);
    let of = |site: &str, tag: &str| {
        let head = Head { epoch: 11, tags: vec![tag.into()], ..head(site, "h.test/a", 1) };
        rules.verdict(&head, 10_010)
    };
    assert_eq!(of("t", "film"), Verdict::Valid);
    assert_eq!(of("t", "group-500"), Verdict::Soft);
    assert_eq!(of("s", "film"), Verdict::Hard);
}

#[test]
fn when_it_was_purged_last() {
    let mut rules = Rules::new(10, PURGES_MAX);
    let taken = |number, unix_ms, what, soft| {
        let purge = Purge { what, site: None, soft, note: String::new() };
        Arc::new(Purged { number, unix_ms, purge })
    };
    drop(rules.apply(taken(11, 500, What::All, false)));
    drop(rules.apply(taken(12, 700, What::Tag("film".into()), true)));
    let last = |rules: &Rules, tag: &str| {
        let Last { any_ms, hard_ms } = rules.last("s", "h.test/a", &[tag.into()]);
        (any_ms, hard_ms)
    };
    assert_eq!(last(&rules, "film"), (Some(700), Some(500)));
    assert_eq!(last(&rules, "other"), (Some(500), Some(500)));
    assert_eq!(last(&Rules::new(10, PURGES_MAX), "film"), (None, None));

    drop(rules.apply(taken(13, 900, What::Url("h.test/a".into()), true)));
    let since = |rules: &Rules, epoch: u64| {
        let tags = vec!["film".into()];
        rules.stale_since(&Head { epoch, tags, ..head("s", "h.test/a", 1) })
    };
    assert_eq!([11, 12, 13].map(|epoch| since(&rules, epoch)), [Some(700), Some(900), None]);
}

#[test]
fn what_is_folded_into_a_purge_of_everything_keeps_its_time() {
    let mut rules = Rules::new(10, 16);
    // The clock was set back before the last ones.
    for (number, unix_ms) in (11..28).zip([900, 500].into_iter().chain(200..)) {
        let what = What::Url(format!("h.test/{number}"));
        let purge = Purge { what, site: None, soft: true, note: String::new() };
        drop(rules.apply(Arc::new(Purged { number, unix_ms, purge })));
    }
    let last = |rules: &Rules| rules.last("s", "h.test/other", &[]).any_ms;
    assert_eq!(last(&rules), None);
    assert_eq!(rules.fold(), 2);
    assert_eq!((last(&rules), rules.len(), rules.floor()), (Some(900), 16, 12));
    let of_another = Head { epoch: 11, ..head("s", "h.test/other", 1) };
    assert_eq!(rules.verdict(&of_another, 27), Verdict::Hard);
}

#[test]
fn an_epoch_of_another_log_is_not_trusted() {
    let rules = Rules::new(10, PURGES_MAX);
    let at = |epoch| rules.verdict(&Head { epoch, ..head("s", "h.test/a", 1) }, 12);
    let verdicts = [9, 10, 12, 13].map(at);
    assert_eq!(verdicts, [Verdict::Hard, Verdict::Valid, Verdict::Valid, Verdict::Hard]);
}

/// The cost of a verdict in look-ups, which a loaded machine does not change.
#[test]
fn a_verdict_costs_the_same_after_a_hundred_thousand_purges() {
    let head = |number: u64| {
        let url = format!("films.test/title/{number}/seg.m4s");
        Head { epoch: 1, ..head("films", &url, 1) }
    };
    let mut rules = Rules::new(1, PURGES_MAX);
    let looks =
        |rules: &Rules, head: &Head| rules.keys_of(&head.site, &head.url, &head.tags).count();
    let before = looks(&rules, &head(7));
    for number in 2..100_002u64 {
        let what = match number % 3 {
            0 => What::Url(format!("films.test/title/{number}/seg.m4s")),
            1 => What::Prefix(format!("films.test/title/{number}/")),
            _ => What::Tag(format!("tag-{number}")),
        };
        let purge = Purge { what, site: None, soft: false, note: String::new() };
        drop(rules.apply(Arc::new(Purged { number, unix_ms: 0, purge })));
    }
    let lengths = 6;
    for number in 0..100_000 {
        let head = head(number);
        // Counting costs as much as looking up.
        assert!(number % 50 > 0 || looks(&rules, &head) <= before + lengths);
        let ended = number >= 2 && number % 3 != 2;
        assert_eq!(rules.verdict(&head, 100_002) == Verdict::Hard, ended, "{number}");
    }
    assert_eq!(rules.len(), 100_000);
}
