// Texts, names and links of people who mean harm.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";

import { sleep, until } from "../cluster.mjs";
import { XSS, XSS_NAMES } from "../corpus.mjs";
import { Person } from "../people.mjs";

// What the page itself never makes: one of these in the list is markup that was run. Links it makes:
// to a place of its own, or to an address of the web that learns nothing of this one.
const OWN = 'a[href^="#"], a:is([href^="https://"], [href^="http://"])[rel~="noopener"][rel~="noreferrer"]';
const FOREIGN = `script, img, iframe, svg, object, style, link, form, input, template, math, a:not(${OWN})`;

export const checks = [
  [
    "hostile texts come out as the texts they are",
    async ({ browser, cluster, wrong }) => {
      const [north, south] = cluster.masters.map((master) => cluster.url(master));
      const eve = await (await Person.at(browser, north, wrong)).join("Eve");
      const ben = await (await Person.at(browser, south, wrong)).join("Ben");
      for (const text of XSS) await eve.say(text);
      await eve.settled(30_000);
      for (const text of XSS) assert.equal((await ben.sees(text)).who, eve.name);
      for (const person of [eve, ben]) {
        const found = await person.page.$$eval(`#log :is(${FOREIGN})`, (nodes) =>
          nodes.map((node) => node.outerHTML),
        );
        assert.deepEqual(found, []);
      }
      const hosts = await ben.page.$$eval("#log .said a", (nodes) => nodes.map((node) => node.host));
      assert.deepEqual(new Set(hosts), new Set(["links.example"]), "only what is an address is a link");
      const strange = await ben.page.$$eval("#log a", (nodes) =>
        nodes.flatMap((node) => node.getAttributeNames().filter((name) => name.startsWith("on"))),
      );
      assert.deepEqual(strange, []);
      await ben.page.reload();
      await ben.online();
      for (const text of XSS) await ben.sees(text);
    },
  ],
  [
    "no hostile text runs as a script",
    async ({ browser, cluster }) => {
      const url = cluster.url(cluster.masters[0]);
      // Where the page is changed so that it parses texts, the policy's reports are no fault.
      const seen = [];
      const eve = await (await Person.at(browser, url, [])).join("Eve");
      const ben = await (await Person.at(browser, url, seen)).join("Ben");
      const before = (await ben.posts()).length;
      await eve.page.close();
      for (const text of XSS) await write(eve, url, text);
      await until(
        "the texts, or what became of them",
        async () => seen.length > 0 || (await ben.posts()).length >= before + XSS.length,
        15_000,
      );
      // What a text starts runs after the page has drawn it.
      await sleep(1000);
      assert.deepEqual(
        seen.filter((what) => what.startsWith("a dialog")),
        [],
      );
    },
  ],
  [
    "hostile names too",
    async ({ browser, cluster, wrong }) => {
      const url = cluster.url(cluster.masters[0]);
      const ben = await (await Person.at(browser, url, wrong)).join("Ben");
      for (const name of XSS_NAMES) {
        const eve = await (await Person.at(browser, url, wrong)).join(name, { exactly: true });
        await ben.seesPerson(name);
        await eve.say(`by ${name}`);
        assert.equal((await ben.sees(`by ${name}`)).who, name);
      }
      const found = await ben.page.$$eval(
        `#people :is(${FOREIGN}), #log :is(${FOREIGN})`,
        (nodes) => nodes.length,
      );
      assert.equal(found, 0);
    },
  ],
  [
    "a stranger's link sends nothing in one's name",
    async ({ browser, cluster, wrong }) => {
      const url = cluster.url(cluster.masters[0]);
      const ada = await (await Person.at(browser, url, wrong)).join("Ada");
      const { id } = await ada.me();
      await ada.page.goto("about:blank");
      await ada.page.goto(link(url, ofEve(id)));
      await ada.online();
      await refusesWhatEveWrote(ada);
    },
  ],
  [
    "another site's page cannot write",
    async ({ browser, cluster, wrong }) => {
      const [north] = cluster.masters.map((master) => cluster.url(master));
      const ada = await (await Person.at(browser, north, wrong)).join("Ada");
      // On another port of the same host: it shares the cookie, and is another origin all the same.
      const evil = createServer((_, response) => response.end("<!doctype html><title>Eve</title>"));
      await new Promise((listening) => evil.listen(0, "127.0.0.1", listening));
      try {
        const page = await ada.context.newPage();
        await page.goto(`http://127.0.0.1:${evil.address().port}/`);
        const url = `${north}/api/v1/boards/lobby/posts`;
        const post = { id: randomUUID(), text: "by Eve" };
        const asked = page.waitForRequest(url);
        const write = ([to, what]) =>
          fetch(to, { method: "POST", credentials: "include", mode: "no-cors", body: what }).then(() => "answered", String);
        // The request goes out; no other origin may look at the answer, not even at its being there.
        assert.match(await page.evaluate(write, [url, JSON.stringify(post)]), /Failed to fetch/);
        assert.equal((await (await asked).failure()).errorText, "net::ERR_BLOCKED_BY_RESPONSE.NotSameOrigin");
        // It goes with Ada's cookie too.
        const send = async (Origin) => (await ada.context.request.post(url, { headers: { Origin }, data: post })).status();
        assert.equal(await send(new URL(page.url()).origin), 403);
        await ada.say("by Ada");
        await ada.sees("by Ada");
        // The board keeps what the checks before this one wrote.
        const written = (await ada.posts()).map(({ text }) => text);
        assert.deepEqual(written.filter((text) => /^by (Eve|Ada)$/.test(text)), ["by Ada"]);
        assert.equal(await send(north), 201, "it was the origin alone that was wrong");
      } finally {
        evil.closeAllConnections();
        evil.close();
      }
      const answer = await fetch(`${north}/api/v1/sessions`, {
        method: "POST",
        headers: { "Content-Type": "application/json", Origin: "http://evil.example" },
        body: JSON.stringify({ name: "Eve" }),
      });
      assert.equal(answer.status, 403);
    },
  ],
];

