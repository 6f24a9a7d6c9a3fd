import assert from "node:assert/strict";
import { test } from "node:test";
import { cacheStatus, name } from "../src/path";

test("every URL of a title site has its name", () => {
  const base = "http://127.0.0.2:80/~tok/t/film/00112233445566778899aabbccddeeff";
  const cases: [string, string, string, number | null][] = [
    ["hls.m3u8", "manifest", "", null],
    ["dash.mpd", "manifest", "", null],
    ["v1.m3u8", "manifest", "v1", null],
    ["v1/init.mp4", "init", "v1", null],
    ["v1/17.m4s", "segment", "v1", 17],
    ["s-en.vtt", "text", "s-en", null],
    ["steering.json?_HLS_pathway=.", "steering", "", null],
    ["nothing", "other", "", null],
  ];
  for (const [path, kind, track, number] of cases) {
    assert.deepEqual(name(`${base}/${path}`), { kind, track, number }, path);
  }
});

test("Cache-Status names the nearest cache and its verdict", () => {
  const cases: [string | null, string | null, string | null][] = [
    ['edge-a;hit;detail="hit-memory"', "edge-a", "hit-memory"],
    ['edge-b;fwd=miss;stored;detail="origin"', "edge-b", "origin"],
    ['shield; hit, "edge-c"; fwd=miss; detail="filling"', "edge-c", "filling"],
    ["edge-a; hit", "edge-a", null],
    [null, null, null],
  ];
  for (const [header, edge, verdict] of cases) assert.deepEqual(cacheStatus(header), { edge, verdict }, String(header));
});
