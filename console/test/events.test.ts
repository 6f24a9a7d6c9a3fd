import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { PlayEvents, QUEUE_MAX } from "../src/events";
import type { PlayEvent } from "../src/model";

const FACTS = { position_ms: 1.5, watched_ms: 2, bytes: 3 };

/** A control plane that answers with these statuses in turn, the last one for ever. */
async function controlPlane(statuses: number[], tell: (url: string, batches: PlayEvent[][]) => Promise<void>) {
  const batches: PlayEvent[][] = [];
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    batches.push(JSON.parse(body).events);
    response.writeHead(statuses.length > 1 ? statuses.shift()! : statuses[0]!).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    await tell(`http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/events`, batches);
  } finally {
    server.close();
    server.closeAllConnections();
  }
}

async function until(done: () => boolean) {
  const deadline = Date.now() + 5_000;
  while (!done()) {
    assert.ok(Date.now() < deadline, "not within 5 s");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

test("events are sent again with the same seq until they are taken", () =>
  controlPlane([503, 204], async (url, batches) => {
    const events = new PlayEvents(url, "token");
    events.add("start", { ...FACTS, waited_ms: 10.4 });
    await until(() => events.counts.acknowledged === 1);
    assert.deepEqual(batches.map((batch) => batch.map(({ seq }) => seq)), [[0], [0]]);
    assert.deepEqual([batches[0]![0]!.position_ms, batches[0]![0]!.waited_ms], [2, 10], "whole numbers");
    events.add("stop", FACTS);
    await until(() => events.counts.acknowledged === 2);
    assert.equal(batches[2]![0]!.seq, 1);
  }));

test("a refused batch is dropped, not repeated for ever", () =>
  controlPlane([403, 204], async (url, batches) => {
    const events = new PlayEvents(url, "token");
    events.add("start", FACTS);
    await until(() => events.counts.dropped === 1);
    assert.equal(events.counts.queued, 0);
    assert.equal(batches.length, 1);
  }));

test("the queue is bounded and gives up progress first", () =>
  controlPlane([204], async (url) => {
    const events = new PlayEvents(url, "token");
    events.add("start", FACTS);
    for (let i = 0; i < QUEUE_MAX + 50; i++) events.add("progress", FACTS);
    assert.equal(events.counts.queued, QUEUE_MAX);
    assert.equal(events.counts.dropped, 51);
    await until(() => events.counts.queued === 0);
    assert.equal(events.counts.acknowledged, QUEUE_MAX);
  }));
