//! `nearcast-bench`: nearcast beside its peers on the same core, under the same load. `./bench`
//! builds it, brings the peers, and runs it in a network of its own.

mod cases;
mod limits;
mod objects;
mod pair;
mod peers;
mod servers;
mod table;

use anyhow::{Context, Result, bail};
use cases::{Case, Filter, Source, cells, size};
use clap::{Parser, ValueEnum};
use loadtest::load::Cipher;
use objects::Objects;
use pair::{How, Runs, measure};
use servers::{Running, World, nearcast};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use table::{Row, Skipped, Table, foot, head, shown_row};

/// Measures what a byte costs nearcast and its peers: server CPU-seconds for 10^9 bytes.
///
/// ./bench                                       the whole table: an hour
/// ./bench --quick                               hits in memory, 16 connections, beside nginx: minutes
/// ./bench --case h2-tls --body 1m               every source and number of connections
/// ./bench --case h3 --body 1m --source memory --connections 16 --peer nginx    one cell: seconds
/// ./bench --server target/release/nearcast ...  this binary instead of building one
/// ./bench --against OLD --server NEW ...        two nearcasts, OLD in the peer's columns
/// ./bench --env NEARCAST_X=0 --against-env NEARCAST_X=1 --against NEW --server NEW ...    on and off
///
/// A ratio is of one pair of runs: nearcast's cost over the peer's, below 1 is better. Servers
/// share core 0, client and origin have core 1.
#[derive(Parser)]
#[command(name = "bench", verbatim_doc_comment)]
struct Args {
    /// Only the cells of the table of targets, 3 short pairs each
    #[arg(long)]
    quick: bool,
    /// Only this protocol; repeatable, as all filters are
    #[arg(long, value_enum)]
    case: Vec<Case>,
    /// Only bodies of this size: 2k, 64k, 1m, 4m, or any other
    #[arg(long, value_parser = size)]
    body: Vec<u64>,
    /// Only this source
    #[arg(long, value_enum)]
    source: Vec<Source>,
    /// Only this number of connections
    #[arg(long)]
    connections: Vec<usize>,
    /// Only cells with 1,000 slow readers
    #[arg(long)]
    slow: bool,
    /// Beside this peer [default: nginx; all with --peer all]
    #[arg(long)]
    peer: Vec<String>,
    /// The nearcast to measure
    #[arg(long, default_value = "target/release/nearcast")]
    server: PathBuf,
    /// Beside this nearcast instead of peers
    #[arg(long)]
    against: Option<PathBuf>,
    /// For the nearcast that is measured: K=V
    #[arg(long, value_parser = variable)]
    env: Vec<(String, String)>,
    /// For the other one: K=V
    #[arg(long, value_parser = variable, requires = "against")]
    against_env: Vec<(String, String)>,
    /// Pairs of runs for each cell [default: 5; 3 with --quick]
    #[arg(long)]
    pairs: Option<usize>,
    /// Seconds of each run [default: 2; 0.8 with --quick]
    #[arg(long)]
    seconds: Option<f64>,
    /// Requests at a time on an HTTP/2 or HTTP/3 connection
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Also the times to the first byte at 70 % of the slower one's rate
    #[arg(long)]
    at_70: bool,
    /// The one cipher
    #[arg(long, value_enum, default_value = "aes-128-gcm")]
    cipher: CipherName,
    /// The figures as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Core of the servers
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of client and origin
    #[arg(long, default_value_t = 1)]
    client_core: usize,
    /// Directives added to nginx's server block, to try other settings
    #[arg(long, default_value = "", hide_default_value = true)]
    nginx: String,
    /// Where peers were installed
    #[arg(long, default_value = ".cache/peers", hide = true)]
    peers: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CipherName {
    #[value(name = "aes-128-gcm")]
    Aes128,
    #[value(name = "aes-256-gcm")]
    Aes256,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected K=V")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Binds the calling thread to a core.
fn bind_to(core: usize) -> Result<()> {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(core);
    rustix::thread::sched_setaffinity(None, &cores).with_context(|| format!("core {core}"))
}

fn main() -> Result<()> {
    let args = Args::parse();
    let temporary = tempfile::Builder::new().prefix("nearcast-bench-").tempdir()?;
    let (world, how, objects) = world(&args, temporary.path())?;
    let limits = std::thread::scope(|scope| {
        let core = args.server_core;
        scope.spawn(move || bind_to(core).and_then(|()| limits::measure())).join()
    });
    let limits = limits.ok().context("measuring the limits has panicked")??;
    let mut table = Table { rows: Vec::new(), limits, skipped: Vec::new() };
    println!("{}", head());
    fill(&args, &world, &how, &objects, &mut table)?;
    print!("{}", foot(&table));
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&table)? + "\n";
        std::fs::write(file, text).with_context(|| file.display().to_string())?;
    }
    if table.rows.is_empty() {
        bail!("nothing was measured");
    }
    Ok(())
}

