//! A stored response's head, and the few that share a key.

use crate::purge::Verdict;
use crate::wire::Writer;
use bytes::BytesMut;
use caching::{Facts, Settings, Stored};
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use xxhash_rust::xxh3::xxh3_64;

/// Representations of one key (RFC 9111, section 4.1) that are kept; the oldest goes first.
pub const VARIANTS_MAX: usize = 32;

/// What an allocation takes beside its bytes.
const ALLOCATION_BYTES: usize = 16;
/// What a header field takes in a `HeaderMap`, beside its value: a bucket and a third of an index
/// more than its own.
const FIELD_BYTES: usize = 112;
/// What a further value of a field takes there.
const VALUE_BYTES: usize = 96;

/// Names a site's URL: no two have the same, though clients choose URLs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 16]);

impl KeyId {
    /// Of `url` (`host/path?query`, by the site's key rules) on `site`.
    #[must_use]
    pub fn of(site: &str, url: &str) -> Self {
        Self::of_parts(site, [url])
    }

    /// [`Self::of`] a URL that comes in parts.
    #[must_use]
    pub fn of_parts<'a>(site: &str, url: impl IntoIterator<Item = &'a str>) -> Self {
        let mut all = SmallVec::<[u8; 256]>::new();
        // The length keeps (`a`, `bc`) and (`ab`, `c`) apart.
        all.extend_from_slice(&(site.len() as u64).to_le_bytes());
        all.extend_from_slice(site.as_bytes());
        for part in url {
            all.extend_from_slice(part.as_bytes());
        }
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::hash(&all).as_bytes()[..16]);
        Self(id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// One stored representation, but its bytes. Never changed once shared: a refreshed one is a
/// new `Head` (`Head { stored, epoch, ..(*old).clone() }`).
#[derive(Debug, Clone)]
pub struct Head {
    /// The site's name.
    pub site: Arc<str>,
    /// `host/path?query`, after the site's key rules.
    pub url: Arc<str>,
    /// What the request said in the fields that `Vary` names, normalised; `None`: nothing.
    pub selecting: Vec<(HeaderName, Option<String>)>,
    /// What was answered.
    pub stored: Stored,
    /// Names the body's bytes, for ever.
    pub body: [u8; 16],
    /// The body's length.
    pub bytes: u64,
    /// Surrogate keys and cache groups (RFC 9875), and [`caching::OTHER_TAGS`] for what of them is
    /// not kept.
    pub tags: Vec<Box<str>>,
    /// [`PurgeLog::number`](crate::PurgeLog::number) when its fetch, or its last successful
    /// revalidation, began: only a purge with a higher number ends it.
    pub epoch: u64,
    /// The origin was not asked for what it says before this moment, in milliseconds since 1970
    /// UTC, whichever nodes are between. Read from disk it is what [`caching::asked_ms`] says:
    /// where another node answered, earlier by the `Age`, which costs one more revalidation at most.
    pub asked_ms: i64,
    /// The origin was not asked for any of its bytes before this moment, likewise: a 304 changes
    /// nothing in that. `i64::MIN`: nobody knows.
    pub fetched_ms: i64,
    /// What the purge log said last. `Seen::default()` in a new head.
    pub seen: Seen,
    /// What its fields say, once they were read. `Read::default()` in a new head.
    pub read: Read,
}

impl Head {
    /// What its fields say under these rules. A site has one set of rules for a path and query:
    /// they are read once.
    pub fn facts(&self, settings: &Arc<Settings>) -> Cow<'_, Facts> {
        let of = || Facts::of(&self.stored, settings);
        let (known, facts) = self.read.0.get_or_init(|| (Arc::clone(settings), of()));
        if Arc::ptr_eq(known, settings) { Cow::Borrowed(facts) } else { Cow::Owned(of()) }
    }

    /// Bytes that it takes in memory, allocations and spare places included.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let text = |length: usize| length + ALLOCATION_BYTES;
        let selecting = self.selecting.iter().map(|(_, value)| {
            size_of::<(HeaderName, Option<String>)>() + text(value.as_ref().map_or(0, String::len))
        });
        let fields = &self.stored.fields;
        let values = fields.iter().map(|(_, value)| value.len()).sum::<usize>();
        // A standard name is a number, but which ones are standard is not told.
        let names = fields.keys().map(|name| text(name.as_str().len()));
        let tags = self.tags.iter().map(|tag| size_of::<Box<str>>() + text(tag.len()));
        let lists: usize = selecting.chain(names).chain(tags).sum();
        let further = fields.len() - fields.keys_len();
        let map = fields.capacity() * FIELD_BYTES + further * VALUE_BYTES + 3 * ALLOCATION_BYTES;
        size_of::<Self>()
            + text(self.url.len())
            + text(self.site.len())
            + map
            + text(values)
            + lists
    }

    /// The same in memory of its own: fields as they are received are parts of a connection's
    /// buffer, and would keep all of it.
    pub(crate) fn compacted(&self) -> Self {
        let mut head = self.clone();
        head.stored.fields = compacted(&self.stored.fields);
        head
    }

    /// Names what it was selected by: of two heads of a key with the same, the newer replaces
    /// the older.
    pub(crate) fn variant(&self) -> i64 {
        let mut text = Writer::default();
        for (name, value) in &self.selecting {
            text.bytes(name.as_str().as_bytes());
            text.maybe(value.as_deref().map(str::as_bytes));
        }
        xxh3_64(&text.0).cast_signed()
    }
}

