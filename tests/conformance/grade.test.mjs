// Grading and comparing, without an edge.

import assert from "node:assert/strict";
import test from "node:test";

import { compare, count, grade } from "./grade.mjs";

const suites = [
  {
    tests: [
      { id: "base", kind: "check" },
      { id: "fresh", kind: "optimal", depends_on: ["base"] },
      { id: "stale", depends_on: ["fresh"] },
      { id: "alone" },
      { id: "browser", browser_only: true },
    ],
  },
];
const failed = ["Assertion", "no"];

test("a test passes only with all that it depends on", () => {
  const passed = (results) => grade(suites, results).filter(({ passed }) => passed).map(({ id }) => id);
  assert.deepEqual(passed({ base: true, fresh: true, stale: true, alone: true }), ["base", "fresh", "stale", "alone"]);
  assert.deepEqual(passed({ base: failed, fresh: true, stale: true, alone: true }), ["alone"]);
  assert.deepEqual(passed({ base: true, fresh: true, stale: failed }), ["base", "fresh"]);
});

test("what failed is said", () => {
  const why = Object.fromEntries(grade(suites, { base: failed, fresh: true }).map(({ id, why }) => [id, why]));
  assert.deepEqual(why, { base: "Assertion: no", fresh: "needs base", stale: "did not run", alone: "did not run" });
});

test("a circle of dependencies ends", () => {
  const circle = [{ tests: [{ id: "a", depends_on: ["b"] }, { id: "b", depends_on: ["a"] }] }];
  assert.deepEqual(grade(circle, { a: true, b: true }).map(({ passed }) => passed), [true, true]);
});

test("each difference from the baseline is a fault", () => {
  const graded = grade(suites, { base: failed, fresh: true, stale: true, alone: true });
  const wrong = "wrong in itself: why";
  assert.deepEqual(compare(graded, { open: { fresh: "why", stale: wrong } }), []);
  assert.equal(compare(graded, { open: { fresh: "why", stale: "why" } }).length, 1, "stale is required");
  assert.equal(compare(graded, { open: { fresh: "why" } }).length, 1, "stale fails and is not listed");
  assert.equal(compare(graded, { open: { fresh: "", stale: wrong, alone: wrong } }).length, 1, "alone passes and is listed");
  assert.equal(compare(graded, { open: { fresh: "", stale: wrong, gone: "" } }).length, 1, "gone is no test");
  const later = (id) => compare(graded, { open: { fresh: "", stale: wrong }, later: { about: "", [id]: "why" } });
  assert.deepEqual(later("interim"), []);
  assert.equal(later("alone").length, 1, "alone is run now");
  const turned = (id) => compare(graded, { open: { fresh: "", stale: wrong }, turned: { about: "", [id]: "why" } });
  assert.deepEqual(turned("alone"), []);
  assert.equal(turned("stale").length, 1, "stale does not pass");
  assert.equal(turned("gone").length, 1, "gone is no test");
});

test("totals and the goal are held", () => {
  const some = (kind, total, passing) => Array.from({ length: total }, (_, at) => ({ kind, passed: at < passing }));
  assert.deepEqual(count([...some("required", 157, 0), ...some("optimal", 86, 78)]), []);
  assert.equal(count([...some("required", 157, 157), ...some("optimal", 86, 77)]).length, 1);
  assert.equal(count([...some("required", 156, 156), ...some("optimal", 85, 85)]).length, 2);
});
