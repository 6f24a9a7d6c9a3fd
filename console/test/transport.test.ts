import assert from "node:assert/strict";
import type { RequestListener } from "node:http";
import { test } from "node:test";
import { EdgeTransport, type Failover, TransportError } from "../src/transport";
import { cut, edge, fails, frozen, serves, stalls, type TestEdge } from "./edges";

const LIMITS = { firstByteMs: 200, stallMs: 200 };

async function fleet(answers: RequestListener[], tell: (edges: TestEdge[], transport: EdgeTransport, failovers: Failover[]) => Promise<void>) {
  const edges = await Promise.all(answers.map((answer, i) => edge(`edge-${i}`, answer)));
  const failovers: Failover[] = [];
  try {
    await tell(edges, new EdgeTransport(edges, { onFailover: (failover) => failovers.push(failover) }, LIMITS), failovers);
  } finally {
    for (const each of edges) each.close();
  }
}

const text = (body: Uint8Array) => new TextDecoder().decode(body);

for (const [name, bad] of [["frozen", frozen], ["failing", fails(503)], ["cut", cut], ["stalling", stalls]] as const) {
  test(`a ${name} edge is left for the next, and stays left`, () =>
    fleet([bad, serves("whole body")], async ([a, b], transport, failovers) => {
      const first = await transport.fetch({ url: `${a!.origin}/x/1` });
      assert.equal(text(first.body), "whole body");
      assert.equal(first.edge?.id, "edge-1");
      assert.equal(first.url, `${b!.origin}/x/1`, "manifests resolve against the edge that answered");
      await transport.fetch({ url: `${a!.origin}/x/2` });
      assert.deepEqual([a!.requests.length, b!.requests.length], [1, 2]);
      assert.deepEqual(failovers.map(({ from, to }) => [from, to]), [["edge-0", "edge-1"]]);
    }));
}

test("a dead edge is left at once", () =>
  fleet([serves("a"), serves("b")], async ([a], transport, failovers) => {
    a!.close();
    assert.equal(text((await transport.fetch({ url: `${a!.origin}/x` })).body), "b");
    assert.equal(failovers.length, 1);
  }));

test("requests that wait on an edge move on when another finds it bad", async () => {
  let fail: (() => void) | undefined;
  let both = () => undefined as void;
  const waiting = new Promise<void>((resolve) => {
    both = resolve;
  });
  const slow: RequestListener = (request, response) => {
    if (request.url === "/1") fail = () => void response.writeHead(503).end();
    else both();
  };
  const edges = [await edge("edge-0", slow), await edge("edge-1", serves("b"))];
  try {
    // Limits so long that only the other request's failure can end the wait in time.
    const transport = new EdgeTransport(edges, {}, { firstByteMs: 600_000, stallMs: 600_000 });
    const first = transport.fetch({ url: `${edges[0]!.origin}/1` });
    const second = transport.fetch({ url: `${edges[0]!.origin}/2` });
    await waiting;
    while (!fail) await new Promise((resolve) => setImmediate(resolve));
    fail();
    assert.equal(text((await second).body), "b");
    assert.equal(text((await first).body), "b");
  } finally {
    for (const each of edges) each.close();
  }
});

test("an error that every edge would give is the answer", () =>
  fleet([fails(403), serves("b")], async ([a, b], transport, failovers) => {
    assert.equal((await transport.fetch({ url: `${a!.origin}/x` })).status, 403);
    assert.equal(b!.requests.length, 0);
    assert.equal(failovers.length, 0);
  }));

test("with every edge gone the request fails, and later ones try again", () =>
  fleet([fails(503), fails(502)], async ([a, b], transport) => {
    const fail = () => assert.rejects(transport.fetch({ url: `${a!.origin}/x` }), (error) => error instanceof TransportError && error.fault === "status");
    await fail();
    await fail();
    assert.deepEqual([a!.requests.length, b!.requests.length], [2, 2]);
  }));

test("an aborted request rejects with the caller's reason and blames no edge", () =>
  fleet([frozen, serves("b")], async ([a, b], transport, failovers) => {
    const controller = new AbortController();
    const pending = transport.fetch({ url: `${a!.origin}/x`, signal: controller.signal });
    controller.abort(new Error("seek"));
    await assert.rejects(pending, /seek/);
    assert.deepEqual([b!.requests.length, failovers.length], [0, 0]);
  }));

test("a URL of no edge is fetched as it is", () =>
  fleet([serves("a")], async (_edges, transport) => {
    const other = await edge("control-plane", serves("steering"));
    try {
      assert.equal(text((await transport.fetch({ url: `${other.origin}/v1/steering` })).body), "steering");
    } finally {
      other.close();
    }
  }));
