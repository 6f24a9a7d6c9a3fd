// The two servers of a run, each on a free port of the loopback address: the suite's own origin in
// this process, and the edge as a process of its own.

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { connect, createServer as createListener } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";

import handleConfig from "http-cache-tests/server/handle-config.mjs";
import handleState from "http-cache-tests/server/handle-state.mjs";
import handleTest from "http-cache-tests/server/handle-test.mjs";

const HANDLERS = { config: handleConfig, test: handleTest, state: handleState };
/** Until the edge listens. */
const START_MS_MAX = 10_000;
/** Until it has ended after SIGTERM. */
const STOP_MS_MAX = 15_000;
/** Of the edge's output, this much is kept for a failure's message. */
const OUTPUT_CHARS_MAX = 20_000;

function listening(server) {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => resolve(server.address().port));
  });
}

/** The suite's origin: PUT /config/ID scripts a test, /test/ID replies, GET /state/ID reports. */
export async function startOrigin() {
  const server = createServer((request, response) => {
    const [first, ...rest] = new URL(request.url, "http://origin").pathname.slice(1).split("/");
    const handle = HANDLERS[first];
    if (handle) return handle(rest, request, response);
    response.writeHead(404).end();
  });
  const port = await listening(server);
  return {
    port,
    stop() {
      server.close();
      server.closeAllConnections();
    },
  };
}

async function freePort() {
  const server = createListener();
  const port = await listening(server);
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function accepts(port) {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    socket.once("connect", () => socket.destroy());
  });
}

async function until(what, msMax, look) {
  const deadline = Date.now() + msMax;
  while (!(await look())) {
    if (Date.now() > deadline) throw new Error(`not within ${msMax} ms: ${what()}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** An edge with its default settings in front of `origin`. */
export async function startEdge(origin) {
  const folder = await mkdtemp(join(tmpdir(), "nearcast-conformance-"));
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const args = ["--log-level", "warn", "edge", "--origin", origin, "--listen", url, "--admin", "127.0.0.1:0", "--data-dir", folder];
  const child = spawn(process.env.NEARCAST_BIN, args, { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk) => {
      output = (output + chunk).slice(-OUTPUT_CHARS_MAX);
    });
  }
  let ended = false;
  child.once("close", () => {
    ended = true;
  });
  const stop = async () => {
    child.kill("SIGTERM");
    try {
      await until(() => `the edge's end; it said:\n${output}`, STOP_MS_MAX, () => ended);
    } finally {
      child.kill("SIGKILL");
      await rm(folder, { recursive: true, force: true });
    }
  };
  try {
    await until(() => `the edge's listener; it said:\n${output}`, START_MS_MAX, () => {
      if (ended) throw new Error(`the edge ended; it said:\n${output}`);
      return accepts(port);
    });
  } catch (error) {
    await stop();
    throw error;
  }
  return { url, output: () => output, kill: () => child.kill("SIGKILL"), stop };
}
