// What is carried from one master to another, and what becomes of it there.

import assert from "node:assert/strict";

import { until } from "../cluster.mjs";
import { Person } from "../people.mjs";

export const checks = [
  [
    "what was withdrawn stays withdrawn at the next master",
    async ({ browser, cluster, wrong }) => {
      const [north, south] = cluster.masters.map((master) => cluster.url(master));
      const ada = await (await Person.at(browser, north, wrong)).join("Ada");
      await takeNoPosts(ada, north);
      await ada.say("thought better of");
      await ada.page.click('#pending button:has-text("Cancel")');
      await until("cancelling", async () => /cancelling/.test((await ada.pending())[0]?.fate));
      await breakStream(ada, north);
      await ada.online(south);
      await ada.settled();
      assert.equal(await ada.count("thought better of"), 0);
      assert.equal(await ada.page.inputValue("#text"), "thought better of", "given back");
    },
  ],
  [
    "what was withdrawn stays so where an earlier move left it",
    async ({ browser, cluster, wrong }) => {
      const [north, south] = cluster.masters.map((master) => cluster.url(master));
      const ada = await (await Person.at(browser, north, wrong)).join("Ada");
      await takeNoPosts(ada, north);
      await takeNoPosts(ada, south);
      await ada.say("left at the first");
      await breakStream(ada, north);
      await ada.online(south);
      await ada.page.click('#pending button:has-text("Cancel")');
      await ada.context.unrouteAll();
      await takeNoPosts(ada, south);
      await breakStream(ada, south);
      await ada.online(north);
      await ada.settled();
      assert.equal(await ada.count("left at the first"), 0);
    },
  ],
  [
    "what another person wrote is offered, and not sent",
    async ({ browser, cluster, wrong }) => {
      const [north, south] = cluster.masters.map((master) => cluster.url(master));
      const ada = await (await Person.at(browser, north, wrong)).join("Ada");
      await takeNoPosts(ada, north);
      await ada.say("to be sent after all");
      await ada.say("to be forgotten");
      await ada.page.fill("#text", "a draft of Ada's");
      const lost = at(south, "/api/v1/session");
      await ada.context.route(lost, (route) => route.fulfill(problem(401, "unknown-session")));
      await breakStream(ada, north);
      await until("another master", () => new URL(ada.page.url()).origin === south, 12_000);
      await ada.page.waitForSelector("#join:not([hidden])");
      await ada.context.unroute(lost);
      await ada.join("Bea");
      const pending = await ada.pending();
      assert.deepEqual(
        pending.map(({ text }) => text),
        ["to be sent after all", "to be forgotten"],
      );
      for (const { fate } of pending) assert.match(fate, /not sent: it was written under another name/);
      assert.equal(await ada.page.inputValue("#text"), "a draft of Ada's");
      await ada.page.click('#pending .post:first-child button:has-text("Retry")');
      assert.equal((await ada.sees("to be sent after all")).who, ada.name);
      await ada.page.click('#pending button:has-text("Cancel")');
      await ada.settled();
      assert.equal(await ada.count("to be forgotten"), 0);
    },
  ],
  [
    "a draft outlives a move that failed, and is not found again after one that worked",
    async ({ browser, cluster, wrong }) => {
      const [north, south] = cluster.masters.map((master) => cluster.url(master));
      const ada = await (await Person.at(browser, north, wrong)).join("Ada");
      await ada.page.fill("#text", "on the road");
      const gone = at(south, "/");
      await ada.context.route(gone, (route) => route.abort());
      const failed = ada.page.waitForEvent("requestfailed", {
        predicate: (request) => request.isNavigationRequest() && gone(new URL(request.url())),
        timeout: 12_000,
      });
      await breakStream(ada, north);
      await failed;
      await ada.context.unrouteAll();
      await ada.page.goto(north);
      await ada.online(north);
      assert.equal(await ada.page.inputValue("#text"), "on the road");
      await breakStream(ada, north);
      await ada.online(south);
      assert.equal(await ada.page.inputValue("#text"), "on the road");
      await ada.context.unrouteAll();
      await ada.page.press("#text", "Enter");
      await ada.sees("on the road");
      await ada.page.goto(north);
      await ada.online(north);
      assert.equal(await ada.page.inputValue("#text"), "");
    },
  ],
  [
    "neither Back nor Forward opens the master that was left",
    async ({ browser, cluster, wrong }) => {
      const [north, south] = cluster.masters.map((master) => cluster.url(master));
      const ada = await (await Person.at(browser, north, wrong)).join("Ada");
      for (const name of ["first-stop", "second-stop"]) await ada.create(name);
      await ada.page.goBack();
      await ada.on("first-stop");
      await breakStream(ada, north);
      await ada.online(south);
      for (const way of ["goForward", "goForward", "goBack", "goForward"]) {
        await ada.page[way]({ timeout: 2000 }).catch(() => {});
        assert.equal(new URL(ada.page.url()).origin, south, way);
      }
      await ada.on("first-stop");
    },
  ],
  [
    "a page that waited for its session can be written on",
    async ({ browser, cluster, wrong }) => {
      const url = cluster.url(cluster.masters[0]);
      const ada = await (await Person.at(browser, url, wrong)).join("Ada");
      const session = at(url, "/api/v1/session");
      await ada.context.route(session, (route) => route.fulfill(problem(503, "unavailable")), { times: 1 });
      await ada.page.reload();
      await ada.online();
      assert.equal(await ada.page.evaluate(() => document.getElementById("chat").inert), false);
    },
  ],
  [
    "a ticket that was not given is asked for again soon",
    async ({ browser, cluster, wrong }) => {
      const url = cluster.url(cluster.masters[0]).replace("127.0.0.1", "localhost");
      const ada = await Person.at(browser, url, wrong);
      let asked = 0;
      await ada.context.route("**/api/v1/handover", (route) => {
        asked += 1;
        return asked === 1 ? route.fulfill(problem(503, "unavailable")) : route.continue();
      });
      const given = ada.page.waitForResponse(
        (response) => response.url().endsWith("/api/v1/handover") && response.ok(),
        { timeout: 20_000 },
      );
      await ada.join("Ada");
      await given;
      assert.equal(asked, 2);
    },
  ],
  ...[
    ["the store was away", (route) => route.fulfill(problem(503, "unavailable"))],
    ["too many came at once", (route) => route.fulfill(problem(429, "rate-limited"))],
    ["nobody answered", (route) => route.abort()],
    ["the answer was cut off", async (route) => route.fulfill({ response: await route.fetch(), body: "" })],
  ].map(([what, first], nth) => [
    `a move to another host goes on though ${what}`,
    async (world) => {
      const south = world.cluster.url(world.cluster.masters[1]);
      const ada = await joinedByName(world);
      const me = await ada.me();
      let spent = 0;
      await ada.context.route(at(south, "/api/v1/handover/redeem"), (route) => {
        spent += 1;
        return spent === 1 ? first(route) : route.continue();
      });
      await move(ada, `away-${nth}`);
      await ada.online(south);
      assert.deepEqual(await ada.me(), me, "the same person");
      assert.equal(await ada.page.locator("#join-form").isVisible(), false);
      assert.equal(spent, 2);
    },
  ]),
  [
    "a session that cannot be read right after a move is asked for again",
    async (world) => {
      const south = world.cluster.url(world.cluster.masters[1]);
      const ada = await joinedByName(world);
      const me = await ada.me();
      let asked = 0;
      // Before the ticket is spent there is none.
      await ada.context.route(at(south, "/api/v1/session"), (route) => {
        asked += 1;
        return asked === 2 ? route.fulfill(problem(503, "unavailable")) : route.continue();
      });
      await move(ada, "away-again");
      await ada.online(south);
      assert.ok(asked >= 3, `asked ${asked} times`);
      assert.deepEqual(await ada.me(), me, "the same person");
    },
  ],
  [
    "a draft that a ticket proves to be one's own is taken though the store was away for a moment",
    async ({ browser, cluster, wrong }) => {
      const url = cluster.url(cluster.masters[0]);
      const ada = await (await Person.at(browser, url, wrong)).join("Ada");
      const { id } = await ada.me();
      const ticket = await ada.page.evaluate(
        async () => (await (await fetch("/api/v1/handover", { method: "POST" })).json()).ticket,
      );
      const redeem = at(url, "/api/v1/handover/redeem");
      await ada.context.route(redeem, (route) => route.fulfill(problem(503, "unavailable")), { times: 1 });
      const carried = { user: id, ticket, board: "lobby", drafts: { lobby: "brought by a ticket" } };
      await ada.page.goto("about:blank");
      await ada.page.goto(`${url}/#move=${Buffer.from(JSON.stringify(carried)).toString("base64url")}`);
      await ada.online();
      assert.equal(await ada.page.inputValue("#text"), "brought by a ticket");
    },
  ],
];

