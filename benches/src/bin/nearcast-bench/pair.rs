//! One cell, measured in pairs: A B, B A, A B, ... Both servers run all the time and only one is
//! asked, so that what else the machine does falls on both alike.

use crate::cases::{Case, Cell, Source};
use crate::objects::{self, Objects};
use crate::servers::Running;
use anyhow::{Context, Result, bail};
use loadtest::Client;
use loadtest::load::{Arrivals, Cipher, Plan, Report, Target, Until, run};
use std::time::Duration;
use url::Url;

/// The longest wait for one body while the cache is looked at.
const BODY_WAIT: Duration = Duration::from_secs(20);
/// Objects whose place is looked at before a cell is measured.
const PROBES: usize = 16;
/// How often a cache may be filled before it is given up.
const PASSES_MAX: usize = 5;
/// A slow reader's rate, in bytes a second: 4 MiB last a minute.
const SLOW_BYTES_PER_S: u64 = 64 << 10;
/// What may be under way to a slow reader over HTTP/3.
const SLOW_WINDOW_BYTES: u32 = 64 << 10;
/// Over plain HTTP/1.1 a byte costs the server less than a client that copies and hashes it: it does
/// so with every eighth body while it measures, and with all before.
const PLAIN_CHECKED_EVERY: u64 = 8;
/// Of all arrivals that a server could take, for times to the first byte.
const LOADED: f64 = 0.7;

/// How a run measures.
#[derive(Debug, Clone)]
pub struct How {
    pub pairs: usize,
    pub time: Duration,
    pub warm_up: Duration,
    /// The client's core.
    pub core: usize,
    pub cipher: Cipher,
    pub ca_pem: Vec<u8>,
    pub streams: usize,
    /// Also measure times to the first byte in an open loop at 70 % of what was reached.
    pub at_70: bool,
}

/// Both reports of one pair.
pub struct Pair {
    pub server: Report,
    pub peer: Report,
    /// At 70 % of the slower one's rate, if asked for.
    pub loaded: Option<(Report, Report)>,
}

/// Numbers of runs, so that no two miss the same objects.
#[derive(Debug, Default)]
pub struct Runs(u64);

/// All pairs of a cell, or of two cells of the same server.
pub fn measure(
    how: &How,
    objects: &Objects,
    [a, b]: [(Cell, &Running); 2],
    runs: &mut Runs,
) -> Result<Vec<Pair>> {
    for (cell, one) in [a, b] {
        if !one.cases.contains(&cell.case) {
            bail!("{} does not speak {}", one.name, cell.case.name());
        }
        warm(how, objects, cell, one).with_context(|| one.name.clone())?;
    }
    let mut pairs = Vec::new();
    for number in 0..how.pairs {
        let mut load = |(cell, one): (Cell, &Running), rate: Option<f64>| {
            let plan = plan(how, objects, cell, one, rate, runs)?;
            // A thread of its own: it is bound to a core.
            let report = std::thread::scope(|scope| scope.spawn(|| run(&plan)).join());
            let report = report.ok().context("the load has panicked")??;
            if !report.is_clean() {
                bail!(
                    "{}: {} wrong bodies, {} failures: {:?}",
                    one.name,
                    report.wrong,
                    report.failures,
                    report.texts
                );
            }
            anyhow::Ok(report)
        };
        let mut both = |rate: Option<f64>| {
            anyhow::Ok(if number % 2 == 0 {
                let first = load(a, rate)?;
                (first, load(b, rate)?)
            } else {
                let first = load(b, rate)?;
                (load(a, rate)?, first)
            })
        };
        let (server, peer) = both(None)?;
        let rate = LOADED * server.requests_per_s.min(peer.requests_per_s);
        let loaded = (how.at_70 && !a.0.slow && rate >= 1.0).then(|| both(Some(rate)));
        pairs.push(Pair { server, peer, loaded: loaded.transpose()? });
    }
    Ok(pairs)
}

fn targets(objects: &Objects, cell: Cell, one: &Running) -> Vec<Target> {
    let (bytes, count) = (cell.body_bytes, objects::count(cell.source, cell.body_bytes));
    objects.targets(bytes, count, |number| match &one.titles {
        Some(titles) => titles.path(bytes, number),
        None => format!("/o/{bytes}/{number}"),
    })
}

