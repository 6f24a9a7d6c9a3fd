//! The parts that `nearcast demo` and the tests share: a cluster of real nearcast processes.
//! What the processes do lives in the crates beside this one.

pub mod cluster;
