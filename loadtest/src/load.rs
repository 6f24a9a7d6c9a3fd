//! A load generator on one thread, cheap enough that the server is what is measured: own
//! readers for HTTP/1.1, 2 and 3 that look at bodies where they were received, every body
//! checked, the server's CPU time and memory read beside it.
//!
//! Open loops count from the moment at which a request should have been sent, so a server that
//! stalls does not make its own figures better by being asked less.

mod arrivals;
mod fields;
mod h1;
mod h2;
mod h3;
mod plan;
mod quic;
mod records;
mod report;
mod run;
pub mod server;
mod slow;
mod tally;
mod wire;

pub use plan::{Arrivals, Cipher, Plan, Target, Until};
pub use report::{Report, Times};
pub use run::{run, run_until};

use tally::{Exchange, Tally};

/// What all connections of a load share.
struct Context {
    peer: wire::Peer,
    /// As in `Host`.
    authority: String,
    fields: Vec<(String, String)>,
    targets: std::rc::Rc<[Target]>,
    streams: usize,
    stream_window_bytes: u32,
    window_bytes: u32,
    queue: arrivals::Queue,
    tally: Tally,
    scratch: wire::Scratch,
}

impl Context {
    fn path(&self, exchange: &Exchange) -> String {
        self.targets[exchange.target].path_of(exchange.number)
    }
}
