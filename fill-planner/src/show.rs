//! A plan for people: one table an edge.

use crate::plan::{EdgePlan, Planned, Verdict};
use std::io::{self, Write};

/// Titles shown of each edge; the rest is counted.
const ROWS_MAX: usize = 40;

/// Writes the tables.
pub(crate) fn tables(planned: &Planned, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "Fill plan for {}", planned.run.date)?;
    planned.edges.iter().try_for_each(|edge| table(edge, out))
}

fn table(edge: &EdgePlan, out: &mut dyn Write) -> io::Result<()> {
    let count = edge.titles.iter().filter(|row| row.verdict.is_planned()).count();
    writeln!(
        out,
        "\n{}: {count} of {} titles, {} of {}, {} to fetch",
        edge.edge,
        edge.titles.len(),
        bytes(edge.bytes),
        bytes(edge.bytes_max),
        bytes(edge.fetch_bytes)
    )?;
    let shown = &edge.titles[..edge.titles.len().min(ROWS_MAX)];
    let width = shown.iter().map(|row| row.title.as_str().len()).max().unwrap_or(0).max(5);
    writeln!(out, "  {:<width$}  {:>10}  {:>10}  PLAN", "TITLE", "PREDICTED", "SIZE")?;
    for row in shown {
        let (predicted, size) = (bytes(row.predicted_bytes), bytes(row.bytes));
        let plan = word(row.verdict, row.held);
        writeln!(out, "  {:<width$}  {predicted:>10}  {size:>10}  {plan}", row.title.as_str())?;
    }
    match edge.titles.len() - shown.len() {
        0 => Ok(()),
        more => writeln!(out, "  and {more} more"),
    }
}

fn word(verdict: Verdict, held: bool) -> &'static str {
    match (verdict, held) {
        (Verdict::Planned, true) => "fits, already held",
        (Verdict::Planned, false) => "fits, to fetch",
        (Verdict::Kept, _) => "kept: there is room",
        (Verdict::NoRoom, _) => "left out: no room",
        (Verdict::NoDemand, _) => "left out: no demand",
    }
}

/// Decimal units, as disks are sold.
fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] =
        [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    let Some((unit, one)) = UNITS.into_iter().find(|(_, one)| bytes >= *one) else {
        return format!("{bytes} B");
    };
    format!("{}.{:02} {unit}", bytes / one, bytes % one / (one / 100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let shown: Vec<String> =
            [0, 999, 1000, 1_999_999, 25_000_000_000, u64::MAX].map(bytes).to_vec();
        assert_eq!(shown, ["0 B", "999 B", "1.00 kB", "1.99 MB", "25.00 GB", "18446744.07 TB"]);
    }
}
