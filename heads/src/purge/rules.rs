//! The purges in force, in memory: a head's verdict takes some look-ups in one table, however
//! many purges and objects there are.
//!
//! Invariants: a purge is forgotten only for a wider one (of its site, or by a higher `floor` of
//! everything), so nothing that was ended becomes valid; and of purges that name the same, the
//! last of each strength is kept.
//!
//! The table's key is a seeded hash of 128 bits. Two names that share one would end each
//! other's objects: never seen, and no wrong answer.

use super::{Purge, Purged, Verdict, What};
use crate::head::Head;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// Purges kept one by one, about 300 bytes of memory each; past it the older half of the site that
/// has most becomes a purge of that site, or the oldest sixteenth of all a purge of everything. A
/// start reads them before it serves anything, and has half a second: 200,000 took 0.14 s of CPU on
/// 2026-11-22, a million 0.95 s.
pub const PURGES_MAX: usize = 250_000;
/// Bytes of the records kept, likewise.
const BYTES_MAX: u64 = 64 << 20;
/// The share of all that is folded at once: one in so many. A site with fewer is left alone.
const FOLD_SHARE: usize = 16;

/// The last purge of each strength that names one thing.
#[derive(Debug, Clone, Default)]
struct Entry {
    hard: Option<Arc<Purged>>,
    soft: Option<Arc<Purged>>,
}

/// All that a purge of everything has ended: a million take a while to drop, which is better done
/// outside the lock.
#[must_use]
#[derive(Debug)]
pub(crate) struct Ended {
    _all: Option<Rules>,
}

/// What is to be given up for want of room: hundreds of thousands, so it is found, put in force
/// and dropped in steps, and no verdict waits for all of them.
#[derive(Debug)]
pub(crate) struct Fold {
    /// The hard purge that stands for them, under the number of the last.
    stands: Arc<Purged>,
    /// The numbers of the others.
    numbers: Vec<u64>,
}

impl Fold {
    /// What may be dropped once [`Rules::begin_fold`] has been called.
    pub(crate) fn numbers(&self) -> &[u64] {
        &self.numbers
    }

    /// How many are given up.
    pub(crate) fn count(&self) -> usize {
        self.numbers.len() + 1
    }
}

/// The purges in force.
#[derive(Debug)]
pub(crate) struct Rules {
    seed: u64,
    /// A hard purge of everything on every site: all below it ended.
    floor: u64,
    entries: HashMap<u128, Entry>,
    /// Where the purge of a number is.
    order: BTreeMap<u64, u128>,
    /// Lengths of prefixes, each with how many purges have it; by site, `None`: of all sites.
    lengths: HashMap<Option<Box<str>>, BTreeMap<usize, usize>>,
    /// How many are kept of each site, `None`: of all sites.
    scopes: HashMap<Option<Box<str>>, usize>,
    /// Bytes that the kept purges take in a file.
    bytes: u64,
    max: usize,
}

impl Rules {
    /// None but a hard purge of all below `floor`.
    pub(crate) fn new(floor: u64, max: usize) -> Self {
        Self {
            seed: rand::random(),
            floor,
            entries: HashMap::new(),
            order: BTreeMap::new(),
            lengths: HashMap::new(),
            scopes: HashMap::new(),
            bytes: 0,
            max: max.max(FOLD_SHARE),
        }
    }

    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Puts a purge in force. Numbers come in rising order. More than there is room for are kept
    /// until they are folded, see [`Self::surplus`].
    pub(crate) fn apply(&mut self, purged: Arc<Purged>) -> Ended {
        let Purge { what, site, soft, .. } = &purged.purge;
        let all = *what == What::All && site.is_none() && !soft;
        let ended = all.then(|| std::mem::replace(self, Self::new(purged.number, self.max)));
        self.insert(purged);
        Ended { _all: ended }
    }

    /// Keeps a purge, in place of those that it outdoes.
    fn insert(&mut self, purged: Arc<Purged>) {
        let Purge { what, site, soft, .. } = &purged.purge;
        let key = self.key(what, site.as_deref());
        if let What::Prefix(text) = what {
            let lengths = self.lengths.entry(site.as_deref().map(Box::from)).or_default();
            *lengths.entry(text.len()).or_default() += 1;
        }
        if let What::Tag(_) = what {
            self.any_tag(&purged);
        }
        *self.scopes.entry(site.as_deref().map(Box::from)).or_default() += 1;
        self.order.insert(purged.number, key);
        self.bytes += super::file::record_bytes(&purged);
        let entry = self.entries.entry(key).or_default();
        let replaced = if *soft {
            entry.soft.replace(purged)
        } else {
            let number = purged.number;
            let hard = entry.hard.replace(purged);
            // A softer one before it says nothing any more.
            let soft = entry.soft.take_if(|soft| soft.number < number);
            soft.into_iter().for_each(|old| self.forget(&old));
            hard
        };
        replaced.into_iter().for_each(|old| self.forget(&old));
    }