/// These fields with all their values in one allocation.
pub(crate) fn compacted(fields: &HeaderMap) -> HeaderMap {
    let mut all = BytesMut::with_capacity(fields.values().map(HeaderValue::len).sum());
    fields.values().for_each(|value| all.extend_from_slice(value.as_bytes()));
    let mut all = all.freeze();
    let mut compact = HeaderMap::with_capacity(fields.keys_len());
    for (name, value) in fields {
        let own = HeaderValue::from_maybe_shared(all.split_to(value.len()));
        // What was a value is one.
        compact.append(name, own.unwrap_or_else(|_| value.clone()));
    }
    compact
}

/// The stored representations of one key, newest first. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Variants(Arc<[Arc<Head>]>);

impl Variants {
    /// Those of `heads`, which come newest first and differ in what selects them: the newest
    /// [`VARIANTS_MAX`].
    pub(crate) fn new(mut heads: Vec<Arc<Head>>) -> Self {
        heads.truncate(VARIANTS_MAX);
        Self(heads.into())
    }

    /// With `head` as the newest, in place of one selected by the same.
    pub(crate) fn with(&self, head: Arc<Head>) -> Self {
        let variant = head.variant();
        let others = self.0.iter().filter(|other| other.variant() != variant).cloned();
        Self::new(std::iter::once(head).chain(others).collect())
    }

    /// With `head` in place of the one with the same body, selected by the same; `None` if there
    /// is none.
    pub(crate) fn refreshed(&self, head: &Arc<Head>) -> Option<Self> {
        let variant = head.variant();
        let same = |other: &Arc<Head>| other.body == head.body && other.variant() == variant;
        let place = self.0.iter().position(same)?;
        let mut heads = self.0.to_vec();
        heads[place] = Arc::clone(head);
        Some(Self(heads.into()))
    }

    /// Without those that `gone` names.
    pub(crate) fn without(&self, gone: impl Fn(&Head) -> bool) -> Self {
        Self(self.0.iter().filter(|head| !gone(head)).cloned().collect())
    }

    /// Bytes in memory, roughly.
    pub(crate) fn memory_bytes(&self) -> usize {
        let heads = self.0.iter().map(|head| head.memory_bytes() + 2 * ALLOCATION_BYTES);
        heads.sum::<usize>() + 2 * ALLOCATION_BYTES
    }
}

impl Deref for Variants {
    type Target = [Arc<Head>];
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// A purge verdict, and the log's number that it was found at: found again only when the log
/// has grown. A clone knows nothing, as it may get another epoch.
#[derive(Debug, Default)]
pub struct Seen(AtomicU64);

impl Seen {
    /// The verdict found at `number`, if it was found at that.
    pub(crate) fn at(&self, number: u64) -> Option<Verdict> {
        let packed = self.0.load(Ordering::Relaxed);
        if packed >> 2 != number {
            return None;
        }
        match packed & 3 {
            1 => Some(Verdict::Valid),
            2 => Some(Verdict::Soft),
            3 => Some(Verdict::Hard),
            _ => None,
        }
    }

    pub(crate) fn set(&self, number: u64, verdict: Verdict) {
        let verdict = match verdict {
            Verdict::Valid => 1,
            Verdict::Soft => 2,
            Verdict::Hard => 3,
        };
        self.0.store(number << 2 | verdict, Ordering::Relaxed);
    }
}

/// What a head's fields say, and under which rules. A clone knows nothing, as it may get other
/// fields.
#[derive(Debug, Default)]
pub struct Read(OnceLock<(Arc<Settings>, Facts)>);

impl Clone for Read {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Clone for Seen {
    fn clone(&self) -> Self {
        Self::default()
    }
}
