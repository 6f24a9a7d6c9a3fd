//! `nearcast-bench`: nearcast beside its peers on the same core, under the same load. `./bench`
//! builds it, brings the peers, and runs it in a network of its own.

mod args;
mod cases;
mod checks;
mod fill;
mod floor;
mod goals;
mod handshakes;
mod limits;
mod nearcasts;
mod objects;
mod pair;
mod peers;
mod planned;
mod servers;
mod table;

use anyhow::{Context, Result, bail};
use args::{Args, CipherName};
use cases::Source;
use clap::Parser;
use loadtest::load::Cipher;
use objects::Objects;
use pair::How;
use servers::World;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use table::{Table, foot, head};

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
    let mut table = Table::new(limits);
    println!("{}", head());
    // What was measured before a server failed is kept.
    let ended = fill::fill(&args, &world, &how, &objects, &mut table)
        .and_then(|()| checks::run(&args, &world, &how, &objects, &mut table));
    table.goals = goals::of(&table.rows);
    print!("{}", foot(&table));
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&table)? + "\n";
        std::fs::write(file, text).with_context(|| file.display().to_string())?;
    }
    ended?;
    if table.rows.is_empty() && table.handshakes.is_empty() && table.floors.is_empty() {
        bail!("nothing was measured");
    }
    Ok(())
}

/// Certificate, objects, origin: what all servers share.
fn world(args: &Args, dir: &Path) -> Result<(World, How, Arc<Objects>)> {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into(), "localhost".into()])?;
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let ca_pem = made.cert.pem().into_bytes();
    std::fs::write(&cert, &ca_pem)?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    let mut cells = args.cells()?;
    cells.extend(checks::cells(args));
    let objects = Arc::new(Objects::of(&cells));
    let has = |name: &str| args.peer.iter().any(|peer| peer == name || peer == "all");
    let on_disk = cells.iter().any(|cell| matches!(cell.source, Source::Ssd | Source::Planned));
    objects.write(&dir.join("files"), has("caddy") || on_disk)?;
    let aes128 = args.cipher == CipherName::Aes128;
    let world = World {
        dir: dir.to_owned(),
        origin: objects::serve(objects.clone(), args.client_core)?,
        cert,
        key,
        core: args.server_core,
        client_core: args.client_core,
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