    /// Notes the last purge by tag, which ends what has more tags than are kept. It is in no list,
    /// and stays: should the purge be folded into a wider one, that ends no less.
    fn any_tag(&mut self, purged: &Arc<Purged>) {
        let key = self.hash(b't', purged.purge.site.as_deref(), caching::OTHER_TAGS);
        let entry = self.entries.entry(key).or_default();
        let last = if purged.purge.soft { &mut entry.soft } else { &mut entry.hard };
        *last = Some(Arc::clone(purged));
    }

    /// Takes a purge out of the lists, once its entry does not name it any more.
    fn forget(&mut self, old: &Purged) {
        self.order.remove(&old.number);
        self.bytes -= super::file::record_bytes(old);
        let scope = old.purge.site.as_deref().map(Box::from);
        if let Some(count) = self.scopes.get_mut(&scope) {
            *count -= 1;
            if *count == 0 {
                self.scopes.remove(&scope);
            }
        }
        if let What::Prefix(text) = &old.purge.what
            && let Some(lengths) = self.lengths.get_mut(&scope)
            && let Some(count) = lengths.get_mut(&text.len())
        {
            *count -= 1;
            if *count == 0 {
                lengths.remove(&text.len());
            }
        }
    }

    /// Over a limit: the oldest, which are to become a hard purge of all that they can have named.
    /// Those of the site that has most go first, so that an origin that purges without end costs
    /// no other site.
    pub(crate) fn surplus(&self) -> Option<Fold> {
        if self.order.len() <= self.max && self.bytes <= BYTES_MAX {
            return None;
        }
        let most = self.scopes.iter().max_by_key(|(_, count)| **count);
        match most {
            Some((Some(site), count)) if *count >= FOLD_SHARE => self.oldest(Some(site), count / 2),
            // One takes the place of them all: of one alone nothing would be won.
            _ => self.oldest(None, (self.order.len() / FOLD_SHARE).max(2)),
        }
    }

    /// The oldest `count` of a site; of all there are.
    fn oldest(&self, site: Option<&str>, count: usize) -> Option<Fold> {
        let counts = |kept: &&Arc<Purged>| site.is_none() || kept.purge.site.as_deref() == site;
        let oldest: Vec<_> = self.kept().filter(counts).take(count).collect();
        // The last time of all: the clock may have been set back between two of them.
        let unix_ms = oldest.iter().map(|old| old.unix_ms).max()?;
        let (last, others) = oldest.split_last()?;
        let note = format!("stands for {} older purges", oldest.len());
        let purge = Purge { what: What::All, site: site.map(str::to_owned), soft: false, note };
        let stands = Arc::new(Purged { number: last.number, unix_ms, purge });
        Some(Fold { stands, numbers: others.iter().map(|old| old.number).collect() })
    }

    /// Puts in force what stands for the folded ones: from then on they say nothing more.
    pub(crate) fn begin_fold(&mut self, fold: &Fold) {
        let stands = &fold.stands;
        // It takes the number of the last of them.
        self.drop_some(&[stands.number]);
        let all = self.entries.get(&self.key(&What::All, stands.purge.site.as_deref()));
        let hard = all.and_then(|all| all.hard.as_ref());
        if hard.is_none_or(|hard| hard.number < stands.number) {
            self.insert(Arc::clone(stands));
        }
        if stands.purge.site.is_none() {
            self.floor = self.floor.max(stands.number);
        }
    }

    /// Folds all that is too much at once, and says how many that were: for a log that nobody asks
    /// yet.
    pub(crate) fn fold(&mut self) -> usize {
        let mut count = 0;
        while let Some(fold) = self.surplus() {
            self.begin_fold(&fold);
            self.drop_some(fold.numbers());
            count += fold.count();
        }
        count
    }

    /// The purges that a later hard one of their whole site covers.
    pub(crate) fn covered(&self) -> Vec<u64> {
        let entries = self.order.iter().filter_map(|(number, key)| {
            let entry = self.entries.get(key)?;
            self.is_covered(entry).then_some(*number)
        });
        entries.collect()
    }

    /// Drops purges that say nothing any more.
    pub(crate) fn drop_some(&mut self, numbers: &[u64]) {
        for number in numbers {
            if let Some(key) = self.order.remove(number) {
                self.drop_one(*number, key);
            }
        }
    }

    /// Whether a hard purge of its whole site came after all of `entry`.
    fn is_covered(&self, entry: &Entry) -> bool {
        let both = [&entry.hard, &entry.soft];
        let Some(last) = both.into_iter().flatten().max_by_key(|kept| kept.number) else {
            return false;
        };
        let Some(site) = &last.purge.site else { return false };
        let all = self.entries.get(&self.key(&What::All, Some(site)));
        let hard = all.and_then(|all| all.hard.as_ref());
        hard.is_some_and(|hard| hard.number > last.number)
    }

