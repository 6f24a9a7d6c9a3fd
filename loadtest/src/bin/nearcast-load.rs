//! `nearcast-load`: a load on a server, from the command line.

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use nearcast_loadtest::Protocol;
use nearcast_loadtest::load::{Arrivals, Cipher, Plan, Target, Until, run_until};
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

/// Loads an HTTP server from one thread, checks every body, and tells what it cost the server.
///
/// Closed loop: each stream asks again as soon as it was answered. With --rate, requests fall
/// due at that rate whatever the answers do, and times count from then. Ctrl-C ends it early; it
/// tells of what was until then.
///
/// Example: nearcast-load --case h2-tls --ca cert.pem --connections 16 --server-pid 4711
/// https://127.0.0.1:8443/o/1m
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Args {
    /// Server and path; only the server with --list or --path
    url: Url,
    /// What is spoken
    #[arg(long, value_enum, default_value = "h1")]
    case: Case,
    /// More paths, asked for in turn: `PATH [BYTES [XXH3]]`; an n in braces stands for a number
    /// that no other request has
    #[arg(long)]
    path: Vec<String>,
    /// A file with such a path on each line
    #[arg(long)]
    list: Option<PathBuf>,
    /// A header field of each request: `Name: value`
    #[arg(long)]
    header: Vec<String>,
    /// Connect here, whatever the URL's host
    #[arg(long)]
    address: Option<std::net::SocketAddr>,
    /// Certificates to trust (PEM): authorities, or the server's own
    #[arg(long)]
    ca: Vec<PathBuf>,
    /// Connections that read as fast as they can
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Requests at a time on an HTTP/2 or HTTP/3 connection
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Connections that read a trickle, besides
    #[arg(long, default_value_t = 0)]
    slow: usize,
    /// What each of those reads, in bytes a second
    #[arg(long, default_value_t = 4096)]
    slow_rate: u64,
    /// Seconds to measure
    #[arg(long, default_value_t = 2.0, conflicts_with = "requests")]
    seconds: f64,
    /// Seconds before that
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    /// End after this many answers instead, without a warm-up
    #[arg(long)]
    requests: Option<u64>,
    /// Open loop: this many requests a second
    #[arg(long)]
    rate: Option<f64>,
    /// With --rate: independent of each other, instead of at equal distances
    #[arg(long, requires = "rate")]
    poisson: bool,
    /// Look at the content of every how manieth body; the length is always compared
    #[arg(long, default_value_t = 1)]
    check_every: u64,
    /// Stay on this core
    #[arg(long)]
    core: Option<usize>,
    /// The one cipher that is offered
    #[arg(long, value_enum, default_value = "aes-128-gcm")]
    cipher: CipherName,
    /// A server process whose CPU time and memory are read, with its children
    #[arg(long)]
    server_pid: Vec<u32>,
    /// HTTP/2 and 3: what a stream may have under way, in bytes
    #[arg(long, default_value_t = 8 << 20)]
    stream_window: u32,
    /// The same for a connection
    #[arg(long, default_value_t = 32 << 20)]
    window: u32,
    /// The report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Case {
    H1,
    H1Tls,
    H2Tls,
    H3,
}

#[derive(Clone, Copy, ValueEnum)]
enum CipherName {
    #[value(name = "aes-128-gcm")]
    Aes128,
    #[value(name = "aes-256-gcm")]
    Aes256,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let plan = plan(&args)?;
    // Where it can't be listened to, it ends the process.
    let report = run_until(&plan, async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    })?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    if !report.is_clean() {
        std::process::exit(1);
    }
    Ok(())
}

fn plan(args: &Args) -> Result<Plan> {
    let protocol = match args.case {
        Case::H1 => Protocol::H1,
        Case::H1Tls => Protocol::H1Tls,
        Case::H2Tls => Protocol::H2,
        Case::H3 => Protocol::H3,
    };
    let mut plan = Plan::new(protocol, args.url.clone(), targets(args)?);
    for header in &args.header {
        let (name, value) = header.split_once(':').context("--header: expected `Name: value`")?;
        plan.fields.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    for file in &args.ca {
        plan.ca_pem.push(std::fs::read(file).with_context(|| file.display().to_string())?);
    }
    plan.address = args.address;
    plan.connections = args.connections;
    plan.streams = args.streams;
    plan.slow = args.slow;
    plan.slow_bytes_per_s = args.slow_rate;
    plan.arrivals = match args.rate {
        None => Arrivals::Closed,
        Some(rate) if args.poisson => Arrivals::Poisson(rate),
        Some(rate) => Arrivals::Constant(rate),
    };
    plan.warm_up = seconds("--warm-up", args.warm_up)?;
    plan.until = match args.requests {
        Some(requests) => Until::Answers(requests),
        None => Until::Elapsed(seconds("--seconds", args.seconds)?),
    };
    plan.check_every = args.check_every;
    plan.core = args.core;
    plan.cipher = match args.cipher {
        CipherName::Aes128 => Cipher::Aes128,
        CipherName::Aes256 => Cipher::Aes256,
    };
    plan.server_pids.clone_from(&args.server_pid);
    plan.stream_window_bytes = args.stream_window;
    plan.window_bytes = args.window;
    Ok(plan)
}

fn seconds(what: &str, value: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(value).with_context(|| format!("{what}: expected seconds"))
}

fn targets(args: &Args) -> Result<Vec<Target>> {
    let mut lines = args.path.clone();
    if let Some(file) = &args.list {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        lines.extend(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned));
    }
    if lines.is_empty() {
        lines.push(args.url[url::Position::BeforePath..url::Position::AfterQuery].to_owned());
    }
    lines.iter().map(|line| Ok(Target::from_line(line)?)).collect()
}
