//! The messages of an edge's admin port about what it has stored: JSON over HTTP.

use serde::{Deserialize, Serialize};

/// `POST /v1/purge`: exactly one of `url`, `prefix`, `tag` and `all`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PurgeRequest {
    /// One URL, as clients ask for it, with all its variants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Every URL that begins so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// All that carry this surrogate key or cache group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Everything.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// On this site alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Revalidate before the next use, rather than forget.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub soft: bool,
    /// Who asks, for those who read the list of purges.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why, for the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The answer once the purge is on disk and in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeDone {
    /// The purge's number in this edge's log.
    pub number: u64,
}

/// `GET /v1/purges?last=N`: the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeList {
    /// Number of the last purge in force.
    pub number: u64,
    /// The purges.
    pub purges: Vec<PurgeRecord>,
}

/// A purge in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeRecord {
    /// Its number.
    pub number: u64,
    /// When it was taken, in ms since 1970.
    pub unix_ms: i64,
    /// `url`, `prefix`, `tag` or `all`.
    pub kind: String,
    /// What it names, as stored URLs and tags are written; empty for everything.
    pub text: String,
    /// On this site alone.
    pub site: Option<String>,
    /// Revalidate rather than forget.
    pub soft: bool,
    /// Who asked, and why.
    pub note: String,
}

/// `GET /v1/explain?url=URL`: why the edge would answer a request for it as it would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The site that serves it.
    pub site: String,
    /// `host/path?query`, after the site's key rules.
    pub url: String,
    /// Names the two, as hex.
    pub key: String,
    /// Number of the last purge in force, or where the log begins.
    pub number: u64,
    /// The edge's clock, in ms since 1970: what ages are told at.
    pub now_ms: i64,
    /// What is stored or arriving, newest first.
    pub variants: Vec<VariantState>,
    /// Other nodes are asked for nothing that is from this moment or before, in ms since 1970: when it
    /// was purged last, or changed by way of this edge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others_newer_than_ms: Option<i64>,
    /// Nor for bytes of this moment or before: when it was purged hard last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others_hard_ms: Option<i64>,
    /// Why the last answer that was not stored was not: a token of docs/caching.md, of URLs that
    /// were asked for lately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_stored: Option<String>,
    /// The site's settings leave cookies out, of requests for it and of answers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drops_cookies: bool,
    /// Of a title site's URL instead: what of the title it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<TitleState>,
}

/// What a title site's URL names. It never changes, is never stale, and is not purged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TitleState {
    /// The title.
    pub title: String,
    /// Its version.
    pub version: String,
    /// Where the title's index came from just now: a verdict, as in `Cache-Status`.
    pub index: String,
    /// The bytes of a track file; none of a manifest, which is made from the index.
    pub media: Option<MediaState>,
}

/// Bytes of a track file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaState {
    /// Names the file's bytes, as hex.
    pub body: String,
    /// The file's length.
    pub bytes: u64,
    /// The first byte that the URL names.
    pub first: u64,
    /// How many from there.
    pub count: u64,
    /// Where the chunks are that hold them.
    pub chunks: Vec<ChunkRun>,
}

/// One stored representation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariantState {
    /// The request fields that select it, and what they said.
    pub selecting: Vec<(String, Option<String>)>,
    /// Its status.
    pub status: u16,
    /// What ties its chunks together, if it has a strong validator.
    pub validator: Option<String>,
    /// When it was received or revalidated last, in ms since 1970.
    pub received_ms: i64,
    /// When the origin was asked about it at the earliest, whichever nodes are between, likewise.
    #[serde(default)]
    pub asked_ms: i64,
    /// When it was asked for the bytes, likewise; none where another node has not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched_ms: Option<i64>,
    /// Its age (RFC 9111, section 4.2.3).
    pub age_ms: i64,
    /// How long it is fresh in all.
    pub lifetime_ms: i64,
    /// What of the age does not count against that: the time that the origin took to answer, where
    /// the lifetime is the operator's.
    #[serde(default)]
    pub waived_ms: i64,
    /// How much longer; not positive: it is stale.
    pub fresh_for_ms: i64,
    /// Where the lifetime comes from.
    pub lifetime_from: String,
    /// How long it may be served stale while it is revalidated.
    pub while_revalidate_ms: i64,
    /// How long it may be served stale when the origin fails.
    pub if_error_ms: i64,
    /// It is never served stale.
    pub must_revalidate: bool,
    /// It is never served without asking the origin.
    pub no_cache: bool,
    /// A client's reload is answered without the origin.
    pub immutable: bool,
    /// Surrogate keys and cache groups.
    pub tags: Vec<String>,
    /// Number of the last purge when its fetch began.
    pub epoch: u64,
    /// What the purges say of it: `valid`, `soft` or `hard`.
    pub purge: String,
    /// How long ago a soft purge made it stale.
    #[serde(default)]
    pub soft_purged_for_ms: Option<i64>,
    /// Names its bytes, as hex.
    pub body: String,
    /// Its length.
    pub bytes: u64,
    /// Where its chunks are: runs that follow on each other and cover it.
    pub chunks: Vec<ChunkRun>,
}

/// Neighbouring chunks in one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRun {
    /// Number of the first.
    pub first: u32,
    /// Number of the last.
    pub last: u32,
    /// Where they are.
    pub place: ChunkPlace,
}

/// Where a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChunkPlace {
    /// In memory.
    Memory,
    /// On the planned tier.
    Plan,
    /// On a disk of the reactive SSD tier, as far as its index says.
    Disk,
    /// On its way from upstream.
    Filling,
    /// Not here.
    Absent,
    /// Not known: it is one of more chunks than are looked at.
    NotLookedAt,
}

impl ChunkPlace {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotLookedAt => "not-looked-at",
            Self::Memory => "memory",
            Self::Plan => "plan",
            Self::Disk => "disk",
            Self::Filling => "filling",
            Self::Absent => "absent",
        }
    }
}
