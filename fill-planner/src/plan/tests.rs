//! Tables for what a plan is, properties for what it never is.

use super::*;
use model::Version;
use model::api::DailyDemand;
use model::publish::PublishedFile;
use proptest::prelude::*;

/// Title `t{n}` with its size and yesterday's bytes.
fn input(titles: &[(u64, u64)], edges: &[(&str, u64, &[usize])]) -> PlannerInput {
    let id = |n: usize| -> TitleId { format!("t{n}").parse().unwrap() };
    let record = |(n, (bytes, _)): (usize, &(u64, u64))| PublishRecord {
        title: id(n),
        version: Version::of_index(&n.to_le_bytes()),
        name: format!("Title {n}"),
        published_at_ms: 1,
        duration_ms: 1,
        files: vec![PublishedFile {
            name: "v1.mp4".into(),
            bytes: *bytes,
            kind: "video".into(),
            summary: String::new(),
        }],
    };
    let demand = |(n, (_, bytes)): (usize, &(u64, u64))| DailyDemand {
        date: "2026-11-20".into(),
        title: id(n),
        plays: 1,
        watched_ms: 1,
        bytes: *bytes,
    };
    let edge = |(name, planned_bytes_max, holds): &(&str, u64, &[usize])| PlannerEdge {
        id: name.parse().unwrap(),
        planned_bytes_max: *planned_bytes_max,
        holds: holds.iter().map(|n| id(*n)).collect(),
    };
    PlannerInput {
        date: "2026-11-21".into(),
        demand: titles.iter().enumerate().map(demand).filter(|row| row.bytes > 0).collect(),
        catalog: titles.iter().enumerate().map(record).collect(),
        edges: edges.iter().map(edge).collect(),
    }
}

fn planned(titles: &[(u64, u64)], bytes_max: u64, holds: &[usize]) -> Vec<String> {
    let planned = plan(&input(titles, &[("a", bytes_max, holds)]));
    planned.run.plans[0].titles.iter().map(|title| title.title.to_string()).collect()
}

/// Titles (size, yesterday's bytes), budget, titles held; titles planned.
type Case = (&'static [(u64, u64)], u64, &'static [usize], &'static [&'static str]);

#[test]
fn what_fits_most_valuable_first() {
    let table: [Case; 9] = [
        (&[], 100, &[], &[]),
        (&[(10, 50), (10, 80)], 100, &[], &["t1", "t0"]),
        // Density, not demand alone: t0 takes as much but is ten times as large.
        (&[(100, 500), (10, 400)], 100, &[], &["t0"]),
        (&[(60, 100), (60, 90), (40, 10)], 100, &[], &["t0", "t2"]),
        (&[(200, 1000), (50, 10)], 100, &[], &["t1"]),
        (&[(10, 0), (10, 5)], 100, &[], &["t1"]),
        // What is there and hurts nobody stays; what is in the way goes.
        (&[(10, 0), (95, 5)], 100, &[0], &["t1"]),
        (&[(5, 0), (95, 5)], 100, &[0], &["t1", "t0"]),
        (&[(10, 5)], 0, &[0], &[]),
    ];
    for (titles, bytes_max, holds, wanted) in table {
        assert_eq!(planned(titles, bytes_max, holds), wanted, "{titles:?} in {bytes_max}");
    }
}

#[test]
fn each_edge_has_its_own_budget_and_ties_are_broken_by_name() {
    let twins = input(&[(10, 5), (10, 5), (10, 5)], &[("b", 25, &[]), ("a", 10, &[1])]);
    let planned = plan(&twins);
    let titles = |n: usize| -> Vec<&str> {
        planned.run.plans[n].titles.iter().map(|title| title.title.as_str()).collect()
    };
    assert_eq!((planned.run.plans[0].edge.as_str(), titles(0)), ("a", vec!["t0"]));
    assert_eq!((planned.run.plans[1].edge.as_str(), titles(1)), ("b", vec!["t0", "t1"]));
    assert_eq!(planned.edges[1].titles[2].verdict, Verdict::NoRoom);
    assert_eq!((planned.edges[0].bytes, planned.edges[0].fetch_bytes), (10, 10));
}

#[test]
fn demand_for_a_title_that_is_gone_is_no_plan() {
    let mut input = input(&[(10, 5), (10, 6)], &[("a", 100, &[])]);
    input.catalog.remove(0);
    let planned = plan(&input);
    assert_eq!(planned.run.plans[0].titles.len(), 1);
    assert_eq!(planned.edges[0].titles.len(), 1);
}

fn titles() -> impl Strategy<Value = Vec<(u64, u64)>> {
    proptest::collection::vec((0u64..60, prop_oneof![Just(0), 0u64..100, Just(u64::MAX)]), 0..10)
}

/// The most that any choice serves.
fn optimum(titles: &[(u64, u64)], bytes_max: u64) -> u128 {
    let choices = 0..1u32 << titles.len();
    let sum = |choice: u32, of: &dyn Fn(&(u64, u64)) -> u64| -> u128 {
        let chosen = titles.iter().enumerate().filter(|(n, _)| choice >> n & 1 == 1);
        chosen.map(|(_, title)| u128::from(of(title))).sum()
    };
    let fits = |choice: &u32| sum(*choice, &|title| title.0) <= u128::from(bytes_max);
    choices.filter(fits).map(|choice| sum(choice, &|title| title.1)).max().unwrap_or(0)
}

proptest! {
    #[test]
    fn no_budget_is_exceeded_and_nothing_is_planned_twice(
        titles in titles(), bytes_max in 0u64..200, held in proptest::collection::vec(0usize..10, 0..5),
    ) {
        let edges: [(&str, u64, &[usize]); 2] = [("a", bytes_max, &held), ("b", bytes_max / 2, &[])];
        let input = input(&titles, &edges);
        let planned = plan(&input);
        prop_assert_eq!(planned.run.plans.len(), 2);
        for (plan, edge) in planned.run.plans.iter().zip(&planned.edges) {
            prop_assert!(plan.bytes() <= edge.bytes_max);
            prop_assert_eq!(plan.bytes(), edge.bytes);
            prop_assert!(edge.fetch_bytes <= edge.bytes);
            let distinct: HashSet<_> = plan.titles.iter().map(|title| &title.title).collect();
            prop_assert_eq!(distinct.len(), plan.titles.len());
        }
    }

    #[test]
    fn it_does_not_matter_how_the_input_is_ordered(titles in titles(), bytes_max in 0u64..200) {
        let mut input = input(&titles, &[("a", bytes_max, &[0, 1]), ("b", 50, &[])]);
        let planned = plan(&input);
        input.catalog.reverse();
        input.demand.reverse();
        input.edges.reverse();
        prop_assert_eq!(plan(&input), planned);
    }

    #[test]
    fn it_serves_at_least_half_of_the_optimum(
        titles in proptest::collection::vec((1u64..60, 0u64..100), 0..10), bytes_max in 0u64..200,
    ) {
        let planned = plan(&input(&titles, &[("a", bytes_max, &[])]));
        let served: u64 = planned.run.plans[0].titles.iter().map(|title| title.predicted_bytes).sum();
        prop_assert!(2 * u128::from(served) >= optimum(&titles, bytes_max));
    }
}
