// The page of a run, as `chatchat-sim replay` writes it: what it draws, its complaints, search, keys
// and buttons, and how soon it is there.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

// Ten people, faults of many kinds, streams that break off.
const [STORY, SEED] = ["storm", "71"];
const SIZES = {
  wide: { width: 2000, height: 1100 },
  desktop: { width: 1280, height: 800 },
  phone: { width: 400, height: 780 },
};
const EVENTS = 100_000;
// The best of a few openings counts. Where fixed work in the same tabs, at its best too, takes longer
// than on an idle machine (350 ms of processor time on two cores of an EPYC), the machine is slowed or
// slow, and the bound grows by as much.
const [SHOWN_MS, OPENINGS, WORK_IDLE_MS] = [2_000, 3, 350];

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
    await tab.addInitScript(noteFirstFrame);
    await tab.goto(pathToFileURL(file).href);
    await tab.waitForSelector("html[data-ready]", { timeout: 30_000 });
    const result = await look(tab);
    await context.close();
    return result;
  });
}

// Runs in the page: sets `shownMs` once the browser has shown the first drawing.
function noteFirstFrame() {
  const note = () => {
    // Reading a pixel waits until the drawing is done.
    document.getElementById("view").getContext("2d").getImageData(0, 0, 1, 1);
    window.shownMs = performance.now();
  };
  addEventListener("load", () => requestAnimationFrame(() => requestAnimationFrame(note)));
}

// Runs in the page: work like that of opening one, the same every time, and how many ms it takes.
function work() {
  const begun = performance.now();
  for (let round = 0; round < 5; round += 1) {
    const rows = Array.from({ length: 150_000 }, (_, nth) => [nth, (nth * 7919) % 1000, `line ${nth}`]);
    const read = JSON.parse(JSON.stringify(rows));
    read.sort((one, other) => one[1] - other[1]);
  }
  return performance.now() - begun;
}

const settle = (tab) =>
  tab.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));

// What the last drawing drew, in numbers.
async function drawn(tab) {
  await settle(tab);
  const { picked, hits = 0, ...numbers } = await tab.evaluate(() => ({ ...document.getElementById("view").dataset }));
  return { ...Object.fromEntries(Object.entries({ hits, ...numbers }).map(([name, n]) => [name, Number(n)])), picked };
}

// The part of the run that is in sight: times, and how far the lanes are scrolled.
async function sight(tab) {
  await settle(tab);
  // The page's own variables: `top_` is how many px of lanes lie above.
  return tab.evaluate(() => ({ from, until, span: until - from, above: top_ }));
}

// Times are whole ns, which a calculation with fractions may miss.
const near = (one, other) => Math.abs(one - other) <= 1_000;

// How light the lanes' names (of 0 to 255) are, as drawn.
async function nameLight(tab) {
  await settle(tab);
  return tab.evaluate(() => {
    const { data } = document.getElementById("view").getContext("2d").getImageData(0, 0, 60, 300);
    const pixels = Array.from({ length: data.length / 4 }, (_, nth) => nth * 4);
    const inked = pixels.filter((at) => data[at + 3] > 200);
    return inked.reduce((sum, at) => sum + (data[at] + data[at + 1] + data[at + 2]) / 3, 0) / inked.length;
  });
}

// Whether each of these points, a time and a lane, has a ring of the complaints' colour: "ring" or
// "none", "above" or "below" where its lane is scrolled out of sight.
async function rings(tab, points) {
  await settle(tab);
  return tab.evaluate((points) => {
    const canvas = document.getElementById("view");
    const bad = getComputedStyle(document.documentElement).getPropertyValue("--bad").trim().slice(1);
    const want = [0, 2, 4].map((at) => Number.parseInt(bad.slice(at, at + 2), 16));
    return points.map(([time, lane]) => {
      const [left, high] = [x(time) + 9, y(lane)];
      if (high < HEAD || high > canvas.clientHeight) return high < HEAD ? "above" : "below";
      const { data } = canvas.getContext("2d").getImageData(Math.round(left) - 2, Math.round(high) - 2, 4, 4);
      const is = (_, nth) => want.every((value, part) => Math.abs(data[nth * 4 + part] - value) < 8);
      return Array.from({ length: 16 }).some(is) ? "ring" : "none";
    });
  }, points);
}

