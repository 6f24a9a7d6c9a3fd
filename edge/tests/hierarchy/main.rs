//! Stories of nodes that ask each other before the origin.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

#[path = "../common/mod.rs"]
mod common;
mod parents;
mod purged;
mod reloads;
mod siblings;
mod titles;
