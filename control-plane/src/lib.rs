//! The control plane: decides who may play (authorization) and from where (steering), hears of
//! the fleet's health and of what was played, hands out fill plans, and serves the console.
//!
//! State lies in SQLite; what decisions need of the catalog is an immutable [`Snapshot`],
//! swapped whole. A decision is a pure function ([`decide()`]).

mod accounts;
mod catalog;
mod clock;
mod console;
mod country;
mod db;
mod decide;
mod error;
mod events;
mod fleet;
mod http;
mod metrics;
mod plans;
mod retention;
mod secrets;
mod serve;
mod settings;

pub use accounts::{Account, Window};
pub use catalog::{Snapshot, Title};
pub use clock::Clock;
pub use country::{Country, Networks};
pub use decide::{Grant, Question, decide};
pub use error::Error;
pub use serve::{Running, run, start};
pub use settings::{Config, Settings};
