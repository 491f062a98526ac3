// Two people on two masters.

import assert from "node:assert/strict";

import { until } from "../cluster.mjs";
import { Person } from "../people.mjs";

export const checks = [
  [
    "two people on different masters chat and see each other",
    async ({ browser, cluster, wrong }) => {
      const [north, south] = cluster.masters.map((master) => cluster.url(master));
      const ada = await (await Person.at(browser, north, wrong)).join("Ada");
      const ben = await (await Person.at(browser, south, wrong)).join("Ben");
      await ada.seesPerson(ben.name);
      await ben.seesPerson(ada.name);
      await ada.say("hello from north");
      assert.equal((await ben.sees("hello from north")).who, ada.name);
      await ben.say("hello from south");
      assert.equal((await ada.sees("hello from south")).who, ben.name);
      await ada.settled();
      await ben.settled();
      const [atAda, atBen] = [await ada.posts(), await ben.posts()];
      assert.deepEqual(atAda, atBen, "one order for all");
      assert.deepEqual(
        atAda.map((post) => post.seq),
        atAda.map((_, n) => n + 1),
        "without a hole",
      );
    },
  ],
  [
    "what one writes in a row stands in that order, once",
    async ({ browser, cluster, wrong }) => {
      const ada = await (await Person.at(browser, cluster.url(cluster.masters[0]), wrong)).join("Ada");
      const texts = Array.from({ length: 20 }, (_, n) => `in a row ${n}`);
      for (const text of texts) await ada.say(text);
      await ada.settled(20_000);
      const seen = (await ada.posts()).map((post) => post.text).filter((text) => text.startsWith("in a row"));
      assert.deepEqual(seen, texts);
    },
  ],
  [
    "a session comes back after a reload, with its draft",
    async ({ browser, cluster, wrong }) => {
      const ada = await (await Person.at(browser, cluster.url(cluster.masters[0]), wrong)).join("Ada");
      const me = await ada.me();
      await ada.page.fill("#text", "half a thou");
      await ada.page.reload();
      await ada.online();
      assert.deepEqual(await ada.me(), me);
      assert.equal(await ada.page.inputValue("#text"), "half a thou");
    },
  ],
  [
    "boards keep apart, and say what is new",
    async ({ browser, cluster, wrong }) => {
      const ada = await (await Person.at(browser, cluster.url(cluster.masters[0]), wrong)).join("Ada");
      const ben = await (await Person.at(browser, cluster.url(cluster.masters[1]), wrong)).join("Ben");
      await ada.create("dev");
      await ada.say("only in dev");
      await ada.sees("only in dev");
      await ben.page.reload();
      await ben.online();
      await ben.page.click('#boards button:has-text("dev")');
      await ben.sees("only in dev");
      await ben.page.click('#boards button:has-text("lobby")');
      await ben.on("lobby");
      await ada.say("something new");
      await until("a count at dev", async () =>
        /1/.test(await ben.page.textContent('#boards button:has-text("dev") .new')),
      );
      assert.equal(await ben.count("something new"), 0);
    },
  ],
  [
    "who leaves is gone from the list and has no session",
    async ({ browser, cluster, wrong }) => {
      const ada = await (await Person.at(browser, cluster.url(cluster.masters[0]), wrong)).join("Ada");
      const ben = await (await Person.at(browser, cluster.url(cluster.masters[1]), wrong)).join("Ben");
      await ben.seesPerson(ada.name);
      const cookies = await ada.context.cookies();
      const headers = { Cookie: cookies.map(({ name, value }) => `${name}=${value}`).join("; ") };
      const session = async () =>
        (await fetch(`${cluster.url(cluster.masters[0])}/api/v1/session`, { headers })).status;
      assert.equal(await session(), 200);
      await ada.page.click("#leave");
      await ada.page.waitForSelector("#join-form:not([hidden])");
      await until("Ada gone", async () => !(await ben.people()).includes(ada.name), 20_000);
      assert.equal(await session(), 401);
    },
  ],
];
