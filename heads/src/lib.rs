//! What an edge knows of each stored response, on disk and in memory, and the purges that end it.
//!
//! [`Heads`] keeps a [`Head`] for each representation that is stored: what was answered, which
//! body holds its bytes, and the purge number that was known when its fetch began. [`PurgeLog`]
//! is the durable, numbered list of purges. A head is served only while [`PurgeLog::verdict`]
//! finds no purge that matches it with a number above its epoch: so a purge costs one append
//! whatever it ends, reaches what is being fetched at that moment, and outlives a restart, even
//! one that brings older heads back.
//!
//! Losing heads is a miss and nothing worse; so they are written behind, in batches. A purge is
//! on disk before it is acknowledged, and so is what [`Heads::invalidate`] removes.

mod db;
mod error;
mod head;
mod heads;
mod key_rows;
mod metrics;
mod pending;
mod purge;
mod reading;
mod room;
mod row;
mod shard;
mod wake;
mod wire;
mod writer;

pub use error::Error;
pub use head::{Head, KeyId, Read, Seen, VARIANTS_MAX, Variants};
pub use heads::{Heads, Limits};
pub use purge::{Last, PURGES_MAX, Purge, PurgeLog, Purged, Verdict, What, Words};
pub use room::DiskShare;
