// A whole nearcast of its own for one test: `nearcast demo` on free ports, ended with the test.

import { spawn } from "node:child_process";
import { createHash, X509Certificate } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The demo looks for its sample titles here. */
const ROOT = new URL("../../", import.meta.url).pathname;
/** Until the demo has announced itself: it ingests, and starts five processes. */
const START_MS_MAX = 90_000;
const STOP_MS_MAX = 20_000;
/** Of the demo's output, this much is kept for a failure's message. */
const OUTPUT_CHARS_MAX = 20_000;

/** Polls until `look` gives something truthy; fails with `what` at the deadline. */
export async function until(what, msMax, look) {
  const deadline = Date.now() + msMax;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`not within ${msMax} ms: ${typeof what === "function" ? await what() : what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Keeps what a process says, and notices its end. */
function watch(child) {
  let output = "";
  const keep = (chunk) => {
    output = (output + chunk).slice(-OUTPUT_CHARS_MAX);
  };
  child.stdout.on("data", keep);
  child.stderr.on("data", keep);
  let exited = false;
  const exit = new Promise((resolve) => child.on("close", (code) => resolve(code ?? "a signal")));
  void exit.then(() => {
    exited = true;
  });
  return { output: () => output, exit, hasExited: () => exited };
}

async function end(child, exit) {
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), STOP_MS_MAX);
  await exit;
  clearTimeout(timer);
}

export async function startStack() {
  const binary = process.env.NEARCAST_BIN;
  if (!binary) throw new Error("NEARCAST_BIN must name the nearcast binary");
  const folder = await mkdtemp(join(tmpdir(), "nearcast-browser-"));
  const announce = join(folder, "announce.json");
  const child = spawn(binary, ["demo", "--announce", announce], { cwd: ROOT, stdio: ["ignore", "pipe", "pipe"] });
  const { output, exit, hasExited } = watch(child);

  const info = await until(() => `the demo's announcement; it said:\n${output()}`, START_MS_MAX, async () => {
    if (hasExited()) throw new Error(`the demo ended early; it said:\n${output()}`);
    const text = await readFile(announce, "utf8").catch(() => "");
    return text === "" ? null : JSON.parse(text);
  });

  const pidOf = (edge) => {
    const found = info.edges.find(({ id }) => id === edge);
    if (!found) throw new Error(`no edge ${edge} in ${JSON.stringify(info.edges)}`);
    return found.pid;
  };
  return {
    info,
    output,
    /** Sends a signal to an edge: SIGKILL for a crash, SIGSTOP for a silent death. */
    signal: (edge, name) => process.kill(pidOf(edge), name),
    /** Calls the control plane as its operator. */
    async call(method, path, body) {
      const response = await fetch(info.control_plane + path, {
        method,
        headers: { Authorization: `Bearer ${info.operator_key}`, "Content-Type": "application/json" },
        body: body === undefined ? undefined : JSON.stringify(body),
      });
      if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
      const text = await response.text();
      return text === "" ? null : JSON.parse(text);
    },
    async stop() {
      for (const { pid } of info.edges) {
        try {
          process.kill(pid, "SIGCONT");
        } catch {
          // It is dead already, as a test wanted.
        }
      }
      await end(child, exit);
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** An edge by itself, before an origin of one's own; `config` is the text of its file, if any. */
export async function startEdge(folder, flags, config = null) {
  const binary = process.env.NEARCAST_BIN;
  if (!binary) throw new Error("NEARCAST_BIN must name the nearcast binary");
  await mkdir(folder, { recursive: true });
  const announce = join(folder, "announce.json");
  const args = ["--log-level", "warn", "edge", "--listen", "http://127.0.0.1:0", "--admin", "127.0.0.1:0", "--memory", "64MiB", "--ssd", "0", "--data-dir", join(folder, "data"), "--announce", announce];
  if (config !== null) {
    await writeFile(join(folder, "nearcast.toml"), config);
    args.unshift("--config", join(folder, "nearcast.toml"));
  }
  const child = spawn(binary, [...args, ...flags], { stdio: ["ignore", "pipe", "pipe"] });
  const { output, exit, hasExited } = watch(child);
  const { urls, admin } = await until(() => `the edge's announcement; it said:\n${output()}`, START_MS_MAX, async () => {
    if (hasExited()) throw new Error(`the edge ended early; it said:\n${output()}`);
    const text = await readFile(announce, "utf8").catch(() => "");
    return text === "" ? null : JSON.parse(text);
  });
  return { url: urls[0], admin, output, stop: () => end(child, exit) };
}

/** Flags with which Chromium takes the edges' generated certificates and speaks HTTP/3 to them. */
export async function http3Flags(edges) {
  const hosts = [];
  const keys = [];
  for (const { urls, cert } of edges) {
    hosts.push(new URL(urls.find((url) => url.startsWith("https:"))).host);
    const key = new X509Certificate(await readFile(cert)).publicKey.export({ type: "spki", format: "der" });
    keys.push(createHash("sha256").update(key).digest("base64"));
  }
  return [`--origin-to-force-quic-on=${hosts.join(",")}`, `--ignore-certificate-errors-spki-list=${keys.join(",")}`];
}