// A run of little, so that each thing lies alone: two messages of which one is lost, and two calls of a person.
function sparse(run) {
  const [one, other] = [run.lanes.indexOf("master0"), run.lanes.indexOf("worker0")];
  const person = run.lanes.indexOf("person0");
  const [from, until] = [run.zero, run.zero + 1_000_000_000];
  const at = (share) => from + share * 1_000_000_000;
  const messages = [
    [at(0.2), at(0.4), one, other, "Assign, 120 bytes"],
    [at(0.6), null, other, one, "Done, 60 bytes"],
  ];
  const calls = [
    [at(0.1), at(0.3), person, "Post -> 201", 1],
    [at(0.5), at(0.7), person, "Post -> 503", 0],
  ];
  const marks = [[at(0.9), one, "master:0: an event", "event"]];
  return { ...run, from, until, messages, calls, marks, streams: [], deliveries: [], faults: [], complaints: [] };
}

// The strongest ink at each of these places, a time and the lanes between whose middles it lies, and the share of the
// way: how much more red, green and blue it has than the other two.
async function inks(tab, places) {
  await settle(tab);
  return tab.evaluate((places) => {
    const context = document.getElementById("view").getContext("2d");
    return places.map(({ time, lanes: [one, other], share = 0 }) => {
      const [left, high] = [x(time), y(one) + (y(other) - y(one)) * share];
      const { data } = context.getImageData(Math.round(left) - 3, Math.round(high) - 3, 7, 7);
      const seen = { red: 0, green: 0, blue: 0 };
      for (let at = 0; at < data.length; at += 4) {
        const [red, green, blue, solid] = data.slice(at, at + 4);
        if (solid < 40) continue;
        seen.red = Math.max(seen.red, red - Math.max(green, blue));
        seen.green = Math.max(seen.green, green - Math.max(red, blue));
        seen.blue = Math.max(seen.blue, blue - Math.max(red, green));
      }
      const [[hue, strength]] = Object.entries(seen).sort(([, one], [, other]) => other - one);
      return strength < 25 ? "none" : hue;
    });
  }, places);
}

function withData(html, run) {
  const data = JSON.stringify(run).replaceAll("</", "<\\/").replaceAll("<!--", "<\\u0021--");
  return html.replace(DATA, (_, begin, __, end) => begin + data + end);
}

// The run with complaints, as oracles write them: about a reader and a master, about no place, about a
// person at two times, and about times that belong to no machine.
function accused(run) {
  const [time, stream] = run.deliveries[run.deliveries.length >> 1];
  const person = run.streams[stream][2];
  const [master, last] = [run.lanes.indexOf("master1"), run.lanes.length - 1];
  const [late, end] = [0.55, 0.66].map((share) => Math.round(run.until * share));
  const told = (at, what) => `    ${((at - run.zero) / 1e9).toFixed(3)}s ${what}`;
  const before = time - 31_000_000;
  const complaints = [
    {
      text: [
        "G5 gap-free streams [g05.gap]: a stream went on to lobby 212, its reader stood at lobby 209",
        told(time, "stream 31 at http://master1:80"),
        "    asked 21.310s from cursor 1;dev:80,lobby:190; 41 posts, the last 33.120s; 66 events",
        told(before, "master:1: Publish <b>lobby</b> 209 </script>"),
      ].join("\n"),
      at: [
        [time, person],
        [before, master],
      ],
    },
    { text: "node worker:2 panicked: `left == right` failed\n  left: 3\n right: 4", at: [] },
    {
      text: [
        "G9 tasks end [g09.stuck]: a post is pending",
        told(late, "Post -> never ended"),
        told(end, "gave up"),
      ].join("\n"),
      at: [
        [late, last],
        [end, last],
      ],
    },
    // More than the list shows at once.
    ...[1, 2, 3, 4].map((nth) => ({
      text: `G8 one permission [g08.two]: tokens ${nth} and ${nth + 1} of lobby were out at once`,
      at: [[end + nth * 2_000_000_000, -1]],
    })),
  ];
  return { ...run, verdict: "SAFETY", complaints };
}

const readRun = (html) => JSON.parse(DATA.exec(html)[2]);

