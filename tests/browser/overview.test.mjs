// What the console says of the fleet, of a play's events, and of a refusal.

import assert from "node:assert/strict";
import { test } from "node:test";
import { LAPTOP, openBrowser, openConsole, OUT, PHONE, playUntil, startPlay } from "./console.mjs";
import { startStack, until } from "./stack.mjs";

test("the console shows fleet, titles, plan, events and refusals", { timeout: 180_000 }, async () => {
  const stack = await startStack();
  const browser = await openBrowser();
  try {
    const { page, errors } = await openConsole(browser, stack);
    assert.equal(await page.evaluate(() => location.hash), "", "the credential leaves the address");

    const overview = await stack.call("GET", "/v1/overview");
    for (const { title, name } of overview.titles) {
      assert.match(await page.getByTestId(`title-${title}`).innerText(), new RegExp(name.replace(/\W/g, "\\$&")));
    }
    for (const { id } of stack.info.edges) {
      await until(`${id} healthy`, 10_000, async () => (await page.getByTestId(`edge-${id}`).getAttribute("data-state")) === "healthy");
    }

    // Events: a play counts once its start is on the control plane's disk.
    const [{ title }] = overview.titles;
    const plays = async () => Number(await page.getByTestId("plays-today").locator("strong").innerText());
    const before = await plays();
    await startPlay(page, { title, player: "hlsjs" });
    await playUntil(page, "6 s of play", 30_000, ({ currentTime }) => currentTime > 6);
    await page.screenshot({ path: `${OUT}player.png` });
    await page.getByTestId("stop").click();
    await page.getByTestId("tab-overview").click();
    await until("the play counts", 15_000, async () => (await plays()) > before);
    await page.screenshot({ path: `${OUT}overview.png` });

    // The plan made from it.
    const date = new Date(Date.now() + 86_400_000).toISOString().slice(0, 10);
    const plan = (edge) => ({ number: 0, date, edge, titles: overview.titles.map(({ title, version, files }) => ({ title, version, bytes: files.reduce((sum, { bytes }) => sum + bytes, 0), predicted_bytes: 1000 })) });
    const { number } = await stack.call("POST", "/v1/plans", { date, plans: stack.info.edges.map(({ id }) => plan(id)) });
    const row = page.getByTestId("plan");
    await until("the plan is complete", 30_000, async () => {
      const text = (await row.count()) > 0 ? await row.innerText() : "";
      return text.includes(`Plan ${number}`) && text.match(/complete/g)?.length === stack.info.edges.length;
    });
    await page.screenshot({ path: `${OUT}overview-planned.png`, fullPage: true });

    // An edge that dies shows as silent.
    const [{ id }] = stack.info.edges;
    stack.signal(id, "SIGSTOP");
    await until(`${id} silent`, 10_000, async () => (await page.getByTestId(`edge-${id}`).getAttribute("data-state")) === "silent");
    stack.signal(id, "SIGCONT");

    // A title whose window is elsewhere is refused, with the reason.
    await stack.call("PUT", `/v1/titles/${title}/windows`, [{ country: "ZZ", from: null, until: null }]);
    await until("the refusal", 10_000, async () => {
      await startPlay(page, { title, player: "hlsjs" });
      await page.getByTestId("refusal").or(page.getByTestId("edge")).first().waitFor();
      return page.getByTestId("refusal").isVisible();
    });
    assert.match(await page.getByTestId("refusal").innerText(), /country/);
    await page.screenshot({ path: `${OUT}refused.png` });
    assert.deepEqual(errors, [], "errors of the page");
  } finally {
    await browser.close();
    await stack.stop();
  }
});

test("the console fits a phone, and dark mode", { timeout: 120_000 }, async () => {
  const stack = await startStack();
  const browser = await openBrowser();
  try {
    const { page } = await openConsole(browser, stack, { viewport: PHONE, colorScheme: "dark", deviceScaleFactor: 2 });
    const fits = () => page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
    await page.screenshot({ path: `${OUT}phone-overview.png` });
    assert.ok(await fits(), "no sideways scrolling of the overview");
    const { titles } = await stack.call("GET", "/v1/overview");
    await startPlay(page, { title: titles[0].title, player: "dashjs" });
    await playUntil(page, "3 s of play", 30_000, ({ currentTime }) => currentTime > 3);
    await page.screenshot({ path: `${OUT}phone-player.png` });
    assert.ok(await fits(), "no sideways scrolling of the player");
    await page.setViewportSize(LAPTOP);
    await page.screenshot({ path: `${OUT}player-dark.png` });
  } finally {
    await browser.close();
    await stack.stop();
  }
});
