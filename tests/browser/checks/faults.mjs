// Nodes that die, by kill -9, while people write.

import assert from "node:assert/strict";
import { join } from "node:path";

import { hold } from "../../cluster/store_lock.mjs";
import { violations } from "../axe.mjs";
import { sleep, until } from "../cluster.mjs";
import { Person } from "../people.mjs";

const DRAFT = "not sent yet, and\nnot forgotten";
// A task ends within 9.4 s of a fault, and machines stall.
const SETTLES_MS = 15_000;
const WIDTHS = { desktop: 1280, phone: 390, narrow: 320 };

// Looks at a page in each size and scheme as it stands, and has axe judge it.
async function look(page, out, name) {
  for (const [size, width] of Object.entries(WIDTHS)) {
    for (const colorScheme of ["light", "dark"]) {
      await page.setViewportSize({ width, height: 800 });
      await page.emulateMedia({ colorScheme });
      assert.deepEqual(await violations(page), [], `${name}, ${size}, ${colorScheme}`);
      await page.screenshot({ path: `${out}/${name}-${size}-${colorScheme}.png` });
    }
  }
}

export const checks = [
  [
    "a worker dies with a task in hand: exactly one post",
    async ({ browser, cluster, wrong }) => {
      const [north, south] = cluster.masters.map((master) => cluster.url(master));
      const ada = await (await Person.at(browser, north, wrong)).join("Ada");
      const ben = await (await Person.at(browser, south, wrong)).join("Ben");
      await ada.say("before");
      await ben.sees("before");
      const text = "written by whoever lives";
      // All stand still, so that whoever is given the task still holds it when it is killed.
      const living = cluster.workers.filter((worker) => !worker.dead);
      for (const worker of living) cluster.kill(worker, "SIGSTOP");
      let holder = null;
      try {
        await ada.say(text);
        holder = await until("worker with a task", () => holderOf(cluster), 4000);
        cluster.kill(holder);
      } finally {
        for (const worker of living) if (worker !== holder) cluster.kill(worker, "SIGCONT");
      }
      await ben.sees(text, 20_000);
      await ada.settled(20_000);
      await sleep(2000);
      assert.equal(await ada.count(text), 1);
      assert.equal(await ben.count(text), 1);
      await ben.page.reload();
      await ben.online();
      await ben.sees(text);
      assert.equal(await ben.count(text), 1, "also in the store");
    },
  ],
  [
    "the store goes while people write: their posts wait for it, and come once each",
    async ({ browser, cluster, wrong, out }) => {
      const [north, south] = cluster.masters.map((master) => cluster.url(master));
      const ada = await (await Person.at(browser, north, wrong)).join("Ada");
      const ben = await (await Person.at(browser, south, wrong)).join("Ben");
      const cyd = await (await Person.at(browser, north, wrong)).join("Cyd");
      await ada.say("while the store is here");
      await ben.sees("while the store is here");
      const lock = hold(join(cluster.dir, "chatchat.db"), 24);
      await lock.held;
      await sleep(4000);
      await Promise.all([ada.say("while it is away"), ben.say("I notice nothing"), cyd.say("and I am gone")]);
      for (const one of [ada, ben, cyd]) {
        await until("a post that waits for the store", async () => {
          const fates = await one.pending();
          return fates.length === 1 && fates[0].fate.startsWith("waiting for the store");
        });
      }
      await look(ada.page, out, "store-away");
      assert.ok((await ada.pending())[0].fate.startsWith("waiting for the store"), "it is away all the while");
      // Nobody sends this one again.
      await cyd.context.close();
      await lock.ended;
      const returned = Date.now();
      for (const one of [ada, ben]) await one.settled(15_000);
      await ben.sees("and I am gone", 15_000);
      console.log(`      all there ${Date.now() - returned} ms after the store`);
      for (const text of ["while it is away", "I notice nothing", "and I am gone"]) {
        for (const one of [ada, ben]) {
          await one.sees(text, 5000);
          assert.equal(await one.count(text), 1, text);
        }
      }
    },
  ],
  [
    "a master dies: its page moves on with session, draft and caret",
    async ({ browser, cluster, wrong, out }) => {
      const [north, south] = living(cluster);
      const ada = await (await Person.at(browser, cluster.url(north), wrong)).join("Ada");
      const ben = await (await Person.at(browser, cluster.url(south), wrong)).join("Ben");
      const me = await ada.me();
      await ada.say("on the first master");
      await ben.sees("on the first master");
      await ada.page.fill("#text", DRAFT);
      for (let n = 0; n < 5; n += 1) await ada.page.press("#text", "ArrowLeft");
      const begun = Date.now();
      cluster.kill(north);
      await until("another master", () => new URL(ada.page.url()).origin !== cluster.url(north), 12_000);
      await ada.online(null, 12_000);
      console.log(`      moved in ${Date.now() - begun} ms`);
      await ada.page.screenshot({ path: `${out}/moved.png` });
      assert.deepEqual(await ada.me(), me, "the same session");
      assert.equal(new URL(ada.page.url()).hash, "#lobby", "of the fragment only the board is left");
      assert.equal(await ada.page.inputValue("#text"), DRAFT);
      const place = await ada.page.evaluate(() => [
        document.activeElement.id,
        document.getElementById("text").selectionStart,
      ]);
      assert.deepEqual(place, ["text", DRAFT.length - 5], "focus and caret");
      await ada.sees("on the first master");
      await ada.page.goBack({ timeout: 3000 }).catch(() => {});
      assert.equal(ada.page.url(), "about:blank", "Back does not open the dead master");
      await ada.page.goForward();
      await ada.online();
      await ada.page.press("#text", "Enter");
      // The dead master may have held the board: its lease has to run out first.
      await ben.sees(DRAFT, SETTLES_MS);
      await ada.settled(SETTLES_MS);
      assert.equal(await ben.count(DRAFT), 1);
      await ada.seesPerson(ben.name);
    },
  ],
  [
    "a master dies with posts on their way: each is there once, in order",
    async ({ browser, cluster, wrong }) => {
      const [north, south] = living(cluster);
      const ada = await (await Person.at(browser, cluster.url(north), wrong)).join("Ada");
      const ben = await (await Person.at(browser, cluster.url(south), wrong)).join("Ben");
      const texts = Array.from({ length: 12 }, (_, n) => `on the way ${n}`);
      for (const [n, text] of texts.entries()) {
        await ada.say(text);
        if (n === 5) cluster.kill(north);
      }
      await until("another master", () => new URL(ada.page.url()).origin !== cluster.url(north), 12_000);
      await ada.online(null, 12_000);
      await ada.settled(2 * SETTLES_MS);
      await ben.sees(texts.at(-1), SETTLES_MS);
      const seen = (await ben.posts())
        .map((post) => post.text)
        .filter((text) => text.startsWith("on the way"));
      assert.deepEqual(seen, texts);
    },
  ],
  [
    "a master falls silent: its page moves on after two beats",
    async ({ browser, cluster, wrong }) => {
      const [north] = living(cluster);
      const ada = await (await Person.at(browser, cluster.url(north), wrong)).join("Ada");
      await ada.page.fill("#text", DRAFT);
      const begun = Date.now();
      cluster.kill(north, "SIGSTOP");
      await until("another master", () => new URL(ada.page.url()).origin !== cluster.url(north), 15_000);
      await ada.online(null, 5000);
      console.log(`      moved in ${Date.now() - begun} ms`);
      cluster.kill(north);
      assert.equal(await ada.page.inputValue("#text"), DRAFT);
      await ada.page.press("#text", "Enter");
      await ada.sees(DRAFT, SETTLES_MS);
    },
  ],
  [
    "a master that is stopped on purpose says goodbye: nobody waits",
    async ({ browser, cluster, wrong }) => {
      const [north] = living(cluster);
      const ada = await (await Person.at(browser, cluster.url(north), wrong)).join("Ada");
      const texts = Array.from({ length: 6 }, (_, n) => `through the goodbye ${n}`);
      for (const [n, text] of texts.entries()) {
        await ada.say(text);
        if (n === 2) cluster.kill(north, "SIGTERM");
      }
      await until("another master", () => new URL(ada.page.url()).origin !== cluster.url(north), 5000);
      await ada.online(null, 5000);
      await ada.settled(SETTLES_MS);
      north.dead = true;
      const seen = (await ada.posts())
        .map((post) => post.text)
        .filter((text) => text.startsWith("through the"));
      assert.deepEqual(seen, texts);
    },
  ],
  [
    "a move to another host asks before it goes on as somebody, and brings all along",
    async ({ browser, cluster, wrong }) => {
      // Cookies of localhost are not those of 127.0.0.1, so a ticket has to carry the session.
      const [north] = living(cluster);
      const url = cluster.url(north).replace("127.0.0.1", "localhost");
      const ada = await (await Person.at(browser, url, wrong)).join("Ada");
      const me = await ada.me();
      await ada.page.waitForResponse(
        (response) => response.url().endsWith("/api/v1/handover") && response.ok(),
        { timeout: 15_000 },
      );
      const unsent = "not sent when the master died";
      const writes = (address) => address.origin === url && address.pathname.endsWith("/posts");
      await ada.context.route(writes, (route) =>
        route.request().method() === "POST" ? route.abort() : route.fallback(),
      );
      await ada.say(unsent);
      await ada.page.fill("#text", DRAFT);
      await sleep(200);
      cluster.kill(north);
      await ada.page.waitForSelector("#continue:not([hidden])", { timeout: 15_000 });
      assert.match(await ada.page.textContent("#continue-yes"), /Ada/);
      await ada.page.click("#continue-yes");
      await ada.online();
      assert.deepEqual(await ada.me(), me, "the same person");
      assert.equal(new URL(ada.page.url()).hostname, "127.0.0.1");
      assert.equal(await ada.page.inputValue("#text"), DRAFT, "the ticket proves that it is hers");
      await ada.sees(unsent, SETTLES_MS);
    },
  ],
];

const living = (cluster) => cluster.masters.filter((master) => !master.dead);

// A worker that some master gave a batch to.
async function holderOf(cluster) {
  for (const master of living(cluster)) {
    const view = await cluster.view(master);
    const busy = view.nodes.find((node) => node.role === "worker" && node.in_flight > 0);
    const worker = busy && cluster.workers.find((known) => known.name === busy.name && !known.dead);
    if (worker) return worker;
  }
  return null;
}
