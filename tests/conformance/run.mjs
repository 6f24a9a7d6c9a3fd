// The public suite and our additions, through a real edge: origin, client and grading.
// The edge is the only way from the client to the origin.

import { readFile } from "node:fs/promises";
import process from "node:process";

import fetch from "node-fetch";
import { runTests, getResults } from "http-cache-tests/client/runner.mjs";
import suites from "http-cache-tests/tests/index.mjs";
import surrogate from "http-cache-tests/tests/surrogate-control.mjs";

import additions from "./additions.mjs";
import { compare, count, grade } from "./grade.mjs";
import { startEdge, startOrigin } from "./parts.mjs";

const BASELINE = new URL("baseline.json", import.meta.url);
/** Longest the suite may take; it takes 15 to 30 s. */
const RUN_MS_MAX = 300_000;

const wanted = process.argv.slice(2);
const parts = { suite: suites, "Surrogate-Control": [surrogate], additions };
const all = Object.values(parts).flat();

function chosen() {
  if (wanted.length === 0) return all;
  const some = all.map((suite) => ({ ...suite, tests: suite.tests.filter(({ id }) => wanted.includes(id)) }));
  const known = some.flatMap(({ tests }) => tests.map(({ id }) => id));
  const unknown = wanted.filter((id) => !known.includes(id));
  if (unknown.length > 0) throw new Error(`no such test: ${unknown.join(", ")}`);
  return some;
}

async function results() {
  const origin = await startOrigin();
  const edge = await startEdge(`http://127.0.0.1:${origin.port}`);
  const late = setTimeout(() => {
    console.error(`not done within ${RUN_MS_MAX} ms; the edge said:\n${edge.output()}`);
    edge.kill();
    process.exit(1);
  }, RUN_MS_MAX);
  try {
    await runTests(chosen(), fetch, false, edge.url);
    return getResults();
  } finally {
    clearTimeout(late);
    await edge.stop();
    origin.stop();
  }
}

/** One line per kind, as `required 157/157`. */
function summary(graded) {
  const line = (kind) => {
    const ofKind = graded.filter((test) => test.kind === kind);
    return `${kind} ${ofKind.filter(({ passed }) => passed).length}/${ofKind.length}`;
  };
  return ["required", "optimal", "check"].map(line).filter((text) => !text.endsWith("/0")).join(", ");
}

const found = await results();
if (wanted.length > 0) {
  for (const id of wanted) console.log(id, found[id] === true ? "passed" : found[id]);
} else {
  const graded = [];
  const faults = [];
  for (const [name, some] of Object.entries(parts)) {
    const ofPart = grade(some, found, all);
    console.log(`${name}: ${summary(ofPart)}`);
    graded.push(...ofPart);
    if (name === "suite") faults.push(...count(ofPart));
  }
  faults.push(...compare(graded, JSON.parse(await readFile(BASELINE, "utf8"))));
  for (const fault of faults) console.error(fault);
  process.exitCode = faults.length === 0 ? 0 : 1;
}
