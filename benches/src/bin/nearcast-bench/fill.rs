//! The table, source by source.

use crate::args::Args;
use crate::cases::Cell;
use crate::nearcasts::{self, Binary};
use crate::objects::Objects;
use crate::pair::{How, Runs, measure};
use crate::peers;
use crate::servers::{Running, World};
use crate::table::{Row, Skipped, Table, shown_row};
use anyhow::Result;

/// Measures source by source: each has servers of its own, and so has each cell with slow readers,
/// since what a process once needed stays in its memory figure.
pub fn fill(
    args: &Args,
    world: &World,
    how: &How,
    objects: &Objects,
    table: &mut Table,
) -> Result<()> {
    let all = args.cells()?;
    let mut runs = Runs::default();
    for of_source in groups(all) {
        let source = of_source[0].source;
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
        let own = Binary::own(args);
        let server = nearcasts::start(world, &own, source, objects)?;
        for name in args.peers() {
            let peer = match &args.against {
                Some(path) => {
                    let other = Binary { name: &name, path, envs: &args.against_env, shards: 1 };
                    nearcasts::start(world, &other, source, objects)
                }
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
                row(how, objects, [(*cell, &server), (*cell, &peer)], &mut runs, table);
            }
        }
    }
    Ok(())
}

/// Cells that are asked of the same processes.
fn groups(cells: Vec<Cell>) -> Vec<Vec<Cell>> {
    let (slow, others): (Vec<_>, Vec<_>) = cells.into_iter().partition(|cell| cell.slow);
    let by_source = others.chunk_by(|one, next| one.source == next.source);
    by_source.map(<[Cell]>::to_vec).chain(slow.into_iter().map(|cell| vec![cell])).collect()
}

/// Measures one row: the first of both beside the second.
pub fn row(
    how: &How,
    objects: &Objects,
    both: [(Cell, &Running); 2],
    runs: &mut Runs,
    table: &mut Table,
) {
    let [(cell, server), (beside, peer)] = both;
    let name = match (beside == cell, peer.shards == server.shards) {
        (true, true) => peer.name.clone(),
        (true, false) => format!("{}, {} shard", peer.name, peer.shards),
        (false, _) => format!("{} at {}", peer.name, beside.connections),
    };
    match measure(how, objects, both, runs) {
        Ok(pairs) => {
            let row = Row::new(cell, &server.name, &name, how.streams, &pairs);
            println!("{}", shown_row(&row));
            table.rows.push(row);
        }
        Err(error) => table.skipped.push(Skipped {
            case: cell.case.name(),
            body_bytes: cell.body_bytes,
            connections: cell.connections,
            source: cell.source.name(),
            peer: name,
            reason: format!("{error:#}"),
        }),
    }
}
