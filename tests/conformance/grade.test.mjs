// Grading and comparing, without an edge.

import assert from "node:assert/strict";
import test from "node:test";

import { compare, grade } from "./grade.mjs";

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
  assert.deepEqual(compare(graded, { open: { fresh: "why", stale: "why" } }), []);
  assert.equal(compare(graded, { open: { fresh: "why" } }).length, 1, "stale fails and is not listed");
  assert.equal(compare(graded, { open: { fresh: "", stale: "", alone: "" } }).length, 1, "alone passes and is listed");
  assert.equal(compare(graded, { open: { fresh: "", stale: "", gone: "" } }).length, 1, "gone is no test");
  const later = (id) => compare(graded, { open: { fresh: "", stale: "" }, later: { about: "", [id]: "why" } });
  assert.deepEqual(later("interim"), []);
  assert.equal(later("alone").length, 1, "alone is run now");
  const turned = (id) => compare(graded, { open: { fresh: "", stale: "" }, turned: { about: "", [id]: "why" } });
  assert.deepEqual(turned("alone"), []);
  assert.equal(turned("stale").length, 1, "stale does not pass");
  assert.equal(turned("gone").length, 1, "gone is no test");
});
