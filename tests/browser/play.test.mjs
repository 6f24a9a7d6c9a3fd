// Plays a title with each player; edges die in mid-play.

import assert from "node:assert/strict";
import { test } from "node:test";
import { look, openBrowser, openConsole, OUT, playUntil, seek, startPlay } from "./console.mjs";
import { http3Flags, startStack, until } from "./stack.mjs";

/** The sample title that is long enough for a whole story. */
const LONG_MS_MIN = 55_000;
/** Frames that a 25 fps title must have decoded in 20 s, on a slow machine without a GPU. */
const FRAMES_MIN = 300;

/** Runs a story with a stack and a browser of its own; keeps a picture of a failure. */
function story(name, { flags = async () => [] }, tell) {
  test(name, { timeout: 240_000 }, async () => {
    const stack = await startStack();
    let browser;
    let page;
    try {
      browser = await openBrowser(await flags(stack));
      const opened = await openConsole(browser, stack);
      page = opened.page;
      const { titles } = await stack.call("GET", "/v1/overview");
      const title = titles.find(({ duration_ms }) => duration_ms >= LONG_MS_MIN)?.title;
      assert.ok(title, "a sample title of a minute");
      await tell({ page, stack, title });
      assert.deepEqual(opened.errors, [], "errors of the page");
    } catch (error) {
      await page?.screenshot({ path: `${OUT}failed-${name.replace(/\W+/g, "-")}.png` }).catch(() => undefined);
      throw error;
    } finally {
      await browser?.close();
      await stack.stop();
    }
  });
}

const others = (values, value) => values.filter((each) => each !== value);

/** Picks a rendition other than the one that plays, and sees its segments come. */
async function switchRendition(page) {
  const before = await look(page);
  const next = before.tracks.renditions.find(({ id }) => id !== before.tracks.rendition?.id);
  const seen = before.segments.at(-1).n;
  await page.getByTestId("rendition").selectOption(next.id);
  await playUntil(page, `rendition ${next.id}`, 15_000, ({ tracks, segments, currentTime }) => {
    const arrived = segments.some(({ n, track }) => n > seen && track.startsWith("v"));
    return tracks.rendition?.id === next.id && !tracks.auto && arrived && currentTime > before.currentTime + 1;
  });
}

/** Picks the other audio language, and sees segments of a track that was never asked for. */
async function switchAudio(page) {
  const before = await look(page);
  const known = new Set(before.segments.map(({ track }) => track));
  const [next] = others(before.tracks.audio.map(({ id }) => id), before.tracks.audioId);
  await page.getByTestId("audio").selectOption(next);
  await playUntil(page, `audio ${next}`, 15_000, ({ tracks, segments, currentTime }) => {
    const arrived = segments.some(({ track }) => track.startsWith("a") && !known.has(track));
    return tracks.audioId === next && arrived && currentTime > before.currentTime + 1;
  });
}

/** Turns subtitles on, and sees cues of them. */
async function showSubtitles(page) {
  const { tracks } = await look(page);
  await page.getByTestId("text").selectOption(tracks.text[0].id);
  await until("subtitles", 10_000, () =>
    page.getByTestId("video").evaluate((video) => [...video.textTracks].some(({ mode, cues }) => mode === "showing" && cues?.length > 0)),
  );
}

/** The edge that serves dies; a seek beyond the buffer needs the other one at once. */
async function surviveDeath(page, stack, signal) {
  const { edge, segments } = await look(page);
  const seen = segments.at(-1).n;
  stack.signal(edge, signal);
  await seek(page, 50);
  return playUntil(page, `play on after ${signal} of ${edge}`, 15_000, (state) => {
    const fresh = state.segments.filter(({ n }) => n > seen);
    return state.currentTime > 52 && fresh.some((segment) => segment.edge !== edge);
  });
}

const PLAYERS = [
  ["hlsjs", "SIGKILL"],
  ["dashjs", "SIGSTOP"],
  ["shaka-dash", "SIGKILL"],
  ["shaka-hls", "SIGSTOP"],
];

for (const [player, signal] of PLAYERS) {
  story(`${player} plays, switches, seeks and survives ${signal}`, {}, async ({ page, stack, title }) => {
    await startPlay(page, { title, player });
    const first = await playUntil(page, "first frames", 20_000, (state) => state.currentTime > 0.5 && state.decodedFrames > 5);
    // The browser tells a segment's protocol a moment after it has come.
    const played = await playUntil(page, "20 s of play", 60_000, ({ currentTime, segments }) => {
      return currentTime > 20 && segments.every(({ protocol }) => protocol !== null);
    });
    assert.ok(played.decodedFrames - first.decodedFrames > FRAMES_MIN, `${played.decodedFrames} frames decoded in 20 s`);
    assert.ok(played.segments.every(({ verdict, protocol }) => verdict !== null && protocol === "http/1.1"), "verdict and protocol of each segment");
    await switchRendition(page);
    await switchAudio(page);
    await showSubtitles(page);
    const end = await surviveDeath(page, stack, signal);
    assert.equal(end.failovers.length, 1, "one edge was left, once");
    await seek(page, 5);
    const back = await playUntil(page, "seek back", 15_000, (state) => state.currentTime > 6 && state.currentTime < 20);
    assert.ok(back.decodedFrames > end.decodedFrames, "frames after the seek");
    assert.deepEqual(back.fatalErrors, []);
    assert.ok(back.qoe.startMs > 0);
    assert.ok(back.events.acknowledged > 0, "events were taken");
  });
}

story("a frozen edge does not stop the picture", {}, async ({ page, stack, title }) => {
  await startPlay(page, { title, player: "hlsjs" });
  const before = await playUntil(page, "5 s of play", 30_000, (state) => state.currentTime > 5);
  stack.signal(before.edge, "SIGSTOP");
  const after = await playUntil(page, "35 s of play", 60_000, (state) => state.currentTime > 35);
  assert.equal(after.qoe.rebuffers, 0, "the buffer covers the 2 s that the frozen edge costs");
  assert.notEqual(after.edge, before.edge);
  assert.deepEqual(after.fatalErrors, []);
});

story("segments come over HTTP/3", { flags: (stack) => http3Flags(stack.info.edges) }, async ({ page, title }) => {
  await startPlay(page, { title, player: "hlsjs", scheme: "https" });
  const state = await playUntil(page, "8 s over HTTP/3", 40_000, ({ currentTime, segments }) => {
    return currentTime > 8 && segments.every(({ protocol }) => protocol !== null);
  });
  assert.ok(state.segments.length >= 4);
  assert.deepEqual([...new Set(state.segments.map(({ protocol }) => protocol))], ["h3"]);
  assert.deepEqual(state.fatalErrors, []);
});
