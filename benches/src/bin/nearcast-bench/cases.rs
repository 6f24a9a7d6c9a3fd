//! What is measured: the cells of the table.

use anyhow::{Result, bail};
use clap::ValueEnum;
use loadtest::Protocol;

/// Bodies from a player's playlist to a long segment.
pub const BODIES: [u64; 4] = [2 << 10, 64 << 10, 1 << 20, 4 << 20];
/// Connections at a time.
pub const CONNECTIONS: [usize; 3] = [1, 16, 256];
/// Slow readers of one cell.
pub const SLOW: usize = 1000;

/// A protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// HTTP/1.1 without TLS
    H1,
    /// HTTP/1.1 over TLS 1.3
    H1Tls,
    /// HTTP/2 over TLS 1.3
    H2Tls,
    /// HTTP/3
    H3,
}

impl Case {
    pub const ALL: [Self; 4] = [Self::H1, Self::H1Tls, Self::H2Tls, Self::H3];

    pub fn name(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H1Tls => "h1-tls",
            Self::H2Tls => "h2-tls",
            Self::H3 => "h3",
        }
    }

    pub fn protocol(self) -> Protocol {
        match self {
            Self::H1 => Protocol::H1,
            Self::H1Tls => Protocol::H1Tls,
            Self::H2Tls => Protocol::H2,
            Self::H3 => Protocol::H3,
        }
    }
}

/// Where a response's bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// Hits in memory; for nginx, in files that the page cache holds
    Memory,
    /// Hits on disk, read past the page cache
    Ssd,
    /// nearcast's planned fill; peers have none and serve from disk
    Planned,
    /// Never asked for before: fetched from the origin, stored, served
    Miss,
}

impl Source {
    pub const ALL: [Self; 4] = [Self::Memory, Self::Ssd, Self::Planned, Self::Miss];

    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Ssd => "ssd",
            Self::Planned => "planned",
            Self::Miss => "miss",
        }
    }
}

/// One cell of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    pub case: Case,
    pub source: Source,
    pub body_bytes: u64,
    /// Connections; slow ones if `slow`.
    pub connections: usize,
    pub slow: bool,
}

/// What was asked for; empty lists stand for all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub cases: Vec<Case>,
    pub sources: Vec<Source>,
    pub bodies: Vec<u64>,
    pub connections: Vec<usize>,
    /// Only the cells of the table of targets.
    pub quick: bool,
    /// Only cells with slow readers.
    pub slow: bool,
}

fn allowed<T: PartialEq>(list: &[T], item: &T) -> bool {
    list.is_empty() || list.contains(item)
}

/// All cells that pass the filter, in the table's order.
pub fn cells(filter: &Filter) -> Result<Vec<Cell>> {
    let mut cells = Vec::new();
    for source in Source::ALL.into_iter().filter(|source| allowed(&filter.sources, source)) {
        for case in Case::ALL.into_iter().filter(|case| allowed(&filter.cases, case)) {
            cells.extend(of(filter, case, source));
        }
    }
    if cells.is_empty() {
        bail!("no cell of the table is left: --case, --source, --body, --connections, --slow");
    }
    Ok(cells)
}

/// The cells of one protocol and source.
fn of(filter: &Filter, case: Case, source: Source) -> Vec<Cell> {
    // A size or number that was asked for is measured, whether or not the table has it.
    let bodies = if filter.bodies.is_empty() { &BODIES[..] } else { &filter.bodies };
    let counts = match (&filter.connections[..], filter.quick) {
        ([], true) => &[16][..],
        ([], false) => &CONNECTIONS,
        (asked, _) => asked,
    };
    let named = |source: Source| filter.sources.contains(&source);
    if (filter.quick || filter.slow) && source != Source::Memory && !named(source) {
        return Vec::new();
    }
    let mut cells = Vec::new();
    for &body_bytes in bodies.iter().filter(|_| !filter.slow) {
        let cell = |&connections| Cell { case, source, body_bytes, connections, slow: false };
        cells.extend(counts.iter().map(cell));
    }
    if filter.slow || (source == Source::Memory && !filter.quick && filter.connections.is_empty()) {
        let body_bytes = filter.bodies.last().copied().unwrap_or(4 << 20);
        cells.push(Cell { case, source, body_bytes, connections: SLOW, slow: true });
    }
    cells
}

/// `64k`, `1m`, `4MiB`, or a number of bytes.
pub fn size(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches("ib").trim_end_matches(['k', 'm']);
    let unit = match lower[digits.len()..].chars().next() {
        None => 1,
        Some('k') => 1 << 10,
        Some('m') => 1 << 20,
        Some(_) => 0,
    };
    match digits.parse::<u64>() {
        Ok(number) if number > 0 && unit > 0 && number * unit <= 64 << 20 => Ok(number * unit),
        _ => Err(format!("{text}: expected 1 to 64m bytes, such as 2k, 64k, 1m")),
    }
}

/// A size as the table shows it.
pub fn shown(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 20 && b.is_multiple_of(1 << 20) => format!("{} MiB", b >> 20),
        b if b >= 1 << 10 && b.is_multiple_of(1 << 10) => format!("{} KiB", b >> 10),
        b => format!("{b} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_covers_the_table_of_targets_and_the_rest_is_larger() {
        let quick = cells(&Filter { quick: true, ..Filter::default() }).unwrap();
        assert_eq!(quick.len(), 16);
        for case in Case::ALL {
            for body_bytes in BODIES {
                let wanted =
                    Cell { case, source: Source::Memory, body_bytes, connections: 16, slow: false };
                assert!(quick.contains(&wanted), "{wanted:?}");
            }
        }
        assert_eq!(cells(&Filter::default()).unwrap().len(), 4 * 4 * 4 * 3 + 4);
    }

    #[test]
    fn one_cell_can_be_asked_for() {
        let filter = Filter {
            cases: vec![Case::H3],
            sources: vec![Source::Memory],
            bodies: vec![size("1m").unwrap()],
            connections: vec![8],
            ..Filter::default()
        };
        let one = cells(&filter).unwrap();
        assert_eq!(one.len(), 1);
        assert_eq!((one[0].body_bytes, one[0].connections), (1 << 20, 8));
        let slow = cells(&Filter { slow: true, ..filter }).unwrap();
        assert!(slow.len() == 1 && slow[0].slow && slow[0].connections == SLOW);
    }

    #[test]
    fn sizes_are_read_and_shown() {
        assert_eq!(size("64k"), Ok(64 << 10));
        assert_eq!(size("1MiB"), Ok(1 << 20));
        assert_eq!(size("100"), Ok(100));
        for bad in ["", "k", "1g", "0", "65m", "1x"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert_eq!(
            (shown(64 << 10), shown(4 << 20), shown(100)),
            ("64 KiB".into(), "4 MiB".into(), "100 B".into())
        );
    }
}