// What takes longer.
export const slow = [
  [
    "a stranger's link that is passed on to another master is a stranger's there too",
    async ({ browser, cluster, wrong }) => {
      const [north, south] = cluster.masters.map((master) => cluster.url(master));
      const ada = await (await Person.at(browser, north, wrong)).join("Ada");
      const { id } = await ada.me();
      await ada.page.goto("about:blank");
      await silence(ada, north);
      await ada.page.goto(link(north, ofEve(id)));
      await ada.online(south);
      await refusesWhatEveWrote(ada);
    },
  ],
  [
    "a stranger's ticket that is passed on to another master logs nobody in there",
    async ({ browser, cluster, wrong }) => {
      const [north, south] = cluster.masters.map((master) => cluster.url(master));
      const eve = await (await Person.at(browser, south, wrong)).join("Eve");
      const { id, name } = await eve.me();
      const ticket = await eve.page.evaluate(
        async () => (await (await fetch("/api/v1/handover", { method: "POST" })).json()).ticket,
      );
      assert.ok(ticket);
      const ada = await Person.at(browser, "about:blank", wrong);
      await silence(ada, north);
      await ada.page.goto(link(north, { user: id, name, ticket }));
      await ada.page.waitForSelector("#continue:not([hidden])", { timeout: 10_000 });
      assert.equal(new URL(ada.page.url()).origin, south);
      await ada.page.click("#continue-no");
      await ada.join("Ada");
    },
  ],
];

// Writes past the page: a page that parses texts may be past writing.
async function write({ context }, url, text) {
  const answer = await context.request.post(`${url}/api/v1/boards/lobby/posts`, {
    headers: { Origin: url },
    data: { id: randomUUID(), text },
  });
  assert.ok(answer.ok(), `the post was answered ${answer.status()}`);
}

const link = (url, carried) => `${url}/#move=${Buffer.from(JSON.stringify(carried)).toString("base64url")}`;

const ofEve = (user) => ({
  user,
  board: "lobby",
  drafts: { lobby: "a draft of Eve's" },
  outbox: [
    { id: "3f0e8c5a-9d0b-4b6e-8a57-6f2f0d9a7c11", board: "lobby", text: "Eve wrote this", at: 1, tries: 0 },
    { id: "../session", board: "lobby", text: "not an id", at: 2, tries: 1 },
    null,
  ],
  nonce: "00",
  known: true,
  trusted: true,
});

async function refusesWhatEveWrote(ada) {
  const pending = await ada.pending();
  assert.deepEqual(
    pending.map(({ text }) => text),
    ["Eve wrote this"],
  );
  assert.match(pending[0].fate, /not sent: it came with a link/);
  assert.equal(await ada.page.inputValue("#text"), "");
  assert.equal(await ada.count("Eve wrote this"), 0);
  await ada.page.click('#pending button:has-text("Cancel")');
  await ada.settled();
}

// The master serves its page to this person, and is not heard of again.
const silence = (person, origin) =>
  person.context.route(
    (url) => url.origin === origin && ["/api/v1/session", "/readyz"].includes(url.pathname),
    (route) => route.abort(),
  );
