//! Runs a load from its first connection to its report.

use super::plan::{Plan, Until};
use super::report::{Measured, Report};
use super::server::{Usage, usage};
use super::slow::Trickle;
use super::tally::Tally;
use super::wire::{Peer, Scratch};
use super::{Context, arrivals, h1, h2, quic};
use crate::client::tls;
use crate::{Error, Protocol};
use futures::FutureExt;
use rustix::time::{ClockId, clock_gettime};
use rustls::pki_types::ServerName;
use std::cell::Cell;
use std::net::ToSocketAddrs;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::LocalSet;

/// A load ends after as many failures: the server is not there, or not what was expected.
const FAILURES_MAX: u64 = 1000;
/// Between the tries of a connection that could not be made.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// How often the server's memory is looked at.
const SAMPLE_PERIOD: Duration = Duration::from_millis(50);

/// Runs a load on the calling thread, which is bound to [`Plan::core`].
///
/// # Errors
/// [`Error`] when the plan can't be run: a bad setting, a server process that is gone. What goes
/// wrong with single requests is in the report.
pub fn run(plan: &Plan) -> Result<Report, Error> {
    run_until(plan, std::future::pending())
}

/// [`run`] that ends with `end`, if that comes before [`Plan::until`]. The report is of what was
/// until then.
///
/// # Errors
/// As [`run`].
pub fn run_until(plan: &Plan, end: impl Future<Output = ()>) -> Result<Report, Error> {
    plan.checked()?;
    if let Some(core) = plan.core {
        let mut cores = rustix::thread::CpuSet::new();
        cores.set(core);
        rustix::thread::sched_setaffinity(None, &cores)
            .map_err(|error| bad(&format!("core {core}"), &error.to_string()))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| bad("the runtime", &error.to_string()))?;
    LocalSet::new().block_on(&runtime, load(plan, end))
}

fn bad(what: &str, reason: &str) -> Error {
    Error::BadLoad { what: what.to_owned(), reason: reason.to_owned() }
}

async fn load(plan: &Plan, end: impl Future<Output = ()>) -> Result<Report, Error> {
    let before = usage(&plan.server_pids)?;
    let context = Rc::new(context(plan)?);
    let mut tasks = tokio::task::JoinSet::new();
    let slow = Trickle::new(plan.slow_bytes_per_s);
    // Those that end when the load is over.
    let fast = if plan.protocol == Protocol::H3 {
        let scratch = quic::Scratch::new();
        let fast = sockets(plan, &context, &scratch, plan.connections, None)?;
        let slow = sockets(plan, &context, &scratch, plan.slow, Some(slow))?;
        let count = fast.len();
        for socket in fast.into_iter().chain(slow) {
            tasks.spawn_local(socket.run());
        }
        count
    } else {
        for number in 0..plan.connections + plan.slow {
            let slow = (number >= plan.connections).then_some(slow);
            tasks.spawn_local(connection(context.clone(), plan.protocol, slow));
        }
        plan.connections
    };
    let driven = context.clone();
    let driver = tokio::task::spawn_local(async move { driven.queue.drive().await });
    let rss_max = Cell::new(before.rss_bytes);
    let watched = async {
        loop {
            tokio::time::sleep(SAMPLE_PERIOD).await;
            // One that has gone is found when the load ends.
            let now = usage(&plan.server_pids).unwrap_or_default();
            rss_max.set(rss_max.get().max(now.rss_bytes));
        }
    };
    let measured = tokio::select! {
        measured = measure(plan, &context, &mut tasks, fast, end) => measured?,
        () = watched => unreachable!("it has no end"),
    };
    driver.abort();
    let (start, end) = measured;
    Ok(Report::new(
        &context.tally,
        &Measured {
            protocol: plan.protocol.to_string(),
            connections: plan.connections,
            streams: plan.streams,
            slow: plan.slow,
            dropped: context.queue.dropped(),
            seconds: (end.at - start.at).as_secs_f64(),
            client_s: end.client_s - start.client_s,
            server: (!plan.server_pids.is_empty()).then_some((start.server, end.server)),
            rss_before_bytes: before.rss_bytes,
            rss_max_bytes: rss_max.get(),
        },
    ))
}

