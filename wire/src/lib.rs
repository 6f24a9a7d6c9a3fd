//! Connections: HTTP/1.1, 2 and 3 over TCP, TLS and QUIC, each within its limits, for any
//! [`Service`]. It knows nothing of sites, objects or caches.

mod aside;
#[cfg(feature = "at-hand")]
mod at_hand;
#[cfg(not(feature = "at-hand"))]
#[path = "without_at_hand.rs"]
mod at_hand;
mod batch;
mod connection;
mod corked;
mod crumbs;
mod direct;
mod error;
mod frames;
mod half;
mod idle;
mod known;
mod lengths;
mod levers;
mod linger;
mod pace;
mod patience;
mod plain;
pub mod quic;
mod responding;
mod service;
mod shards;
pub mod tcp;
mod timer;
pub mod tls;
mod turns;
mod unframed;
mod unread;
mod watched;

#[cfg(test)]
mod silent;
#[cfg(test)]
mod stalls;

pub use batch::{BATCH_BYTES, BEYOND_BYTES_MAX, LARGE_BATCH_BYTES};
pub use error::Error;
pub use known::Known;
pub use lengths::TwoLengths;
pub use levers::Levers;
pub use patience::Patience;
pub use service::{Answering, Metrics, Place, Reply, Request, RequestBody, Service, Shared, Via};
pub use shards::{SHARDS_MAX, Seat, Shard, Shards, Threads, is_shard};

use std::time::Duration;

/// Connections open at a time, over all listeners and protocols; more are closed at once.
pub const CONNECTIONS_MAX: usize = 20_000;
/// From accepting to the end of the TLS handshake.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// From the first byte of a request, or from an idle connection's begin or last answer, to the end
/// of the request's head. A player with a full buffer is silent for most of a minute.
pub const HEAD_MAX: Duration = Duration::from_secs(60);
/// A connection that takes less than [`SEND_BYTES_MIN`] in this long is closed.
pub const SEND_STALL_MAX: Duration = Duration::from_secs(30);
/// Bytes that a peer takes in [`SEND_STALL_MAX`] at least, of what it asked for: a few packets,
/// which the slowest reader takes, and too many to be had for acknowledging a byte now and then.
pub const SEND_BYTES_MIN: u64 = 4 << 10;
/// An answer that brings nothing for this long is not kept up for a peer that sends no more: it
/// may have stopped reading, too.
pub const QUIET_MAX: Duration = Duration::from_secs(1);
/// From the end of a TCP connection that ends from here to the client's own: as long as a client
/// far away takes to read what it was sent last, and a small part of a drain.
pub const LINGER_MAX: Duration = Duration::from_secs(2);
/// Bytes that are read, and discarded, meanwhile: what a client has under way that learns of the
/// end after 20 ms over 100 Mbit/s.
pub const LINGER_BYTES_MAX: usize = 256 << 10;
/// The head of a request: a path (4 KiB, with a token of 2 KiB) and a browser's fields.
pub const HEADER_BYTES_MAX: u32 = 16 << 10;
/// HTTP/2 and 3: requests of one connection at a time.
pub const STREAMS_MAX: u32 = 64;
