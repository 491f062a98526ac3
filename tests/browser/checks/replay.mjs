// The page of a run, as `chatchat-sim replay` writes it: what it draws, its search and keys, and how
// soon it is there.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

// Ten people, faults of many kinds, streams that break off.
const [STORY, SEED] = ["storm", "71"];
const SIZES = { desktop: { width: 1280, height: 800 }, phone: { width: 400, height: 780 } };
const EVENTS = 100_000;
// The page is meant to be there within 2 s; a machine that does other things as well is granted more.
const READY_MS = 5_000;

const DATA = /(<script id="data" type="application\/json">)([\s\S]*?)(<\/script>)/;
const LISTS = ["marks", "messages", "calls", "streams", "deliveries"];

let written = null;

// The page's text, written once for all checks.
function page(sim) {
  written ??= inFolder(async (dir) => {
    const html = join(dir, "run.html");
    const args = ["replay", STORY, "--seed", SEED, "--html", html];
    const { stdout, stderr, error } = spawnSync(sim, args, { encoding: "utf8", timeout: 300_000 });
    // Its exit code is the run's verdict, which the stories' tests judge.
    assert.ok(existsSync(html), `${sim} wrote no page: ${error ?? ""}\n${stdout}${stderr}`);
    return readFile(html, "utf8");
  });
  return written;
}

async function inFolder(work) {
  const dir = await mkdtemp(join(tmpdir(), "chatchat-replay-"));
  try {
    return await work(dir);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

// Opens a page from a file, and closes it after `look` at it.
async function open({ browser, wrong }, html, options, look) {
  return inFolder(async (dir) => {
    const file = join(dir, "run.html");
    await writeFile(file, html);
    const context = await browser.newContext(options);
    const tab = await context.newPage();
    tab.on("pageerror", (error) => wrong.push(`an error in the page: ${error.stack ?? error}`));
    tab.on("console", (said) => said.type() === "error" && wrong.push(`the page said: ${said.text()}`));
    await tab.goto(pathToFileURL(file).href);
    await tab.waitForSelector("html[data-ready]", { timeout: 30_000 });
    const result = await look(tab);
    await context.close();
    return result;
  });
}

// What the last drawing drew, in numbers.
async function drawn(tab) {
  await tab.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  const { lanes, faults, streams, deliveries, hits, picked } = await tab.evaluate(() => ({
    ...document.getElementById("view").dataset,
  }));
  const numbers = { lanes, faults, streams, deliveries, hits: hits ?? 0 };
  return { ...Object.fromEntries(Object.entries(numbers).map(([name, n]) => [name, Number(n)])), picked };
}

// The data of a run with this many events: each stands for some, spread until the next of its list.
function grown(run, events) {
  const counted = LISTS.reduce((sum, list) => sum + run[list].length, 0);
  const more = { ...run };
  // A delivery names its stream by number; streams stay as they are.
  const others = LISTS.filter((list) => list !== "streams");
  const times = (events - run.streams.length) / (counted - run.streams.length);
  for (const list of others) {
    const [items, size] = [run[list], Math.round(run[list].length * times)];
    more[list] = Array.from({ length: size }, (_, nth) => {
      const place = (nth * items.length) / size;
      const [item, next] = [items[Math.floor(place)], items[Math.floor(place) + 1]];
      const later = next ? Math.floor((next[0] - item[0]) * (place % 1)) : 0;
      // Messages and calls end later too; the second field of the others is no time.
      const end = list === "messages" || list === "calls" ? item[1] && item[1] + later : item[1];
      return [item[0] + later, end, ...item.slice(2)];
    });
  }
  return more;
}

export const checks = [
  [
    "lanes, faults, streams and deliveries are drawn, and a filter hides them",
    async (given) => {
      const html = await page(given.sim);
      for (const [size, viewport] of Object.entries(SIZES)) {
        for (const colorScheme of ["light", "dark"]) {
          await open(given, html, { viewport, colorScheme }, async (tab) => {
            await tab.click("#all");
            const whole = await drawn(tab);
            for (const what of ["lanes", "faults", "streams", "deliveries"]) {
              assert.ok(whole[what] > 0, `${what} at ${viewport.width} px: ${JSON.stringify(whole)}`);
            }
            const scrolls = await tab.evaluate(() => document.documentElement.scrollWidth > innerWidth);
            assert.ok(!scrolls, `the page is wider than ${viewport.width} px`);
            await tab.screenshot({ path: join(given.out, `replay-${size}-${colorScheme}.png`) });
            await tab.uncheck("#show-streams");
            const without = await drawn(tab);
            assert.deepEqual([without.streams, without.deliveries], [0, 0]);
            await tab.uncheck("#show-people");
            assert.ok((await drawn(tab)).lanes < whole.lanes);
          });
        }
      }
    },
  ],
  [
    "a search narrows, and keys lead from hit to hit and along a stream",
    async (given) => {
      await open(given, await page(given.sim), { viewport: SIZES.desktop }, async (tab) => {
        const find = async (words) => {
          await tab.fill("#find", words);
          return (await drawn(tab)).hits;
        };
        const [all, some] = [await find("person1"), await find("person1 hello")];
        assert.ok(some > 0 && some < all, `${some} of ${all}`);
        await tab.keyboard.press("Escape");
        await tab.keyboard.press("n");
        const one = await drawn(tab);
        assert.match(one.picked ?? "", /^delivery \d+$/);
        assert.match(await tab.textContent("#detail"), /person1 {2}hello .*\n.*stream \d+ at http/);
        await tab.keyboard.press("]");
        const next = await drawn(tab);
        assert.notEqual(next.picked, one.picked, "the next delivery of the stream");
        await tab.keyboard.press("[");
        assert.equal((await drawn(tab)).picked, one.picked, "and back");
        await tab.keyboard.press("n");
        assert.notEqual((await drawn(tab)).picked, one.picked, "the next hit");
        assert.ok((await drawn(tab)).deliveries > 0, "in sight");
      });
    },
  ],
  [
    `a run of ${EVENTS.toLocaleString("en")} events is there soon`,
    async (given) => {
      const html = await page(given.sim);
      const run = grown(JSON.parse(DATA.exec(html)[2]), EVENTS);
      const data = JSON.stringify(run).replaceAll("</", "<\\/").replaceAll("<!--", "<\\u0021--");
      const large = html.replace(DATA, (_, begin, __, end) => begin + data + end);
      await open(given, large, { viewport: SIZES.desktop }, async (tab) => {
        const whole = await drawn(tab);
        const [ready, events] = await tab.evaluate(
          (lists) => [
            Number(document.documentElement.dataset.ready),
            lists.reduce((sum, list) => sum + run[list].length, 0),
          ],
          LISTS,
        );
        console.log(`      ${events} events, ${(large.length / 1e6).toFixed(1)} MB: ready after ${ready} ms`);
        assert.ok(Math.abs(events - EVENTS) < 10, `${events} events`);
        assert.ok(whole.deliveries > 0 && whole.streams > 0, JSON.stringify(whole));
        assert.ok(ready <= READY_MS, `ready after ${ready} ms`);
      });
    },
  ],
];
