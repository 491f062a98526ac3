// Several tabs of one person: one stream, one list, one outbox.

import assert from "node:assert/strict";

import { sleep, until } from "../cluster.mjs";
import { Person } from "../people.mjs";

export const checks = [
  [
    "one tab holds the stream for all, and another takes it over",
    async ({ browser, cluster, wrong }) => {
      const url = cluster.url(cluster.masters[0]);
      const first = await (await Person.at(browser, url, wrong)).join("Ada");
      const ben = await (await Person.at(browser, cluster.url(cluster.masters[1]), wrong)).join("Ben");
      const second = await first.tab(url);
      await second.online();
      await ben.say("to both tabs");
      await first.sees("to both tabs");
      await second.sees("to both tabs");
      await second.say("from the second tab");
      await first.sees("from the second tab");
      await ben.sees("from the second tab");
      await second.settled();
      assert.equal(await ben.count("from the second tab"), 1);
      assert.equal(first.streams, 1);
      assert.equal(second.streams, 0, "the second tab follows");
      assert.equal(
        (await ben.people()).filter((name) => name === first.name).length,
        1,
        "one row per session",
      );
      await first.page.close();
      await until("a stream of its own", () => second.streams === 1);
      await second.online();
      await ben.say("to the one that is left");
      await second.sees("to the one that is left");
    },
  ],
  [
    "seven tabs without locks are led by one, and each post is sent once",
    async ({ browser, cluster, wrong }) => {
      const url = cluster.url(cluster.masters[0]);
      const first = await Person.at(browser, url, wrong);
      await first.context.addInitScript(() => {
        Object.defineProperty(Navigator.prototype, "locks", { value: undefined });
      });
      let sent = 0;
      first.context.on("request", (request) => {
        if (request.method() === "POST" && /\/posts$/.test(new URL(request.url()).pathname)) sent += 1;
      });
      await first.page.reload();
      await first.join("Ada");
      const all = [first];
      while (all.length < 7) all.push(await first.tab(url));
      for (const tab of all) await tab.online();
      await all[6].say("from the seventh");
      for (const tab of all) await tab.sees("from the seventh");
      await all[6].settled();
      assert.equal(sent, 1, "sent once");
      assert.equal(all.filter((tab) => tab.streams > 0).length, 1, "one stream");
    },
  ],
  [
    "a leader that hangs is replaced, and follows when it wakes",
    async ({ browser, cluster, wrong }) => {
      const [url, other] = cluster.masters.map((master) => cluster.url(master));
      const first = await (await Person.at(browser, url, wrong)).join("Ada");
      const ben = await (await Person.at(browser, other, wrong)).join("Ben");
      const second = await first.tab(url);
      await second.online();
      const devtools = await first.context.newCDPSession(first.page);
      await devtools.send("Debugger.enable");
      await devtools.send("Debugger.pause");
      await until("a stream of its own", () => second.streams === 1, 15_000);
      await second.online();
      await ben.say("while the first hangs");
      await second.sees("while the first hangs");
      await second.say("sent by the second");
      await second.settled();
      await devtools.send("Debugger.resume");
      await first.sees("sent by the second");
      await first.online();
      await ben.say("after it woke");
      for (const tab of [first, second]) assert.equal(await tab.sees("after it woke").then(() => 1), 1);
      assert.equal(await first.count("while the first hangs"), 1);
    },
  ],
  [
    "two join forms in one browser: nobody writes as the other, and the text is given back",
    async ({ browser, cluster, wrong }) => {
      const url = cluster.url(cluster.masters[0]);
      const bob = await Person.at(browser, url, wrong);
      const carol = await bob.tab(url);
      await carol.page.waitForSelector("#join-form:not([hidden])");
      await bob.join("Bob");
      await bob.create("bobs");
      await carol.join("Carol");
      await bob.page.fill("#text", "written as Bob");
      await bob.page.press("#text", "Enter");
      await bob.page.fill("#text", "a draft of Bob's").catch(() => {});
      await until(
        "the text given back",
        async () => /under another name/.test((await bob.pending())[0]?.fate),
        15_000,
      );
      assert.equal((await bob.pending())[0].text, "written as Bob");
      assert.match(await bob.page.textContent("#me"), new RegExp(carol.name));
      assert.equal(await carol.count("written as Bob"), 0);
      await bob.page.click('#pending button:has-text("Retry")');
      assert.equal((await bob.sees("written as Bob")).who, carol.name, "only when she says so");
    },
  ],
  [
    "two tabs' drafts of one board do not overwrite each other",
    async ({ browser, cluster, wrong }) => {
      const url = cluster.url(cluster.masters[0]);
      const first = await (await Person.at(browser, url, wrong)).join("Ada");
      const second = await first.tab(url);
      await second.online();
      await first.page.fill("#text", "written in the first");
      await second.page.fill("#text", "written in the second");
      for (const tab of [first, second]) {
        await tab.page.reload();
        await tab.online();
      }
      assert.equal(await first.page.inputValue("#text"), "written in the first");
      assert.equal(await second.page.inputValue("#text"), "written in the second");
      await second.page.fill("#text", "");
      await second.page.reload();
      await second.online();
      await sleep(1000);
      assert.equal(await second.page.inputValue("#text"), "", "the first one's is its own while it lives");
      await first.page.close({ runBeforeUnload: false });
      const third = await second.tab(url);
      await until("what the closed tab left", async () => (await third.page.inputValue("#text")) !== "");
      assert.equal(await third.page.inputValue("#text"), "written in the first");
    },
  ],
  [
    "a board that only a following tab reads is as live there as any",
    async ({ browser, cluster, wrong }) => {
      const [url, other] = cluster.masters.map((master) => cluster.url(master));
      const first = await (await Person.at(browser, url, wrong)).join("Ada");
      const ben = await (await Person.at(browser, other, wrong)).join("Ben");
      const second = await first.tab(url);
      await second.online();
      await second.create("read-by-one");
      await second.say("one's own");
      await second.sees("one's own");
      await second.settled();
      await ben.create("read-by-one");
      await ben.say("somebody else's");
      await second.sees("somebody else's");
      assert.equal(second.streams, 0, "it follows");
      const texts = (await second.posts()).map(({ text }) => text);
      assert.deepEqual(texts, ["one's own", "somebody else's"]);
    },
  ],
  [
    "a following tab gets the list of boards, and what is new in them",
    async ({ browser, cluster, wrong }) => {
      const [url, other] = cluster.masters.map((master) => cluster.url(master));
      const first = await (await Person.at(browser, url, wrong)).join("Ada");
      const ben = await (await Person.at(browser, other, wrong)).join("Ben");
      const second = await first.tab(url);
      await second.online();
      await ben.create("made-elsewhere");
      await ben.say("who will read this?");
      await ben.settled();
      // It is time to read the list again.
      await first.page.evaluate(() => {
        const now = Date.now;
        Date.now = () => now() + 40_000;
      });
      const row = second.page.locator("#boards li", { hasText: "made-elsewhere" });
      const count = row.locator(".badge");
      await until("the board with its count", async () => /^1/.test(await count.textContent()), 15_000);
    },
  ],
  [
    "after the clock was set back a page still says that somebody is here, and reads its boards",
    async ({ browser, cluster, wrong }) => {
      const [url, other] = cluster.masters.map((master) => cluster.url(master));
      const ada = await (await Person.at(browser, url, wrong)).join("Ada");
      const ben = await (await Person.at(browser, other, wrong)).join("Ben");
      const said = (timeout) =>
        ada.page.waitForRequest((request) => request.url().endsWith("/api/v1/session/alive"), { timeout });
      // A page says it at its first beat, whatever the time is.
      await said(20_000);
      await ben.create("made-just-before");
      const again = said(13_000);
      await ada.page.evaluate(() => {
        const now = Date.now;
        Date.now = () => now() - 3_600_000;
      });
      await again;
      const row = ada.page.locator("#boards li", { hasText: "made-just-before" });
      await until("the new board", async () => (await row.count()) === 1, 10_000);
    },
  ],
  [
    "of more boards than a stream follows, the one of a following tab is among them",
    async ({ browser, cluster, wrong }) => {
      const [url, other] = cluster.masters.map((master) => cluster.url(master));
      const first = await (await Person.at(browser, url, wrong)).join("Ada");
      const made = await first.page.evaluate(async () => {
        const names = Array.from({ length: 40 }, (_, n) => `zz-${String(n).padStart(2, "0")}`);
        const answers = names.map((name) => fetch(`/api/v1/boards/${name}`, { method: "PUT" }));
        return (await Promise.all(answers)).map(({ status }) => status);
      });
      for (const status of made) assert.ok([200, 201].includes(status), String(status));
      await first.page.reload();
      await first.online();
      const ben = await (await Person.at(browser, other, wrong)).join("Ben");
      await ben.create("zz-39");
      const another = first.page.waitForRequest((request) => request.url().includes("/api/v1/stream"));
      const [asked, second] = await Promise.all([another, first.tab(`${url}/#zz-39`)]);
      const boards = new URL(asked.url()).searchParams.get("boards").split(",");
      assert.deepEqual([boards.length, boards.slice(0, 2)], [32, ["lobby", "zz-39"]]);
      await second.online();
      await ben.say("far down the list");
      await second.sees("far down the list");
      // Opened later, and next to lead: of two the smaller name does.
      const third = new Person(await first.context.newPage(), first.context, wrong);
      await third.page.addInitScript(() => {
        sessionStorage.setItem("chatchat-tab", "00000000-0000-4000-8000-000000000000");
      });
      await third.page.goto(`${url}/#lobby`);
      await third.online();
      await first.page.close();
      await until("a stream of its own", () => third.streams === 1);
      await third.online();
      await ben.say("after another took over");
      await second.sees("after another took over");
      assert.equal(second.streams, 0, "it follows still");
    },
  ],
  [
    "the tab that follows moves on too when the master dies",
    async ({ browser, cluster, wrong }) => {
      const [north, south] = cluster.masters;
      const first = await (await Person.at(browser, cluster.url(north), wrong)).join("Ada");
      const second = await first.tab(cluster.url(north));
      await second.online();
      await second.page.fill("#text", "a draft of the second tab");
      await sleep(200);
      cluster.kill(north);
      for (const tab of [first, second]) await tab.online(cluster.url(south), 20_000);
      assert.equal(await second.page.inputValue("#text"), "a draft of the second tab");
      await first.say("after the move");
      await second.sees("after the move", 15_000);
      assert.equal(await second.count("after the move"), 1);
    },
  ],
];
