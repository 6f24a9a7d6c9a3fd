// Drives the console in headless Chromium.

import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { chromium } from "playwright-core";
import { until } from "./stack.mjs";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
export const OUT = new URL("out/", import.meta.url).pathname;
export const LAPTOP = { width: 1280, height: 800 };
export const PHONE = { width: 390, height: 844 };

export async function openBrowser(flags = []) {
  if (!existsSync(CHROMIUM)) throw new Error(`${CHROMIUM} is missing; on Debian: apt-get install chromium`);
  await mkdir(OUT, { recursive: true });
  return chromium.launch({
    executablePath: CHROMIUM,
    args: ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--autoplay-policy=no-user-gesture-required", "--mute-audio", ...flags],
  });
}

export async function openConsole(browser, stack, options = {}) {
  const context = await browser.newContext({ viewport: LAPTOP, ...options });
  const page = await context.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.goto(stack.info.console);
  await page.getByTestId("overview").waitFor();
  return { page, errors };
}

/** What `window.nearcast` says now. */
export function look(page) {
  return page.evaluate(() => {
    const { nearcast } = window;
    if (!nearcast) return null;
    const { currentTime, decodedFrames, fatalErrors, segments, failovers, qoe, tracks, events } = nearcast;
    const media = segments.filter(({ kind }) => kind === "segment");
    return { currentTime, decodedFrames, fatalErrors, segments: media, failovers, qoe, tracks, events, edge: nearcast.play.edge };
  });
}

/** Polls the play until `done`; what it saw last tells why it did not get there. */
export async function playUntil(page, what, msMax, done) {
  let last = null;
  return until(() => `${what}: ${describe(last)}`, msMax, async () => {
    last = await look(page);
    return last && (await done(last)) ? last : null;
  });
}

function describe(state) {
  if (!state) return "no play";
  const { segments, ...rest } = state;
  const last = segments.slice(-8).map(({ track, number, edge, status, verdict }) => `${track}/${number} ${edge} ${status} ${verdict}`);
  return JSON.stringify({ ...rest, segments: segments.length, last });
}

export async function startPlay(page, { title, player, scheme = "http", profile }) {
  await page.getByTestId("tab-player").click();
  await page.getByTestId("title").selectOption(title);
  if (profile) await page.getByTestId("profile").selectOption(profile);
  await page.getByTestId("player").selectOption(player);
  await page.getByTestId("scheme").selectOption(scheme);
  await page.getByTestId("start").click();
}

export function seek(page, seconds) {
  return page.getByTestId("video").evaluate((video, to) => {
    video.currentTime = to;
  }, seconds);
}