fn base(cell: Cell, one: &Running) -> Result<Url> {
    let protocol = cell.case.protocol();
    let port = if protocol.scheme() == "http" { one.http } else { one.https };
    Ok(Url::parse(&format!("{}://127.0.0.1:{port}", protocol.scheme()))?)
}

fn plan(
    how: &How,
    objects: &Objects,
    cell: Cell,
    one: &Running,
    rate: Option<f64>,
    runs: &mut Runs,
) -> Result<Plan> {
    runs.0 += 1;
    let targets = match cell.source {
        Source::Miss => objects.missed(cell.body_bytes, &format!("r{}", runs.0)),
        _ => targets(objects, cell, one),
    };
    let mut plan = Plan::new(cell.case.protocol(), base(cell, one)?, targets);
    (plan.connections, plan.slow) =
        if cell.slow { (0, cell.connections) } else { (cell.connections, 0) };
    plan.slow_bytes_per_s = SLOW_BYTES_PER_S;
    plan.streams = how.streams;
    plan.warm_up = how.warm_up;
    if cell.slow {
        // A thousand handshakes take a while.
        plan.warm_up += Duration::from_secs(2);
        if cell.case == Case::H3 {
            // What it does not read is left with the server, as TCP's small buffers do.
            (plan.stream_window_bytes, plan.window_bytes) = (SLOW_WINDOW_BYTES, SLOW_WINDOW_BYTES);
        }
    }
    plan.until = Until::Elapsed(how.time);
    if cell.case == Case::H1 {
        plan.check_every = PLAIN_CHECKED_EVERY;
    }
    plan.core = Some(how.core);
    plan.cipher = how.cipher;
    plan.ca_pem = vec![how.ca_pem.clone()];
    plan.server_pids = vec![one.pid()];
    if let Some(rate) = rate {
        plan.arrivals = Arrivals::Poisson(rate);
    }
    Ok(plan)
}

/// Has each object fetched until they come from where they should.
fn warm(how: &How, objects: &Objects, cell: Cell, one: &Running) -> Result<()> {
    if cell.source == Source::Miss {
        return Ok(());
    }
    let targets = targets(objects, cell, one);
    for pass in 1.. {
        let mut plan = plan(how, objects, cell, one, None, &mut Runs::default())?;
        (plan.connections, plan.slow, plan.streams) = (4, 0, 1);
        plan.check_every = 1;
        plan.until = Until::Answers(2 * targets.len() as u64);
        let report = std::thread::scope(|scope| scope.spawn(|| run(&plan)).join());
        let report = report.ok().context("the load has panicked")??;
        if !report.is_clean() {
            bail!("while its cache was filled: {:?}", report.texts);
        }
        match probe(how, cell, one, &targets)? {
            None => break,
            Some(misplaced) if pass == PASSES_MAX => bail!(misplaced),
            // An answer that is still being stored, or was not stored for a full queue.
            Some(_) => {}
        }
    }
    Ok(())
}

/// Where some objects come from; a text if not from where they should.
fn probe(how: &How, cell: Cell, one: &Running, targets: &[Target]) -> Result<Option<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ca = std::slice::from_ref(&how.ca_pem);
    let client = Client::new(cell.case.protocol(), ca, BODY_WAIT)?;
    let (field, wanted) = one.hit;
    let step = targets.len().div_ceil(PROBES).max(1);
    let base = base(cell, one)?;
    let (mut right, mut probed, mut misplaced) = (0, 0, None);
    for target in targets.iter().step_by(step) {
        let url = base.join(&target.path)?;
        let fetched = runtime.block_on(client.get(url.as_str(), &[]))?;
        let said = fetched.header(field);
        probed += 1;
        if said.is_some_and(|said| said.contains(wanted)) {
            right += 1;
        } else {
            let text = format!("{}: expected {wanted:?} in {field}, found {said:?}", target.path);
            misplaced = Some(text);
        }
    }
    // What was read from disk last is in memory as well: of small objects, the larger part.
    let on_disk = matches!(cell.source, Source::Ssd | Source::Planned);
    let enough = if on_disk { probed / 4 } else { probed };
    Ok(misplaced.filter(|_| right < enough))
}
