//! The nouns of nearcast: titles, versions, track files, indexes, routes, plans, and the
//! messages that its parts exchange.
//!
//! Nothing in here does I/O, reads a clock or is async: values in, values out.

pub mod admin;
pub mod api;
pub mod chunk;
pub mod fleet;
mod ids;
pub mod index;
pub mod plan;
pub mod publish;
mod range;
pub mod range_field;
pub mod rank;
pub mod route;
pub mod store_key;
pub mod tree;

pub use ids::{EdgeId, IdError, TitleId, TrackId, Version};
pub use index::{TitleIndex, Track};
pub use plan::FillPlan;
pub use range::ByteRange;
