//! What the bench is asked for.

use crate::cases::{Case, Cell, Filter, Source, cells, size};
use crate::checks::Check;
use crate::peers::PEERS;
use anyhow::Result;
use clap::{Parser, ValueEnum};
use std::path::PathBuf;

/// Measures what a byte costs nearcast and its peers: server CPU-seconds for 10^9 bytes.
///
/// ./bench                                       the whole table: an hour
/// ./bench --quick                               hits in memory, 16 connections, beside nginx: minutes
/// ./bench --case h2-tls --body 1m               every source and number of connections
/// ./bench --case h3 --body 1m --source memory --connections 16 --peer nginx    one cell: seconds
/// ./bench --check connections --check shards   what more connections, and a second core, cost
/// ./bench --server target/dist/nearcast ...     this binary instead of building one
/// ./bench --against OLD --server NEW ...        two nearcasts, OLD in the peer's columns
/// ./bench --env NEARCAST_X=0 --against-env NEARCAST_X=1 --against NEW --server NEW ...    on and off
///
/// A ratio is of one pair of runs: nearcast's cost over the peer's, below 1 is better. Servers
/// share core 0, client and origin have core 1.
#[derive(Parser)]
#[command(name = "bench", verbatim_doc_comment)]
pub struct Args {
    /// Only the cells of the table of targets, 3 short pairs each
    #[arg(long)]
    pub quick: bool,
    /// Only this protocol; repeatable, as all filters are
    #[arg(long, value_enum)]
    pub case: Vec<Case>,
    /// Only bodies of this size: 2k, 64k, 1m, 4m, or any other
    #[arg(long, value_parser = size)]
    pub body: Vec<u64>,
    /// Only this source
    #[arg(long, value_enum)]
    pub source: Vec<Source>,
    /// Only this number of connections
    #[arg(long)]
    pub connections: Vec<usize>,
    /// Only cells with 1,000 slow readers
    #[arg(long)]
    pub slow: bool,
    /// Beside this peer [default: nginx; all with --peer all]
    #[arg(long)]
    pub peer: Vec<String>,
    /// The nearcast to measure
    #[arg(long, default_value = "target/dist/nearcast")]
    pub server: PathBuf,
    /// Beside this nearcast instead of peers
    #[arg(long)]
    pub against: Option<PathBuf>,
    /// For the nearcast that is measured: K=V
    #[arg(long, value_parser = variable)]
    pub env: Vec<(String, String)>,
    /// For the other one: K=V
    #[arg(long, value_parser = variable, requires = "against")]
    pub against_env: Vec<(String, String)>,
    /// Pairs of runs for each cell [default: 5; 3 with --quick]
    #[arg(long)]
    pub pairs: Option<usize>,
    /// Seconds of each run [default: 2; 0.8 with --quick]
    #[arg(long)]
    pub seconds: Option<f64>,
    /// Requests at a time on an HTTP/2 or HTTP/3 connection
    #[arg(long, default_value_t = 1)]
    pub streams: usize,
    /// Only this claim of the targets that no single cell shows
    #[arg(long, value_enum)]
    pub check: Vec<Check>,
    /// Also the times to the first byte at 70 % of the slower one's rate
    #[arg(long)]
    pub at_70: bool,
    /// The one cipher
    #[arg(long, value_enum, default_value = "aes-128-gcm")]
    pub cipher: CipherName,
    /// The figures as JSON
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Core of the servers
    #[arg(long, default_value_t = 0)]
    pub server_core: usize,
    /// Core of client and origin
    #[arg(long, default_value_t = 1)]
    pub client_core: usize,
    /// Directives added to nginx's server block, to try other settings
    #[arg(long, default_value = "", hide_default_value = true)]
    pub nginx: String,
    /// Where peers were installed
    #[arg(long, default_value = ".cache/peers", hide = true)]
    pub peers: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CipherName {
    #[value(name = "aes-128-gcm")]
    Aes128,
    #[value(name = "aes-256-gcm")]
    Aes256,
}

fn variable(text: &str) -> std::result::Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected K=V")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Args {
    /// Which cells of the table; none where only a check was asked for.
    pub fn cells(&self) -> Result<Vec<Cell>> {
        if !self.check.is_empty() {
            return Ok(Vec::new());
        }
        cells(&Filter {
            cases: self.case.clone(),
            sources: self.source.clone(),
            bodies: self.body.clone(),
            connections: self.connections.clone(),
            quick: self.quick,
            slow: self.slow,
        })
    }

    /// Whether no filter leaves anything out.
    pub fn is_whole(&self) -> bool {
        let lists = self.case.len() + self.source.len() + self.body.len() + self.connections.len();
        lists == 0 && !self.quick && !self.slow
    }

    /// Beside whom.
    pub fn peers(&self) -> Vec<String> {
        if self.against.is_some() {
            return vec!["nearcast-other".into()];
        }
        if self.peer.iter().any(|peer| peer == "all") {
            return PEERS.map(str::to_owned).to_vec();
        }
        if self.peer.is_empty() {
            return vec!["nginx".into()];
        }
        self.peer.clone()
    }
}