fn context(plan: &Plan) -> Result<Context, Error> {
    let host = plan.server.host_str().ok_or_else(|| bad(plan.server.as_str(), "no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = plan.server.port_or_known_default().unwrap_or(0);
    let address = match plan.address {
        Some(address) => address,
        None => (host.as_str(), port)
            .to_socket_addrs()
            .map_err(|error| bad(&host, &error.to_string()))?
            .next()
            .ok_or_else(|| bad(&host, "it has no address"))?,
    };
    let name = ServerName::try_from(host).map_err(|error| bad("host", &error.to_string()))?;
    let tls = match plan.protocol {
        Protocol::H1 | Protocol::H3 => None,
        _ => Some(Arc::new(client_config(plan)?)),
    };
    let authority = &plan.server[url::Position::BeforeHost..url::Position::AfterPort];
    let targets: Rc<[_]> = plan.targets.clone().into();
    Ok(Context {
        peer: Peer { address, name, tls },
        authority: authority.to_owned(),
        fields: plan.fields.clone(),
        streams: plan.streams,
        stream_window_bytes: plan.stream_window_bytes,
        window_bytes: plan.window_bytes,
        queue: arrivals::Queue::new(plan.arrivals, plan.until, targets.len()),
        tally: Tally::new(targets.clone(), plan.check_every),
        targets,
        scratch: Scratch::new(),
    })
}

/// One cipher, TLS 1.3, and keys that may be taken out.
fn client_config(plan: &Plan) -> Result<rustls::ClientConfig, Error> {
    use super::plan::Cipher;
    use rustls::crypto::aws_lc_rs::{cipher_suite as suite, default_provider};
    let mut provider = default_provider();
    provider.cipher_suites = vec![match plan.cipher {
        Cipher::Aes128 => suite::TLS13_AES_128_GCM_SHA256,
        Cipher::Aes256 => suite::TLS13_AES_256_GCM_SHA384,
    }];
    if plan.protocol == Protocol::H3 && plan.cipher == Cipher::Aes256 {
        // QUIC's first packets are always protected by this one; the server decides.
        provider.cipher_suites.push(suite::TLS13_AES_128_GCM_SHA256);
    }
    let mut config = tls::config_of(plan.protocol, &plan.ca_pem, provider)?;
    config.enable_secret_extraction = true;
    // Each connection is made anew, so that loads do not depend on each other.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// QUIC connections, a few to a socket.
fn sockets(
    plan: &Plan,
    context: &Rc<Context>,
    scratch: &quic::Scratch,
    connections: usize,
    slow: Option<Trickle>,
) -> Result<Vec<quic::Socket>, Error> {
    if connections == 0 {
        return Ok(Vec::new());
    }
    let config = quic::config(client_config(plan)?, plan.stream_window_bytes, plan.window_bytes)?;
    let count = connections.div_ceil(quic::SHARED_BY).min(quic::SOCKETS_MAX);
    let socket = |number| {
        // Their numbers differ by one at most.
        let share = connections / count + usize::from(number < connections % count);
        quic::Socket::open(context, config.clone(), scratch.clone(), share, slow)
    };
    let sockets: std::io::Result<_> = (0..count).map(socket).collect();
    sockets.map_err(|error| bad("a UDP socket", &error.to_string()))
}

/// One connection after the other, until the load is over.
async fn connection(context: Rc<Context>, protocol: Protocol, slow: Option<Trickle>) {
    loop {
        let done = match protocol {
            Protocol::H2 => h2::run(&context, slow).await,
            _ => h1::run(&context, slow).await,
        };
        if let Err(error) = done {
            context.tally.failed(error.to_string());
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        if context.queue.is_over() && slow.is_none() {
            return;
        }
    }
}

/// A moment and what had been used by then.
struct Mark {
    at: Instant,
    client_s: f64,
    server: Usage,
}

fn mark(plan: &Plan) -> Result<Mark, Error> {
    let thread = clock_gettime(ClockId::ThreadCPUTime);
    Ok(Mark {
        at: Instant::now(),
        client_s: thread.tv_sec as f64 + thread.tv_nsec as f64 / 1e9,
        server: usage(&plan.server_pids)?,
    })
}

async fn measure(
    plan: &Plan,
    context: &Context,
    tasks: &mut tokio::task::JoinSet<()>,
    fast: usize,
    end: impl Future<Output = ()>,
) -> Result<(Mark, Mark), Error> {
    let is_over = async {
        tokio::select! {
            () = too_many_failures(context) => {}
            () = end => {}
        }
    };
    let is_over = is_over.shared();
    let Until::Elapsed(time) = plan.until else {
        let start = mark(plan)?;
        // Slow readers have no end of their own.
        for _ in 0..fast {
            tokio::select! {
                _ = tasks.join_next() => {}
                () = is_over.clone() => break,
            }
        }
        return Ok((start, mark(plan)?));
    };
    tokio::select! {
        () = tokio::time::sleep(plan.warm_up) => {}
        () = is_over.clone() => {}
    }
    context.tally.restart();
    let start = mark(plan)?;
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = is_over.clone() => {}
    }
    Ok((start, mark(plan)?))
}

async fn too_many_failures(context: &Context) {
    while context.tally.failures.get() < FAILURES_MAX {
        tokio::time::sleep(SAMPLE_PERIOD).await;
    }
}
