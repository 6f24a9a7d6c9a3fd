//! The purges in force, in memory: a head's verdict takes some look-ups in one table, however
//! many purges and objects there are.
//!
//! Invariants: a purge is forgotten only for a wider one (of its site, or by a higher `floor` of
//! everything), so nothing that was ended becomes valid; and of purges that name the same, the
//! last of each strength is kept.
//!
//! The table's key is a seeded hash of 128 bits. Two names that share one would end each
//! other's objects: never seen, and no wrong answer.

use super::{Last, Purge, Purged, Verdict, What};
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

    /// Whose they are; `None`: of all sites.
    pub(crate) fn site(&self) -> Option<&str> {
        self.stands.purge.site.as_deref()
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

    /// When what has this URL and these tags was purged last.
    pub(crate) fn last(&self, site: &str, url: &str, tags: &[Box<str>]) -> Last {
        let entries = self.keys_of(site, url, tags).filter_map(|key| self.entries.get(&key));
        let at_ms = |purged: &Option<Arc<Purged>>| purged.as_ref().map(|purged| purged.unix_ms);
        entries.fold(Last::default(), |last, entry| {
            let (hard_ms, soft_ms) = (at_ms(&entry.hard), at_ms(&entry.soft));
            Last {
                any_ms: last.any_ms.max(hard_ms).max(soft_ms),
                hard_ms: last.hard_ms.max(hard_ms),
            }
        })
    }

    /// The keys of all purges that could match a head: everything, its URL, its tags, and its
    /// URL's beginnings of the lengths that purges have; for all sites and for its own. A URL with
    /// escaped slashes is meant by plain ones, too: an origin may take the one for the other, and a
    /// path has so many spellings that nobody could name them all.
    fn keys_of<'a>(
        &'a self,
        site: &'a str,
        url: &'a str,
        tags: &'a [Box<str>],
    ) -> impl Iterator<Item = u128> + 'a {
        let (path, query) = url.split_at(url.find('?').unwrap_or(url.len()));
        let plain = path.contains("%2F").then(|| path.replace("%2F", "/") + query);
        [None, Some(site)].into_iter().flat_map(move |site| {
            let named = [self.hash(b'a', site, ""), self.hash(b'u', site, url)];
            let tags = tags.iter().map(move |tag| self.hash(b't', site, tag));
            let plain: Vec<u128> = plain.as_deref().map_or_else(Vec::new, |url| {
                self.prefixes(site, url).chain([self.hash(b'u', site, url)]).collect()
            });
            named.into_iter().chain(tags).chain(self.prefixes(site, url)).chain(plain)
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
pub(super) mod tests;
