//! What every nearcast server shares: configuration, logs, the admin port, shutdown, and a
//! small HTTP client.
//!
//! It knows nothing of titles, edges or tokens.

pub mod admin;
mod announce;
pub mod client;
pub mod config;
pub mod connections;
mod error;
pub mod files;
pub mod listen;
mod lock;
pub mod log;
pub mod pem;
mod print;
mod shutdown;
mod trust;
pub mod value;

pub use announce::announce;
pub use error::Error;
pub use lock::lock;
pub use print::print;
pub use shutdown::Shutdown;
