// Who is active: changes of the list, and a crowd of which a part is shown.

import assert from "node:assert/strict";

import { sleep, until } from "../cluster.mjs";
import { Crowd } from "../crowd.mjs";
import { Person } from "../people.mjs";

const asks = (person) => {
  const asked = { count: 0 };
  person.page.on("request", (request) => {
    if (new URL(request.url()).pathname === "/api/v1/users") asked.count += 1;
  });
  return asked;
};

const number = async (person) => Number(await person.page.textContent("#people-count"));

export const checks = [
  [
    "who comes and goes is told by the stream, and nobody asks for the list",
    async ({ browser, cluster, wrong }) => {
      const [north, south] = cluster.masters.map((master) => cluster.url(master));
      const ada = await (await Person.at(browser, north, wrong)).join("Ada");
      const asked = asks(ada);
      const ben = await (await Person.at(browser, south, wrong)).join("Ben");
      await ada.seesPerson(ben.name);
      await ben.seesPerson(ada.name);
      const before = await number(ada);
      await ben.page.click("#leave");
      await until("Ben gone", async () => !(await ada.people()).includes(ben.name), 6000);
      assert.equal(await number(ada), before - 1);
      // Longer than pages used to ask.
      await sleep(14_000);
      assert.equal(asked.count, 0);
      await ada.seesPerson(ada.name);
    },
  ],
  [
    "a page that missed a version asks for the list",
    async ({ browser, cluster, wrong }) => {
      const [north, south] = cluster.masters.map((master) => cluster.url(master));
      const ada = await Person.at(browser, north, wrong);
      // Loses the second thing that is said of people.
      await ada.page.addInitScript(() => {
        const listen = EventSource.prototype.addEventListener;
        EventSource.prototype.addEventListener = function (name, hear) {
          let heard = 0;
          const lossy = (event) => (heard += 1) === 2 || hear(event);
          return listen.call(this, name, name === "presence" ? lossy : hear);
        };
      });
      await ada.page.reload();
      const asked = asks(ada);
      await ada.join("Ada");
      for (const name of ["Ben", "Cy"]) {
        const other = await (await Person.at(browser, south, wrong)).join(name);
        await ada.seesPerson(other.name, 15_000);
      }
      assert.ok(asked.count >= 1);
    },
  ],
  [
    "of a crowd a part is shown, oneself with it, and how many more there are",
    async ({ browser, cluster, wrong }) => {
      const [north, south] = cluster.masters.map((master) => cluster.url(master));
      const crowd = await Crowd.at(south, "Crowd", 230);
      try {
        const zoe = await (await Person.at(browser, north, wrong)).join("Zoe");
        await until("a crowd", async () => (await number(zoe)) >= 231, 15_000);
        await zoe.seesPerson(zoe.name);
        const rows = await zoe.people();
        const count = await number(zoe);
        assert.equal(rows.length, 201, "a window and oneself");
        const more = zoe.page.locator("#people-more");
        assert.equal(await more.textContent(), `and ${count - 201} more`);
        // Keeps what has the focus where it is.
        await zoe.page.focus(".people-list");
        await crowd.leave(150);
        await until("they left", async () => (await number(zoe)) <= count - 150, 15_000);
        const rest = await until("the rest", async () => {
          const now = await zoe.people();
          return now.length === (await number(zoe)) && now;
        }, 15_000);
        assert.ok(rest.includes(zoe.name) && rest.includes("Crowd 229"));
        assert.equal(await more.isVisible(), false);
        assert.equal(await zoe.page.evaluate(() => document.activeElement.className), "people-list");
      } finally {
        crowd.close();
      }
    },
  ],
];
