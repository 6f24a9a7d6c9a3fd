// What a result is worth, and how it compares with the baseline. No input or output.

/** Each test of `suites` that runs without a browser: its id, kind and whether it passed, with all
 *  that it depends on (any of `all`); `why` is what failed. */
export function grade(suites, results, all = suites) {
  const tests = suites.flatMap(({ tests }) => tests).filter((test) => test.browser_only !== true);
  const byId = new Map(all.flatMap((suite) => suite.tests).map((test) => [test.id, test]));
  const missing = (id, seen) =>
    (byId.get(id)?.depends_on ?? []).filter((other) => byId.has(other) && !passes(other, seen));
  // `seen` ends a circle of dependencies.
  const passes = (id, seen = new Set()) =>
    results[id] === true && (seen.has(id) || missing(id, new Set([...seen, id])).length === 0);
  return tests.map(({ id, kind = "required" }) => {
    const needs = missing(id, new Set([id]));
    const failed = results[id] === true ? `needs ${needs.join(", ")}` : (results[id] ?? ["did not run"]).join(": ");
    return { id, kind, passed: passes(id), why: passes(id) ? "" : failed };
  });
}

/** How the reason begins for which a required test may be open. */
const REQUIRED_OPEN = "wrong in itself";

/** How many tests 0.4.5 has outside browsers, and the least of the optimal ones to pass. */
const TOTALS = { required: 157, optimal: 86 };
const OPTIMAL_MIN = 78;

/** Sentences on what the published suite, graded, lacks of its totals and the goal. */
export function count(graded) {
  const of = (kind) => graded.filter((test) => test.kind === kind);
  const faults = Object.entries(TOTALS)
    .filter(([kind, total]) => of(kind).length !== total)
    .map(([kind, total]) => `the suite has ${of(kind).length} ${kind} tests, not ${total}`);
  const passed = of("optimal").filter((test) => test.passed).length;
  if (passed < OPTIMAL_MIN) faults.push(`${passed} optimal tests pass, fewer than ${OPTIMAL_MIN}`);
  return faults;
}

/** Sentences on all that differs from the baseline: `{ open, later, turned }`, each
 *  `{ id: reason }`, where `later` names what is open and not run yet, `turned` what passes and is
 *  demanded the other way round by later versions. Checks are questions, not requirements: they
 *  are not compared. */
export function compare(graded, baseline) {
  const faults = [];
  const known = new Set(graded.map(({ id }) => id));
  for (const { id, kind, passed, why } of graded) {
    if (kind === "check") continue;
    const listed = Object.hasOwn(baseline.open, id);
    if (!passed && !listed) faults.push(`${kind} test ${id} fails: ${why}`);
    const may = () => baseline.open[id].startsWith(REQUIRED_OPEN);
    if (kind === "required" && listed && !may()) {
      faults.push(`required test ${id} is in baseline.json, but not as "${REQUIRED_OPEN}"`);
    }
    if (passed && listed) faults.push(`${kind} test ${id} passes now: take it out of baseline.json`);
  }
  for (const id of Object.keys(baseline.open)) {
    if (!known.has(id)) faults.push(`baseline.json lists ${id}, which is no test`);
  }
  for (const id of Object.keys(baseline.later ?? {})) {
    if (known.has(id)) faults.push(`${id} is run now: take it out of "later" in baseline.json`);
  }
  const passing = new Set(graded.filter(({ passed }) => passed).map(({ id }) => id));
  for (const id of Object.keys(baseline.turned ?? {})) {
    if (id !== "about" && !passing.has(id)) faults.push(`${id} is in "turned" of baseline.json, but does not pass`);
  }
  return faults;
}
