// A live packager behind a proxy site: it plays, and the packager is asked once for each thing
// however many wait.

import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { openBrowser, OUT } from "./console.mjs";
import { newest, startLive } from "./live-origin.mjs";
import { startEdge, until } from "./stack.mjs";

/** Who waits for one playlist, besides the player. */
const WAITERS = 50;
/** What the packager lets a playlist be kept for. */
const PLAYLIST_MS_MAX = 1_000;
/** What a playlist is served for after the packagers have died, by docs/edge.md. */
const FROZEN_MS_MAX = 4_000;

async function get(url) {
  const asked = Date.now();
  const response = await fetch(url);
  return { asked, status: response.status, text: await response.text(), verdict: response.headers.get("cache-status") };
}

const all = (count, ask) => Promise.all(Array.from({ length: count }, ask));

/** A playlist may be as old as the packager said, not older. */
function assertFresh(live, { asked, text, status }) {
  assert.equal(status, 200);
  const then = live.versions.filter(({ at }) => at <= asked - PLAYLIST_MS_MAX).at(-1);
  assert.ok(newest(text) >= (then?.number ?? 0), `segment ${newest(text)} is the newest, and ${then?.number} was there a second before`);
}

/** Waiters for the playlist that has the next segment: one request, one answer. */
async function shareReload(live, edge) {
  const number = live.versions.at(-1).number + 1;
  const target = `/live.m3u8?_HLS_msn=${number}`;
  const answers = await all(WAITERS, () => get(edge.url + target));
  assert.deepEqual([...new Set(answers.map(({ status }) => status))], [200]);
  assert.equal(new Set(answers.map(({ text }) => text)).size, 1, "one version for all");
  assert.ok(newest(answers[0].text) >= number);
  assert.ok(answers.every(({ verdict }) => verdict), "a verdict in each answer");
  assert.equal(live.times(target), 1, `${target} was asked for once`);
}

/** A segment that is not there yet is remembered as absent, for a moment. */
async function askTooEarly(live, edge) {
  const target = `/segment-${live.versions.at(-1).number + 4}.m4s`;
  const answers = await all(WAITERS, () => get(edge.url + target));
  assert.deepEqual([...new Set(answers.map(({ status }) => status))], [404]);
  assert.equal(live.times(target), 1, `${target} was asked for once`);
  await until(`${target} comes`, 20_000, async () => (await get(edge.url + target)).status === 200);
}

/** The page, until it shows frames. */
async function play(browser, edge) {
  const page = await browser.newPage();
  await page.goto(`${edge.url}/player.html`);
  const look = () =>
    page.evaluate(() => ({ at: document.querySelector("video").currentTime, frames: live.frames, fatal: live.fatal, size: document.querySelector("video").videoWidth }));
  const start = await until("first frames", 30_000, async () => {
    const state = await look();
    return state.frames > 5 ? state : null;
  });
  return { page, look, start };
}

/** While it plays: waiters, early birds, and someone who polls the plain playlist. */
async function ask(live, edge) {
  for (let round = 0; round < 3; round += 1) {
    await shareReload(live, edge);
    assertFresh(live, await get(`${edge.url}/live.m3u8`));
  }
  await askTooEarly(live, edge);
}

async function playOn(live, edge, { look, start }) {
  let last = null;
  await until(() => `12 s of play: ${JSON.stringify(last)}`, 60_000, async () => {
    assertFresh(live, await get(`${edge.url}/live.m3u8`));
    last = await look();
    return last.at > start.at + 12;
  });
  assert.deepEqual(last.fatal, []);
  assert.equal(last.size, 320);
  assert.ok(last.frames > start.frames + 100, `${last.frames - start.frames} frames in 12 s`);
}

function assertAskedOnce(live) {
  const reloads = live.asked.filter(({ target, status }) => target.includes("_HLS_msn=") && status === 200);
  assert.ok(reloads.length >= 10, `${reloads.length} blocking reloads reached the packager`);
  assert.equal(new Set(reloads.map(({ target }) => target)).size, reloads.length, "each of them once");
  const segments = live.asked.filter(({ path, status }) => path.endsWith(".m4s") && status === 200);
  assert.ok(segments.length >= 10);
  assert.equal(new Set(segments.map(({ path }) => path)).size, segments.length, "each segment was fetched once");
}

/** A reload that the packager held for longer than a playlist is good for, and who asks for it
 * when it has come. */
async function comeLate(live, edge) {
  const target = await until("a reload is held for more than a second", 30_000, async () => {
    const target = `/live.m3u8?_HLS_msn=${live.versions.at(-1).number + 2}`;
    const held = await get(edge.url + target);
    assert.equal(held.status, 200);
    return Date.now() - held.asked > PLAYLIST_MS_MAX ? target : null;
  });
  const late = await get(edge.url + target);
  assert.match(late.verdict, /hit/);
  assert.equal(live.times(target), 1, `${target} was asked for once`);
}

/** Both packagers die: their last playlist is served for as long as docs/edge.md says. */
async function outlive(live, edge) {
  await live.die();
  const died = Date.now();
  await until("players learn that nobody packages any more", 20_000, async () => {
    const { asked, status } = await get(`${edge.url}/live.m3u8`);
    assert.ok(status !== 200 || asked <= died + FROZEN_MS_MAX, `served ${asked - died} ms after the packagers died`);
    return status >= 500;
  });
}

/** What docs/edge.md tells operators to write, with these packagers in it. */
async function documented(live) {
  const page = await readFile(new URL("../../docs/edge.md", import.meta.url), "utf8");
  const section = page.split("\n## In front of a live packager\n")[1].split("\n## ")[0];
  let text = section.split("```toml\n")[1].split("```")[0];
  // The site is asked for by its address.
  const places = { "http://packager-a:8080": live.urls[0], "http://packager-b:8080": live.urls[1], '"live.example"': '"127.0.0.1"' };
  for (const [told, here] of Object.entries(places)) {
    assert.ok(text.includes(told), `${told} in ${text}`);
    text = text.replaceAll(told, here);
  }
  return text;
}

async function story(options, startIt, tell) {
  const folder = await mkdtemp(join(tmpdir(), "nearcast-live-"));
  const media = join(folder, "media");
  await mkdir(media);
  const live = await startLive(media, options);
  let edge;
  let browser;
  try {
    edge = await startIt(live, join(folder, "edge"));
    browser = await openBrowser();
    await tell(live, edge, browser);
  } catch (error) {
    error.message += `\nthe edge said:\n${edge?.output() ?? "nothing"}`;
    throw error;
  } finally {
    await browser?.close();
    await edge?.stop();
    await live.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

test("a live packager plays behind an edge, and is asked once for each thing", { timeout: 180_000 }, () =>
  story({}, (live, folder) => startEdge(folder, ["--origin", live.urls[0]]), async (live, edge, browser) => {
    const shown = await play(browser, edge);
    await ask(live, edge);
    await playOn(live, edge, shown);
    assertAskedOnce(live);
    await shown.page.screenshot({ path: `${OUT}live.png` });
  }));

test("packagers that say nothing play behind what docs/edge.md has in front of them, also to who is late, and not when they are dead", { timeout: 180_000 }, () =>
  story({ isMute: true }, async (live, folder) => startEdge(folder, [], await documented(live)), async (live, edge, browser) => {
    const shown = await play(browser, edge);
    await ask(live, edge);
    await comeLate(live, edge);
    await playOn(live, edge, shown);
    assertAskedOnce(live);
    await outlive(live, edge);
  }));
