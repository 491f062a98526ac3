// Somebody else answers: a captive portal, a proxy, a gateway.

import assert from "node:assert/strict";

import { sleep, until } from "../cluster.mjs";
import { Person } from "../people.mjs";

const PORTAL = {
  status: 200,
  contentType: "text/html",
  body: "<!doctype html><title>Sign in</title><p>Accept the terms to use this network.",
};

const unavailable = (after) => ({
  status: 503,
  contentType: "application/problem+json",
  headers: { "Retry-After": after },
  body: '{"type":"urn:chatchat:unavailable"}',
});

// Answers all calls of this method and path with something that is not ours, until it is called off.
async function answerInstead(person, method, path, answer = PORTAL) {
  const calls = { count: 0 };
  const is = (url) => path.test(url.pathname);
  const handler = (route) => {
    if (route.request().method() !== method) return route.fallback();
    calls.count += 1;
    return route.fulfill(answer);
  };
  await person.context.route(is, handler);
  calls.end = () => person.context.unroute(is, handler);
  return calls;
}

const joined = async ({ browser, cluster, wrong }) =>
  (await Person.at(browser, cluster.url(cluster.masters[0]), wrong)).join("Ada");

export const checks = [
  ...[
    ["a page of HTML", PORTAL],
    [
      "another post",
      { status: 201, contentType: "application/json", body: '{"id":"x","board":"lobby","seq":1}' },
    ],
    ["a refusal that is not ours", { status: 403, contentType: "text/html", body: "Blocked" }],
  ].map(([what, answer]) => [
    `a post that ${what} answered stays and goes out under its id`,
    async (world) => {
      const ada = await joined(world);
      const portal = await answerInstead(ada, "POST", /\/posts$/, answer);
      const text = `answered by ${what}`;
      await ada.say(text);
      await until("a second try", () => portal.count >= 2);
      assert.equal((await ada.pending()).length, 1, "it waits in the outbox");
      await portal.end();
      await ada.sees(text);
      await ada.settled();
      assert.equal(await ada.count(text), 1);
    },
  ]),
  [
    "a withdrawal that a portal answered is said again",
    async (world) => {
      const ada = await joined(world);
      const writes = await answerInstead(ada, "POST", /\/posts$/, unavailable("1"));
      const portal = await answerInstead(ada, "DELETE", /\/posts\//);
      await ada.say("not to be");
      await ada.page.click('#pending button:has-text("Cancel")');
      await until("a second try", () => portal.count >= 2);
      await portal.end();
      await ada.settled();
      await writes.end();
      await ada.page.fill("#text", "");
      await ada.say("goes on");
      await ada.sees("goes on");
      assert.equal(await ada.count("not to be"), 0);
    },
  ],
  [
    "a session that a portal answered is asked for again",
    async (world) => {
      const ada = await joined(world);
      const portal = await answerInstead(ada, "GET", /\/session$/);
      await ada.page.reload();
      await until("a second try", () => portal.count >= 2);
      await portal.end();
      await ada.online();
    },
  ],
  [
    "a sign-in page with status 401 logs nobody out",
    async (world) => {
      const ada = await joined(world);
      const portal = await answerInstead(ada, "GET", /\/session$/, { ...PORTAL, status: 401 });
      await ada.page.reload();
      await until("a second try", () => portal.count >= 2);
      assert.equal(await ada.page.locator("#join-form").isVisible(), false);
      await portal.end();
      await ada.online();
    },
  ],
  [
    "posts that a portal answered are read again",
    async (world) => {
      const ada = await joined(world);
      await ada.say("to be read again");
      await ada.settled();
      const portal = await answerInstead(ada, "GET", /\/posts$/);
      await ada.page.reload();
      await until("a second try", () => portal.count >= 2);
      await portal.end();
      await ada.sees("to be read again");
    },
  ],
  [
    "a list that was told to wait for an hour is there when the stream is",
    async (world) => {
      const ada = await joined(world);
      await ada.say("an hour is too long");
      await ada.settled();
      let asked = 0;
      await ada.context.route(
        (url) => /\/posts$/.test(url.pathname),
        (route) => {
          asked += 1;
          return asked === 1 ? route.fulfill(unavailable("3600")) : route.fallback();
        },
      );
      await ada.page.reload();
      await ada.sees("an hour is too long", 13_000);
    },
  ],
  ...["3600", "2147484"].map((after) => [
    `a post told to wait for ${after} s goes out soon, and not sixty times a second`,
    async (world) => {
      const ada = await joined(world);
      const text = `after ${after}`;
      const busy = await answerInstead(ada, "POST", /\/posts$/, unavailable(after));
      await ada.say(text);
      await sleep(3000);
      assert.ok(busy.count <= 2, `${busy.count} tries in 3 s`);
      await busy.end();
      await ada.sees(text, 13_000);
      assert.equal(await ada.count(text), 1);
    },
  ]),
  [
    "a page whose streams nobody answers stays after one round, says so and asks for posts",
    async (world) => {
      const { browser, cluster, wrong } = world;
      const ada = await joined(world);
      const ben = await (await Person.at(browser, cluster.url(cluster.masters[1]), wrong)).join("Ben");
      const been = [new URL(ada.page.url()).origin];
      ada.page.on("framenavigated", (frame) => {
        const { origin } = new URL(frame.url());
        if (been.at(-1) !== origin) been.push(origin);
      });
      const held = (url) => url.pathname === "/api/v1/stream";
      // Accepted, and never answered.
      await ada.context.route(held, () => {});
      await ada.page.reload();
      const says = async () => /No master gives live updates/.test(await ada.page.textContent("#banner"));
      await until("a reason", says, 60_000);
      assert.equal(been.length, cluster.masters.length, been.join(", "));
      await ben.say("asked for");
      await ada.sees("asked for", 8000);
      await ada.say("without a stream");
      await ben.sees("without a stream");
      // Long enough for what used to be two more moves.
      await sleep(25_000);
      assert.ok(await says(), "still");
      assert.equal(been.length, cluster.masters.length, been.join(", "));
      await ada.context.unroute(held);
      await ada.online(null, 20_000);
    },
  ],
  [
    "a portal's page at readyz is no ready master",
    async ({ browser, cluster, wrong }) => {
      const [north, south] = cluster.masters.map((master) => cluster.url(master));
      const ada = await (await Person.at(browser, north, wrong)).join("Ada");
      const ready = (url) => url.origin === south && url.pathname === "/readyz";
      const portal = { ...PORTAL, headers: { "Access-Control-Allow-Origin": "*" } };
      let [asked, opened] = [0, 0];
      await ada.context.route(ready, (route) => {
        asked += 1;
        return route.fulfill(portal);
      });
      const stream = (url) => url.origin === north && url.pathname === "/api/v1/stream";
      await ada.context.route(stream, (route) => {
        opened += 1;
        return route.abort();
      });
      await ada.page.reload();
      await until("a second question", () => asked >= 2, 15_000);
      assert.equal(new URL(ada.page.url()).origin, north);
      await sleep(3000);
      assert.ok(opened < 10, `${opened} streams in a few seconds`);
      await ada.context.unroute(ready);
      await ada.online(south);
    },
  ],
];
