//! nearcast as a server under test: a proxy site in front of the bench's origin, or an edge of
//! titles behind a control plane.

use crate::args::Args;
use crate::cases::{Case, Source};
use crate::objects::Objects;
use crate::planned;
use crate::servers::{CACHE_MIB, Running, Start, World, free_port};
use anyhow::Result;
use std::path::Path;

/// What it may keep in memory where hits shall come from disk.
const SMALL_MEMORY_MIB: u64 = 16;

/// A binary of nearcast and how it is run.
#[derive(Debug, Clone)]
pub struct Binary<'a> {
    /// As in the table.
    pub name: &'a str,
    pub path: &'a Path,
    pub envs: &'a [(String, String)],
    /// Threads that serve connections, each with a core of its own.
    pub shards: usize,
}

impl<'a> Binary<'a> {
    /// The one that is measured.
    pub fn own(args: &'a Args) -> Self {
        Self { name: "nearcast", path: &args.server, envs: &args.env, shards: 1 }
    }
}

/// Starts it so that bodies come from `source`.
pub fn start(
    world: &World,
    binary: &Binary<'_>,
    source: Source,
    objects: &Objects,
) -> Result<Running> {
    if source == Source::Planned {
        return planned::start(world, binary, objects);
    }
    let (memory, ssd) = match source {
        Source::Memory => (CACHE_MIB, 0),
        Source::Ssd | Source::Planned => (SMALL_MEMORY_MIB, CACHE_MIB),
        Source::Miss => (CACHE_MIB / 2, CACHE_MIB / 2),
    };
    let more = [
        format!("--origin=http://{}", world.origin),
        format!("--memory={memory}MiB"),
        format!("--ssd={ssd}MiB"),
    ];
    let wanted = if source == Source::Ssd { "hit-ssd" } else { "hit-memory" };
    let folder = format!("{}-{}-{}", binary.name, source.name(), binary.shards);
    edge(world, binary, &folder, &more, wanted)
}

/// An edge that keeps little in memory and nothing on SSD but what is planned.
pub fn planned_edge(world: &World, binary: &Binary<'_>, more: &[String]) -> Result<Running> {
    let mut all = vec![
        format!("--memory={SMALL_MEMORY_MIB}MiB"),
        "--ssd=0".to_owned(),
        format!("--planned={CACHE_MIB}MiB"),
    ];
    all.extend_from_slice(more);
    edge(world, binary, &format!("{}-planned", binary.name), &all, "hit-plan")
}

fn edge(
    world: &World,
    binary: &Binary<'_>,
    folder: &str,
    more: &[String],
    wanted: &'static str,
) -> Result<Running> {
    let dir = world.folder(folder)?;
    let (http, https, admin) = (free_port()?, free_port()?, free_port()?);
    let mut arguments = vec![
        binary.path.display().to_string(),
        "--log-level=warn".to_owned(),
        "edge".to_owned(),
        format!("--listen=http://127.0.0.1:{http}"),
        format!("--listen=https://127.0.0.1:{https}"),
        format!("--admin=127.0.0.1:{admin}"),
        format!("--data-dir={}", dir.join("data").display()),
        format!("--cert={}", world.cert.display()),
        format!("--key={}", world.key.display()),
        format!("--shards={}", binary.shards),
    ];
    arguments.extend_from_slice(more);
    world.start(Start {
        name: binary.name.to_owned(),
        dir: &dir,
        shards: binary.shards,
        arguments,
        envs: binary.envs.to_vec(),
        http,
        https,
        cases: Case::ALL.to_vec(),
        hit: ("cache-status", wanted),
    })
}