    fn drop_one(&mut self, number: u64, key: u128) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let is_it = |purged: &mut Arc<Purged>| purged.number == number;
        let old = entry.hard.take_if(is_it).or_else(|| entry.soft.take_if(is_it));
        if entry.hard.is_none() && entry.soft.is_none() {
            self.entries.remove(&key);
        }
        old.into_iter().for_each(|old| self.forget(&old));
    }

    /// What these say of `head`, when `number` is the last of them.
    pub(crate) fn verdict(&self, head: &Head, number: u64) -> Verdict {
        // An epoch that was never reached is from another log: what this one says is not known.
        if head.epoch < self.floor || head.epoch > number {
            return Verdict::Hard;
        }
        let above = |purged: &Option<Arc<Purged>>| {
            purged.as_ref().is_some_and(|purged| purged.number > head.epoch)
        };
        let keys = self.keys_of(&head.site, &head.url, &head.tags);
        let verdicts = keys.filter_map(|key| self.entries.get(&key)).map(|entry| {
            match (above(&entry.hard), above(&entry.soft)) {
                (true, _) => Verdict::Hard,
                (false, true) => Verdict::Soft,
                (false, false) => Verdict::Valid,
            }
        });
        verdicts.max().unwrap_or(Verdict::Valid)
    }

    /// When the first of the soft purges of `head` was taken, in milliseconds since 1970 UTC. Of
    /// those that name the same the last counts, as the others are not kept.
    pub(crate) fn stale_since(&self, head: &Head) -> Option<i64> {
        let keys = self.keys_of(&head.site, &head.url, &head.tags);
        let softly = keys.filter_map(|key| self.entries.get(&key)?.soft.as_ref());
        let after = softly.filter(|purged| purged.number > head.epoch);
        after.map(|purged| purged.unix_ms).min()
    }

    /// When the last purge of what has this URL and these tags was taken, in milliseconds since
    /// 1970 UTC.
    pub(crate) fn last(&self, site: &str, url: &str, tags: &[Box<str>]) -> Option<i64> {
        let entries = self.keys_of(site, url, tags).filter_map(|key| self.entries.get(&key));
        let purges = entries.flat_map(|entry| [&entry.hard, &entry.soft].into_iter().flatten());
        purges.map(|purged| purged.unix_ms).max()
    }

    /// The keys of all purges that could match a head: everything, its URL, its tags, and its
    /// URL's beginnings of the lengths that purges have; for all sites and for its own.
    fn keys_of<'a>(
        &'a self,
        site: &'a str,
        url: &'a str,
        tags: &'a [Box<str>],
    ) -> impl Iterator<Item = u128> + 'a {
        [None, Some(site)].into_iter().flat_map(move |site| {
            let named = [self.hash(b'a', site, ""), self.hash(b'u', site, url)];
            let tags = tags.iter().map(move |tag| self.hash(b't', site, tag));
            named.into_iter().chain(tags).chain(self.prefixes(site, url))
        })
    }

    /// One pass over the URL, whatever the number of lengths.
    fn prefixes<'a>(
        &'a self,
        site: Option<&str>,
        url: &'a str,
    ) -> impl Iterator<Item = u128> + use<'a> {
        let lengths = self.lengths.get(&site.map(Box::from));
        let lengths = lengths.into_iter().flat_map(|lengths| lengths.keys().copied());
        let mut hasher = self.hasher(b'p', site);
        let mut start = 0;
        lengths.take_while(|length| *length <= url.len()).map(move |length| {
            hasher.update(&url.as_bytes()[start..length]);
            start = length;
            hasher.digest128()
        })
    }

    fn key(&self, what: &What, site: Option<&str>) -> u128 {
        let kind = match what {
            What::Url(_) => b'u',
            What::Prefix(_) => b'p',
            What::Tag(_) => b't',
            What::All => b'a',
        };
        self.hash(kind, site, what.text())
    }

    fn hash(&self, kind: u8, site: Option<&str>, text: &str) -> u128 {
        let mut hasher = self.hasher(kind, site);
        hasher.update(text.as_bytes());
        hasher.digest128()
    }

    fn hasher(&self, kind: u8, site: Option<&str>) -> Xxh3 {
        let mut hasher = Xxh3::with_seed(self.seed);
        // The length keeps the site and what follows apart.
        let length = site.map_or(u64::MAX, |site| site.len() as u64);
        hasher.update(&[kind]);
        hasher.update(&length.to_le_bytes());
        hasher.update(site.unwrap_or_default().as_bytes());
        hasher
    }

    /// The purges kept, oldest first.
    pub(crate) fn kept(&self) -> impl Iterator<Item = &Arc<Purged>> {
        self.order.iter().filter_map(|(number, key)| {
            let entry = self.entries.get(key)?;
            [&entry.hard, &entry.soft].into_iter().flatten().find(|kept| kept.number == *number)
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
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
                What::Tag(tag) => head
                    .tags
                    .iter()
                    .any(|other| **other == **tag || &**other == caching::OTHER_TAGS),
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
                bytes += super::super::file::encode(purged).len() as u64;
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
            let written: usize = rules.kept().map(|kept| super::super::file::encode(kept).len()).sum();
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
        let last = |rules: &Rules, tag: &str| rules.last("s", "h.test/a", &[tag.into()]);
        assert_eq!((last(&rules, "film"), last(&rules, "other")), (Some(700), Some(500)));
        assert_eq!(last(&Rules::new(10, PURGES_MAX), "film"), None);

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
        let last = |rules: &Rules| rules.last("s", "h.test/other", &[]);
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
}
