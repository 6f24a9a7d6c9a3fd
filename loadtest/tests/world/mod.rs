//! Edges for tests: real sockets, real TLS and QUIC, and faults on command.

pub mod edge;
pub mod title;
