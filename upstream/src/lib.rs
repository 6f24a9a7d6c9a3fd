//! Where an edge fetches: origins, parents and siblings, their health, retries within a
//! budget, S3 signing.
//!
//! A [`Node`] is what all sites of an edge share, an [`Upstream`] is one site. One
//! [`Upstream::send`] is one answer: it chooses the hop, goes on to the next where a hop fails,
//! and returns the head with the body to come. The request is made anew from what the caller
//! chose; a body ends cleanly only if it is whole. Nothing here knows of titles, caches or
//! freshness.
//!
//! `send.rs` is the life of an ask from top to bottom, `tries.rs` says which hop is next,
//! `exchange.rs` asks one.

mod anew;
mod answered;
mod ask;
mod body;
mod breaker;
mod budget;
mod circle;
mod connect;
mod error;
mod exchange;
mod failing;
mod fault;
mod fitting;
mod flight;
mod foreseen;
mod frames;
mod habits;
mod health;
pub mod hierarchy;
mod hop;
mod idle;
mod lanes;
mod latency;
mod link;
mod metrics;
mod newer;
mod node;
mod order;
mod place;
mod pool;
mod pulse;
mod rendezvous;
pub mod s3;
mod said;
mod send;
mod sending;
mod settings;
mod skew;
mod staying;
mod tries;
mod turns;
mod upload;
mod upstream;
mod waits;
mod watched;
mod window;
mod within;

pub use ask::{
    Answer, Ask, HopId, HopKind, PATH_BYTES_MAX, RequestBody, UNNAMED_HOST, Unsure, is_reload,
};
pub use body::UpstreamBody;
pub use breaker::State as BreakerState;
pub use circle::RUN_BYTES;
pub use error::Error;
pub use fault::{ErrorType, Fault, Misread};
pub use hop::HopStatus;
pub use newer::{NewerThan, Purges, forget as forget_purges, tell_fetched};
pub use node::Node;
pub use place::Place;
pub use said::{tell_held_in_vain, tell_unsure};
pub use settings::{
    ANY_HOST, Config, HealthCheck, ORIGINS_MAX, Origin, Settings, SiteKind, check_url,
};
pub use turns::{Owner, Refused, Turn, Turns, Urgency};
pub use upstream::Upstream;
pub use within::answer_by;