// Asserts that this complaint is the one that the list and the text below show, and that its points
// are in sight and marked.
async function isShown(tab, complaints, nth, how) {
  const { text, at } = complaints[nth];
  const current = await tab.$$eval("#complaints button", (all) =>
    all.flatMap((one, nth) => (one.getAttribute("aria-current") === "true" ? [nth] : [])),
  );
  assert.deepEqual(current, [nth], `${how}: the complaint that the list marks`);
  assert.equal(await tab.textContent("#detail"), text, how);
  const inList = await tab.$eval("#complaints [aria-current]", (one) => {
    const [own, list] = [one.getBoundingClientRect(), one.closest("ul").getBoundingClientRect()];
    return own.top > list.top - 1 && own.bottom < list.bottom + 5;
  });
  assert.ok(inList, `${how}: the list is scrolled to it`);
  const seen = await sight(tab);
  const times = at.map(([time]) => time);
  const isIn = times.every((time) => seen.from <= time && time <= seen.until);
  assert.ok(isIn, `${how}: ${times} in ${JSON.stringify(seen)}`);
  const close = Math.max(1_000_000_000, (Math.max(...times) - Math.min(...times)) * 1.5);
  const isClose = times.length === 0 || seen.span < close + 1_000;
  assert.ok(isClose, `${how}: ${times} are not near in ${JSON.stringify(seen)}`);
  const whole = await drawn(tab);
  assert.ok(whole.complaints >= at.length, `${how}: ${JSON.stringify(whole)}`);
  const found = await rings(tab, at.filter(([, lane]) => lane >= 0));
  // Of lanes too far from each other for the height, the first one's is in sight.
  assert.equal(found[0] ?? "ring", "ring", `${how}: ${found}`);
  assert.ok(!found.includes("none"), `${how}: ${found}`);
}

