//! The appliance: listeners, token check, request path, cache tiers, fill, reports.
//!
//! `serve` is the life of a request, `tiers` where a chunk comes from, `run` how the parts are
//! put together.

mod account;
mod body;
mod chunks;
mod cors;
mod disk;
mod error;
mod fill;
mod flights;
mod gate;
mod listen;
mod metrics;
mod origin;
mod planned;
mod quic;
mod refused;
mod run;
mod serve;
mod settings;
mod steer;
mod tiers;
mod title;
mod tls;
mod verdict;
mod view;

pub use error::Error;
pub use run::{DRAIN_MAX, run};
pub use settings::{Certificate, Config, Limits, Listen, Secret, Settings};
