//! Ingest, packaging and the origin server.
//!
//! `ingest` turns files into a published title, `serve` gives titles to edges.

mod error;
pub mod ingest;
pub mod serve;

pub use error::Error;
