//! nearcast's own client: one HTTP client for HTTP/1.1, 2 and 3, and a player that follows the
//! manifests which it loads (read by parsers that are not nearcast's) and hands on every body.
//!
//! [`load`] is its load generator: what a server costs per byte, and how soon it answers.
//!
//! It trusts only the certificates that it is given and never repeats a play token in an error.

mod client;
mod error;
pub mod load;
mod player;

pub use client::{BODY_BYTES_MAX, Client, Fetched, Protocol};
pub use error::Error;
pub use player::{Format, PlayOptions, PlayReport, SegmentReport, Tracks, play};
