//! Connections: HTTP/1.1, 2 and 3 over TCP, TLS and QUIC, each within its limits, for any
//! [`Service`]. It knows nothing of sites, objects or caches.

mod batch;
mod connection;
mod corked;
mod error;
mod frames;
mod levers;
mod pace;
mod plain;
pub mod quic;
mod service;
mod shards;
pub mod tcp;
pub mod tls;
mod turns;
mod unframed;
mod watched;

pub use error::Error;
pub use levers::Levers;
pub use service::{Metrics, Place, Request, RequestBody, Service, Shared, Via};
pub use shards::{SHARDS_MAX, Seat, Shard, Shards, Threads, is_shard};

use std::time::Duration;

/// Connections open at a time, over all listeners and protocols; more are closed at once.
pub const CONNECTIONS_MAX: usize = 20_000;
/// From accepting to the end of the TLS handshake.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// A connection that takes no byte for this long is closed.
pub const SEND_STALL_MAX: Duration = Duration::from_secs(30);
/// The head of a request: a path (4 KiB, with a token of 2 KiB) and a browser's fields.
pub const HEADER_BYTES_MAX: u32 = 16 << 10;
/// HTTP/2 and 3: requests of one connection at a time.
pub const STREAMS_MAX: u32 = 64;