async function fits(tab, { width }) {
  const wide = await tab.evaluate(() => [document.documentElement.scrollWidth, document.body.scrollWidth]);
  assert.ok(Math.max(...wide) <= width, `the page is ${wide} px wide, the window ${width} px`);
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
            for (const what of ["lanes", "faults", "streams", "deliveries", "messages", "calls", "events"]) {
              assert.ok(whole[what] > 0, `${what} at ${viewport.width} px: ${JSON.stringify(whole)}`);
            }
            await fits(tab, viewport);
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
    "messages are drawn as arrows with their names, and people's calls as bars, and each box hides its own",
    async (given) => {
      const html = await page(given.sim);
      const run = sparse(readRun(html));
      const [[sent, arrives, one, other], [lost]] = run.messages;
      const [well, badly] = run.calls;
      const arrow = [
        { time: (sent + arrives) / 2, lanes: [one, other], share: 0.5 },
        { time: arrives, lanes: [other, other] },
      ];
      const cross = [{ time: lost, lanes: [other, one], share: 0.4 }];
      const bars = [well, badly].map(([begun, ended, lane]) => ({ time: (begun + ended) / 2, lanes: [lane, lane] }));
      const dot = [{ time: run.marks[0][0], lanes: [one, one] }];
      const nowhere = [{ time: run.zero + 450_000_000, lanes: [one, other], share: 0.3 }];
      const all = [...arrow, ...cross, ...bars, ...dot, ...nowhere];
      for (const viewport of Object.values(SIZES)) {
        await open(given, withData(html, run), { viewport, colorScheme: "light" }, async (tab) => {
          const { messages, calls, events } = await drawn(tab);
          assert.deepEqual({ messages, calls, events }, { messages: 2, calls: 2, events: 1 });
          const shown = ["blue", "blue", "red", "green", "red", "blue", "none"];
          assert.deepEqual(await inks(tab, all), shown, `at ${viewport.width} px`);
          const box = await tab.locator("#view").boundingBox();
          const [left, high] = await tab.evaluate(
            ([time, one, other]) => [x(time), (y(one) + y(other)) / 2],
            [(sent + arrives) / 2, one, other],
          );
          await tab.mouse.move(box.x + left, box.y + high);
          assert.match(await tab.textContent("#detail"), /master0 → worker0 {2}Assign, 120 bytes {2}arrives/);
          const hidden = { messages: [0, 1, 2], calls: [3, 4], events: [5] };
          for (const [name, places] of Object.entries(hidden)) {
            await tab.uncheck(`#show-${name}`);
            assert.equal((await drawn(tab))[name], 0, name);
            const without = shown.map((hue, nth) => (places.includes(nth) ? "none" : hue));
            assert.deepEqual(await inks(tab, all), without, `without ${name} at ${viewport.width} px`);
            await tab.check(`#show-${name}`);
          }
        });
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
    "complaints are listed and marked, and a key and a click lead to each",
    async (given) => {
      const html = await page(given.sim);
      const run = accused(readRun(html));
      const { complaints } = run;
      for (const [size, viewport] of Object.entries(SIZES)) {
        for (const colorScheme of ["light", "dark"]) {
          await open(given, withData(html, run), { viewport, colorScheme }, async (tab) => {
            assert.match(await tab.textContent("#verdict"), /^SAFETY\b/);
            assert.ok(await tab.$eval("#verdict", (verdict) => verdict.classList.contains("bad")));
            const listed = await tab.$$eval("#complaints li", (all) => all.map((one) => one.innerText));
            assert.equal(listed.length, complaints.length);
            for (const [nth, text] of listed.entries()) {
              const [sentence] = complaints[nth].text.split("\n");
              assert.ok(text.startsWith(sentence), `${sentence} is listed as ${text}`);
            }
            // The list shows the evidence too, except on a phone, where it has no room.
            const has = listed[0].includes(complaints[0].text.split("\n").at(-1).trim());
            assert.equal(has, size !== "phone", listed[0]);
            await isShown(tab, complaints, 0, "opened");
            await fits(tab, viewport);
            await tab.screenshot({ path: join(given.out, `replay-complaint-${size}-${colorScheme}.png`) });
            // Moving does not depend on the colours.
            if (colorScheme === "dark") return;
            const before = await sight(tab);
            await tab.keyboard.press("c");
            await isShown(tab, complaints, 1, "c, without a place");
            const after = await sight(tab);
            assert.deepEqual([after.from, after.until], [before.from, before.until], "no place, no move");
            for (const nth of [2, 3, 4, 5, 6, 0]) {
              await tab.keyboard.press("c");
              await isShown(tab, complaints, nth, `c, complaint ${nth}`);
            }
            for (const nth of [2, 0, 6, 1]) {
              await tab.click(`#complaints li:nth-child(${nth + 1}) button`);
              await isShown(tab, complaints, nth, `a click, complaint ${nth}`);
            }
            await tab.focus("#complaints li:nth-child(3) button");
            await tab.keyboard.press("Enter");
            await isShown(tab, complaints, 2, "Enter");
            await tab.click("#all");
            const points = complaints.reduce((sum, { at }) => sum + at.length, 0);
            assert.equal((await drawn(tab)).complaints, points, "all points in the whole run");
          });
        }
      }
    },
  ],
  [
    "a run that holds has no complaint, and key c does nothing",
    async (given) => {
      await open(given, await page(given.sim), { viewport: SIZES.desktop }, async (tab) => {
        assert.equal(await tab.$("#complaints li"), null);
        assert.equal(await tab.textContent("#verdict"), "holds");
        assert.equal((await drawn(tab)).complaints, 0);
        const [before, said] = [await sight(tab), await tab.textContent("#detail")];
        await tab.keyboard.press("c");
        assert.deepEqual([await sight(tab), await tab.textContent("#detail")], [before, said]);
      });
    },
  ],
  [
    "keys and buttons zoom and move, and the whole run comes back",
    async (given) => {
      const html = await page(given.sim);
      const run = readRun(html);
      await open(given, html, { viewport: SIZES.desktop }, async (tab) => {
        const whole = await sight(tab);
        assert.deepEqual([whole.from, whole.until], [run.from, run.until]);
        const press = async (key) => {
          await tab.keyboard.press(key);
          return sight(tab);
        };
        const click = async (button) => {
          await tab.click(button);
          return sight(tab);
        };
        const [before, close] = [await press("+"), await press("+")];
        const zooms = near(before.span, whole.span * 0.6) && near(close.span, whole.span * 0.36);
        assert.ok(zooms, JSON.stringify([before, close]));
        assert.ok(near(close.from + close.until, whole.from + whole.until), "zooms to the middle");
        const right = await press("ArrowRight");
        const moves = near(right.from - close.from, close.span / 5) && near(right.span, close.span);
        assert.ok(moves, JSON.stringify(right));
        const back = await press("ArrowLeft");
        assert.ok(near(back.from, close.from) && near(back.span, close.span), JSON.stringify(back));
        for (let times = 0; times < 20; times += 1) await press("ArrowRight");
        const last = await sight(tab);
        assert.ok(near(last.until, run.until) && near(last.span, close.span), "stops at the end");
        const far = await press("-");
        assert.ok(near(far.span, close.span * 1.6) && near(far.until, run.until), JSON.stringify(far));
        const again = await press("0");
        assert.deepEqual([again.from, again.until], [run.from, run.until]);
        assert.deepEqual(await press("-"), again, "there is no more than the whole run");

        const zoomed = await click("#in");
        assert.ok(near(zoomed.span, whole.span * 0.6), JSON.stringify(zoomed));
        const wider = await click("#out");
        assert.ok(near(wider.span, whole.span * 0.96), JSON.stringify(wider));
        const all = await click("#all");
        assert.deepEqual([all.from, all.until], [run.from, run.until]);

        assert.equal(all.above, 0);
        const down = await press("ArrowDown");
        assert.ok(down.above > 0, "more lanes than fit");
        assert.equal((await press("ArrowUp")).above, 0);
        assert.equal((await press("ArrowUp")).above, 0, "nothing is above the first lane");
        for (let times = 0; times < 40; times += 1) await tab.keyboard.press("ArrowDown");
        assert.ok((await sight(tab)).above < 40 * 24, "stops at the last lane");

        // In a text that is longer than its box they scroll the text.
        const stays = (await sight(tab)).above;
        await tab.$eval("#detail", (detail) => (detail.textContent = "line\n".repeat(50)));
        await tab.focus("#detail");
        await tab.keyboard.press("ArrowDown");
        const scrolled = () => document.getElementById("detail").scrollTop > 0;
        await tab.waitForFunction(scrolled, null, { timeout: 5_000 });
        assert.equal((await sight(tab)).above, stays);
      });
    },
  ],
  [
    "the button for the theme turns it, and back",
    async (given) => {
      const html = await page(given.sim);
      for (const colorScheme of ["light", "dark"]) {
        await open(given, html, { viewport: SIZES.desktop, colorScheme }, async (tab) => {
          const looks = async () => {
            const light = await nameLight(tab);
            const ground = await tab.evaluate(() => getComputedStyle(document.body).backgroundColor);
            const [bright] = ground.match(/\d+/).map(Number);
            assert.ok(Math.abs(light - bright) > 120, `names of ${light} on ${ground}`);
            return bright > 128 ? "light" : "dark";
          };
          const other = colorScheme === "light" ? "dark" : "light";
          assert.equal(await looks(), colorScheme);
          await tab.click("#theme");
          assert.equal(await looks(), other);
          await tab.click("#theme");
          assert.equal(await looks(), colorScheme);
        });
      }
    },
  ],
  [
    `a run of ${EVENTS.toLocaleString("en")} events is there within ${SHOWN_MS / 1000} s`,
    async (given) => {
      const html = await page(given.sim);
      const large = withData(html, grown(readRun(html), EVENTS));
      const [shown, ready, worked] = [[], [], []];
      for (let nth = 0; nth < OPENINGS; nth += 1) {
        await open(given, large, { viewport: SIZES.desktop }, async (tab) => {
          await tab.waitForFunction(() => window.shownMs, null, { timeout: 30_000 });
          const opened = await tab.evaluate(
            (lists) => ({
              shown: window.shownMs,
              ready: Number(document.documentElement.dataset.ready),
              events: lists.reduce((sum, list) => sum + run[list].length, 0),
            }),
            LISTS,
          );
          shown.push(opened.shown);
          ready.push(opened.ready);
          worked.push(await tab.evaluate(work));
          const whole = await drawn(tab);
          assert.ok(Math.abs(opened.events - EVENTS) < 10, `${opened.events} events`);
          assert.ok(whole.deliveries > 0 && whole.streams > 0, JSON.stringify(whole));
        });
      }
      const slowed = Math.max(1, Math.min(...worked) / WORK_IDLE_MS);
      const bound = Math.round(SHOWN_MS * slowed);
      const list = (times) => times.map(Math.round).join(", ");
      const said = `shown after ${list(shown)} ms (read and drawn after ${list(ready)} ms)`;
      console.log(`      ${EVENTS} events, ${(large.length / 1e6).toFixed(1)} MB: ${said}`);
      console.log(`      bound ${bound} ms: fixed work took ${list(worked)} ms, idle ${WORK_IDLE_MS} ms`);
      assert.ok(Math.min(...shown) <= bound, `${said}, bound ${bound} ms`);
    },
  ],
];