fn filter(args: &Args) -> Filter {
    Filter {
        cases: args.case.clone(),
        sources: args.source.clone(),
        bodies: args.body.clone(),
        connections: args.connections.clone(),
        quick: args.quick,
        slow: args.slow,
    }
}

/// Certificate, objects, origin: what all servers share.
fn world(args: &Args, dir: &Path) -> Result<(World, How, Arc<Objects>)> {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into(), "localhost".into()])?;
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let ca_pem = made.cert.pem().into_bytes();
    std::fs::write(&cert, &ca_pem)?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    let mut sizes: Vec<u64> = cells(&filter(args))?.iter().map(|cell| cell.body_bytes).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let objects = Arc::new(Objects::new(&sizes));
    let has = |name: &str| args.peer.iter().any(|peer| peer == name || peer == "all");
    let on_disk = cells(&filter(args))?.iter().any(|cell| cell.source == Source::Ssd);
    objects.write(&dir.join("files"), has("caddy") || on_disk)?;
    let aes128 = args.cipher == CipherName::Aes128;
    let world = World {
        dir: dir.to_owned(),
        origin: objects::serve(objects.clone(), args.client_core)?,
        cert,
        key,
        core: args.server_core,
        cipher: if aes128 { "TLS_AES_128_GCM_SHA256" } else { "TLS_AES_256_GCM_SHA384" },
        nginx: args.nginx.clone(),
        peers: std::path::absolute(&args.peers)?,
    };
    let seconds = args.seconds.unwrap_or(if args.quick { 0.8 } else { 2.0 });
    let how = How {
        pairs: args.pairs.unwrap_or(if args.quick { 3 } else { 5 }).max(1),
        time: Duration::try_from_secs_f64(seconds).context("--seconds")?,
        warm_up: Duration::from_millis(if args.quick { 150 } else { 300 }),
        core: args.client_core,
        cipher: if aes128 { Cipher::Aes128 } else { Cipher::Aes256 },
        ca_pem,
        streams: args.streams.max(1),
        at_70: args.at_70,
    };
    Ok((world, how, objects))
}

/// Measures source by source: each has servers of its own.
fn fill(args: &Args, world: &World, how: &How, objects: &Objects, table: &mut Table) -> Result<()> {
    let all = cells(&filter(args))?;
    let mut runs = Runs::default();
    for source in Source::ALL {
        let of_source: Vec<_> = all.iter().filter(|cell| cell.source == source).collect();
        if of_source.is_empty() {
            continue;
        }
        let skip = |peer: &str, reason: &str, table: &mut Table| {
            table.skipped.extend(of_source.iter().map(|cell| Skipped {
                case: cell.case.name(),
                body_bytes: cell.body_bytes,
                connections: cell.connections,
                source: source.name(),
                peer: peer.to_owned(),
                reason: reason.to_owned(),
            }));
        };
        if source == Source::Planned {
            skip(
                "all",
                "a planned fill needs a control plane, which this bench does not start",
                table,
            );
            continue;
        }
        let server = nearcast(world, "nearcast", &args.server, &args.env, source)?;
        for name in peers(args) {
            let peer = match &args.against {
                Some(binary) => nearcast(world, &name, binary, &args.against_env, source),
                None => peers::start(world, &name, source),
            };
            let peer = match peer {
                Ok(peer) => peer,
                Err(error) => {
                    skip(&name, &format!("{error:#}"), table);
                    continue;
                }
            };
            for cell in &of_source {
                row(how, objects, **cell, (&server, &peer), &mut runs, table);
            }
        }
    }
    Ok(())
}

fn row(
    how: &How,
    objects: &Objects,
    cell: cases::Cell,
    both: (&Running, &Running),
    runs: &mut Runs,
    table: &mut Table,
) {
    match measure(how, objects, cell, both, runs) {
        Ok(pairs) => {
            let row = Row::new(cell, &both.0.name, &both.1.name, how.streams, &pairs);
            println!("{}", shown_row(&row));
            table.rows.push(row);
        }
        Err(error) => table.skipped.push(Skipped {
            case: cell.case.name(),
            body_bytes: cell.body_bytes,
            connections: cell.connections,
            source: cell.source.name(),
            peer: both.1.name.clone(),
            reason: format!("{error:#}"),
        }),
    }
}

/// Beside whom.
fn peers(args: &Args) -> Vec<String> {
    if args.against.is_some() {
        return vec!["nearcast-other".into()];
    }
    if args.peer.iter().any(|peer| peer == "all") {
        return peers::PEERS.map(str::to_owned).to_vec();
    }
    if args.peer.is_empty() {
        return vec!["nginx".into()];
    }
    args.peer.clone()
}
