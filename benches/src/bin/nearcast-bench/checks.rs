//! The claims that no cell of the table shows alone: what more connections and another core
//! cost, how soon bytes come under load, what slow readers take.

use crate::args::Args;
use crate::cases::{Case, Cell, SLOW, Source};
use crate::fill::row;
use crate::floor::{self, Floor};
use crate::handshakes;
use crate::nearcasts::{self, Binary};
use crate::objects::Objects;
use crate::pair::{How, Runs, measure};
use crate::peers;
use crate::servers::World;
use crate::table::Table;
use anyhow::Result;
use clap::ValueEnum;

/// A claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Check {
    /// CPU per byte at 256 connections, and at 1, beside 16
    Connections,
    /// CPU per byte on two cores beside one
    Shards,
    /// Times to the first byte at 70 % load beside nginx's
    Load,
    /// Memory with 1,000 slow readers
    Slow,
    /// TLS handshakes beside nginx's, full and resumed
    Handshakes,
    /// What sealing and sending alone cost beside nginx over TLS
    Floor,
}

impl Check {
    const ALL: [Self; 6] =
        [Self::Connections, Self::Shards, Self::Load, Self::Slow, Self::Handshakes, Self::Floor];
}

/// Connections that others are compared with.
const USUAL: usize = 16;
const BODIES: [u64; 2] = [64 << 10, 1 << 20];

/// Which: those that were asked for, or all where nothing is left out. The whole table has slow
/// readers already.
fn wanted(args: &Args) -> Vec<Check> {
    if args.check.is_empty() && args.is_whole() && args.against.is_none() {
        return Check::ALL.into_iter().filter(|check| *check != Check::Slow).collect();
    }
    args.check.clone()
}

fn cells_of(args: &Args, check: Check) -> Vec<Cell> {
    let bodies = match (check, &args.body[..]) {
        // Each asks for one object of this size.
        (Check::Handshakes, _) => &[2 << 10],
        (_, asked @ [_, ..]) => asked,
        (Check::Slow, []) => &[4 << 20],
        (_, []) => &BODIES,
    };
    let (connections, slow) = if check == Check::Slow { (SLOW, true) } else { (USUAL, false) };
    let cases = Case::ALL.into_iter();
    let cases = cases.filter(|case| args.case.is_empty() || args.case.contains(case));
    let cell =
        |(case, body_bytes)| Cell { case, source: Source::Memory, body_bytes, connections, slow };
    let cases = cases.filter(|case| check != Check::Floor || floor::has(*case));
    cases.flat_map(|case| bodies.iter().map(move |bytes| (case, *bytes))).map(cell).collect()
}

/// All cells that the checks need.
pub fn cells(args: &Args) -> Vec<Cell> {
    wanted(args).into_iter().flat_map(|check| cells_of(args, check)).collect()
}

/// Measures what is wanted.
pub fn run(
    args: &Args,
    world: &World,
    how: &How,
    objects: &Objects,
    table: &mut Table,
) -> Result<()> {
    let wanted = wanted(args);
    if wanted.is_empty() {
        return Ok(());
    }
    let own = Binary::own(args);
    let server = nearcasts::start(world, &own, Source::Memory, objects)?;
    let mut runs = Runs::default();
    for check in wanted {
        let cells = cells_of(args, check);
        match check {
            Check::Connections => {
                for cell in cells {
                    for connections in [256, 1] {
                        let more = Cell { connections, ..cell };
                        row(how, objects, [(more, &server), (cell, &server)], &mut runs, table);
                    }
                }
            }
            Check::Shards => {
                let two = Binary { shards: 2, ..own.clone() };
                let two = nearcasts::start(world, &two, Source::Memory, objects)?;
                for cell in cells {
                    row(how, objects, [(cell, &two), (cell, &server)], &mut runs, table);
                }
            }
            Check::Load => {
                let peer = peers::start(world, "nginx", Source::Memory)?;
                let how = How { at_70: true, ..how.clone() };
                for cell in cells {
                    row(&how, objects, [(cell, &server), (cell, &peer)], &mut runs, table);
                }
            }
            Check::Slow => {
                // What a process once needed stays in its figure: each protocol has its own.
                for cell in cells {
                    let server = nearcasts::start(world, &own, Source::Memory, objects)?;
                    let peer = peers::start(world, "nginx", Source::Memory)?;
                    row(how, objects, [(cell, &server), (cell, &peer)], &mut runs, table);
                }
            }
            Check::Handshakes => {
                let peer = peers::start(world, "nginx", Source::Memory)?;
                table.handshakes = handshakes::measure(how, [&server, &peer])?;
            }
            Check::Floor => {
                let peer = peers::start(world, "nginx", Source::Memory)?;
                let (name, value) = floor::COPIES;
                let envs = [(name.to_owned(), value.to_owned())];
                let copies = Binary { name: "nearcast-copies", envs: &envs, ..own.clone() };
                let copies = nearcasts::start(world, &copies, Source::Memory, objects)?;
                for cell in cells {
                    let both = [(Cell { case: Case::H1, ..cell }, &copies), (cell, &peer)];
                    let pairs = measure(how, objects, both, &mut runs)?;
                    table.floors.push(Floor::of(cell, &table.limits, &pairs));
                }
            }
        }
    }
    Ok(())
}