const at = (origin, path) => (url) => url.origin === origin && url.pathname === path;

const problem = (status, kind) => ({
  status,
  contentType: "application/problem+json",
  body: JSON.stringify({ type: `urn:chatchat:${kind}` }),
});

// Joins at the first master by a name whose cookies no other one sees, and has a ticket for a move.
async function joinedByName({ browser, cluster, wrong }) {
  const url = cluster.url(cluster.masters[0]).replace("127.0.0.1", "localhost");
  const person = await Person.at(browser, url, wrong);
  const given = person.page.waitForResponse(
    (response) => response.url().endsWith("/api/v1/handover") && response.ok(),
    { timeout: 20_000 },
  );
  await person.join("Ada");
  await given;
  return person;
}

// No stream opens here any more, and a new board needs another one: the page moves on, with all it has.
async function move(person, board) {
  const { origin } = new URL(person.page.url());
  await person.context.route(at(origin, "/api/v1/stream"), (route) => route.abort());
  await person.page.fill("#new-board-name", board);
  await person.page.press("#new-board-name", "Enter");
  await person.page.waitForSelector("#continue:not([hidden])", { timeout: 20_000 });
  await person.page.click("#continue-yes");
}

// This master takes no posts of this person, and does not answer when one is withdrawn.
async function takeNoPosts(person, origin) {
  const posts = (url) => url.origin === origin && /^\/api\/v1\/(boards\/.*)?posts/.test(url.pathname);
  await person.context.route(posts, (route) => {
    const method = route.request().method();
    if (method === "POST") return route.fulfill(problem(503, "unavailable"));
    return method === "DELETE" ? route.abort() : route.continue();
  });
}

// No stream opens at this master any more, so that its page moves on.
async function breakStream(person, origin) {
  await person.context.route(at(origin, "/api/v1/stream"), (route) => route.abort());
  await person.page.reload();
}
