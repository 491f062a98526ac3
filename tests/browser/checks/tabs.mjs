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
