// Finding one's way: links, code, addresses, mentions, times.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";

import { sleep, until } from "../cluster.mjs";
import { Person } from "../people.mjs";

const join = async ({ browser, cluster, wrong }, name, n = 0, options = {}) =>
  (await Person.at(browser, cluster.url(cluster.masters[n]), wrong, options)).join(name);

const inView = (person, selector) =>
  person.page.evaluate((wanted) => {
    const row = document.querySelector(wanted)?.getBoundingClientRect();
    const log = document.getElementById("log").getBoundingClientRect();
    return Boolean(row) && row.top >= log.top - 1 && row.bottom <= log.bottom + 1;
  }, selector);

export const checks = [
  [
    "links can be clicked and give nothing away, code is code",
    async (world) => {
      const ada = await join(world, "Ada");
      const text = "see https://example.org/a?b=1, run `ls -l`:\n```\ntwo\n  lines\n```";
      await ada.say(text);
      await ada.sees(text);
      const link = ada.page.locator("#posts .said a");
      assert.equal(await link.getAttribute("href"), "https://example.org/a?b=1");
      for (const word of ["noopener", "noreferrer", "nofollow"])
        assert.ok((await link.getAttribute("rel")).split(" ").includes(word), word);
      assert.equal(await link.getAttribute("target"), "_blank");
      assert.equal(await ada.page.textContent("#posts .said > code"), "ls -l");
      assert.equal(await ada.page.textContent("#posts .said pre code"), "two\n  lines");
      assert.equal(await ada.page.locator("#posts img, #posts iframe").count(), 0, "no preview");
    },
  ],
  [
    "a board has an address, and Back works",
    async (world) => {
      const ada = await join(world, "Ada");
      assert.equal(new URL(ada.page.url()).hash, "#lobby");
      await ada.create("one");
      await ada.create("two");
      assert.equal(new URL(ada.page.url()).hash, "#two");
      await ada.page.goBack();
      await ada.on("one");
      await ada.page.goBack();
      await ada.on("lobby");
      await ada.page.goForward();
      await ada.on("one");
      await ada.page.reload();
      await ada.online();
      await ada.on("one");
      const other = await ada.tab(`${new URL(ada.page.url()).origin}/#two`);
      await other.online();
      await other.on("two");
    },
  ],
  [
    "a post has an address that is found again",
    async (world) => {
      const ada = await join(world, "Ada");
      await ada.create("far");
      await ada.page.evaluate(async () => {
        for (let n = 1; n <= 130; n += 1) {
          const id = crypto.randomUUID();
          await fetch("/api/v1/boards/far/posts", {
            method: "POST",
            headers: { "Content-Type": "application/json" },
            body: JSON.stringify({ id, text: `post number ${n}\nof two lines` }),
          });
        }
      });
      await ada.sees("post number 130\nof two lines", 20_000);
      const origin = new URL(ada.page.url()).origin;
      const ben = await Person.at(world.browser, `${origin}/#far/7`, world.wrong);
      await ben.join("Ben");
      await until("the post", () => inView(ben, '#posts [data-seq="7"].target'), 10_000);
      await ben.page.click("#pill");
      await until("the end", () => inView(ben, '#posts [data-seq="130"]'));
      const address = await ben.page.getAttribute('#posts [data-seq="129"] .at', "href");
      assert.equal(address, "#far/129");
      await ben.page.focus('#posts [data-seq="129"] .at');
      await ben.page.keyboard.press("Enter");
      await until("the named post", () => inView(ben, '#posts [data-seq="129"].target'));
      await ben.say("look at #far/9");
      await ben.page.click('#posts .said a[href="#far/9"]');
      await until("the post that was linked", () => inView(ben, '#posts [data-seq="9"].target'));
    },
  ],
  [
    "of more boards than a stream follows, a post of one that it leaves out is found by its address",
    async (world) => {
      const ada = await join(world, "Ada");
      await ada.page.evaluate(async () => {
        for (let n = 0; n < 40; n += 1)
          await fetch(`/api/v1/boards/x${String(n).padStart(2, "0")}`, { method: "PUT" });
        // More than is read at once.
        for (let n = 1; n <= 130; n += 1) {
          await fetch("/api/v1/boards/x39/posts", {
            method: "POST",
            headers: { "Content-Type": "application/json" },
            body: JSON.stringify({ id: crypto.randomUUID(), text: `post number ${n}` }),
          });
        }
      });
      await ada.page.addInitScript(() => {
        globalThis.heard = [];
        const Own = EventSource;
        globalThis.EventSource = class extends Own {
          constructor(...how) {
            super(...how);
            for (const name of ["state", "reset"])
              this.addEventListener(name, () => globalThis.heard.push(name));
          }
        };
      });
      const asked = [];
      ada.page.on("request", (request) => {
        const { pathname, searchParams } = new URL(request.url());
        if (pathname === "/api/v1/stream") asked.push(searchParams.get("cursor").split(",").length);
      });
      await ada.page.reload();
      await ada.online();
      const heard = () => ada.page.evaluate(() => globalThis.heard);
      await until("the first stream's state", async () => (await heard()).length > 0);
      await ada.page.evaluate(() => (location.hash = "#x39/1"));
      await until("the first post", () => inView(ada, '#posts [data-seq="1"].target'), 10_000);
      // A reset would come before it.
      await until("the second stream's state", async () => (await heard()).length > 1);
      assert.equal((await heard()).includes("reset"), false);
      assert.ok(asked.length > 1);
      assert.ok(Math.max(...asked) <= 32, `cursors of ${asked} boards`);
      assert.ok(await inView(ada, '#posts [data-seq="1"].target'), "still");
    },
  ],
  [
    "a board is not read while the posts of the one before are still in view",
    async (world) => {
      const ada = await join(world, "Ada");
      await ada.create("read-first");
      for (const text of ["one", "two", "three"]) await ada.say(text);
      await ada.settled();
      const marked = [];
      ada.page.on("request", (request) => {
        const [, board] = /\/boards\/([^/]+)\/read-mark$/.exec(new URL(request.url()).pathname) ?? [];
        if (board) marked.push(board);
      });
      await ada.page.route("**/api/v1/boards/read-next/posts**", async (route) => {
        await sleep(1500);
        await route.continue();
      });
      await ada.create("read-next");
      assert.equal(await ada.count("three"), 1, "the posts of the one before");
      await ada.page.evaluate(() => dispatchEvent(new Event("focus")));
      await until("an empty board", () => ada.page.isVisible("#empty"));
      // Marks are said every other second.
      await sleep(2500);
      assert.equal(marked.includes("read-next"), false, String(marked));
      await ada.page.unroute("**/api/v1/boards/read-next/posts**");
    },
  ],
  [
    "every post shows its time on hover and on focus",
    async (world) => {
      const ada = await join(world, "Ada");
      await ada.say("the first of two");
      await ada.say("the second of two");
      await ada.settled();
      const second = ada.page.locator("#posts .post:not(.first)").last();
      const shown = () =>
        second.locator(".by").evaluate((node) => {
          const clipped = getComputedStyle(node.querySelector(".at")).clipPath !== "none";
          return clipped ? "clipped" : getComputedStyle(node).opacity;
        });
      await ada.page.mouse.move(0, 0);
      assert.equal(await shown(), "0");
      await second.hover();
      assert.equal(await shown(), "1");
      await ada.page.mouse.move(0, 0);
      await second.locator(".at").focus();
      assert.equal(await shown(), "1");
    },
  ],
  [
    "a mention is highlighted, and notifies once that was asked for",
    async (world) => {
      const ada = await join(world, "Ada", 0, { permissions: ["notifications"] });
      const ben = await join(world, "Ben", 1);
      await ada.page.evaluate(() => {
        globalThis.told = [];
        globalThis.Notification = class {
          static permission = "default";
          static async requestPermission() {
            globalThis.told.push("asked");
            Notification.permission = "granted";
            return "granted";
          }
          constructor(title, { body }) {
            globalThis.told.push(`${title}: ${body}`);
          }
        };
        document.hasFocus = () => false;
      });
      const told = () => ada.page.evaluate(() => globalThis.told);
      await ben.say(`@${ada.name} before it was allowed`);
      await ada.sees(`@${ada.name} before it was allowed`);
      assert.deepEqual(await told(), [], "nothing is asked for at load");
      assert.equal(await ada.page.textContent("#posts .mention.mine"), `@${ada.name}`);
      await ada.page.click("#notify");
      await until("on", async () => (await ada.page.getAttribute("#notify", "aria-pressed")) === "true");
      await ben.say("nobody is meant");
      await ben.say(`well, @${ada.name}?`);
      await until("a notification", async () => (await told()).length === 2);
      assert.deepEqual(await told(), ["asked", `${ben.name} in #lobby: well, @${ada.name}?`]);
    },
  ],
  [
    "boards can be filtered",
    async (world) => {
      const ada = await join(world, "Ada");
      for (const name of ["apples", "pears"]) await ada.create(name);
      await ada.page.fill("#board-filter", "ppl");
      assert.deepEqual(await ada.page.locator("#boards .name").allTextContents(), ["apples"]);
      await ada.page.fill("#board-filter", "");
      assert.ok((await ada.page.locator("#boards li").count()) >= 3);
    },
  ],
  [
    "who scrolled up can jump to the latest",
    async (world) => {
      const ada = await join(world, "Ada");
      for (let n = 0; n < 14; n += 1) await ada.say(`to scroll ${n}\n\n\nover lines`);
      await ada.settled(30_000);
      assert.equal(await ada.page.isVisible("#pill"), false);
      await ada.page.evaluate(() => (document.getElementById("log").scrollTop = 0));
      await ada.page.waitForSelector("#pill:not([hidden])");
      assert.match(await ada.page.textContent("#pill"), /^Jump to latest/);
      await ada.page.click("#pill");
      await until("no pill", async () => !(await ada.page.isVisible("#pill")));
    },
  ],
  [
    "a post of many lines is folded, and opens when asked",
    async (world) => {
      const ada = await join(world, "Ada");
      const text = `top${"\n".repeat(8000)}bottom`;
      // At once: the driver types line by line.
      await ada.page.evaluate((value) => {
        document.getElementById("text").value = value;
      }, text);
      await ada.page.press("#text", "Enter");
      await ada.sees(text, 10_000);
      const row = ada.page.locator("#posts .post").last();
      assert.ok((await row.boundingBox()).height < 400, "folded");
      await row.locator("button").click();
      assert.ok((await row.boundingBox()).height > 10_000, "all of it");
    },
  ],
  [
    "texts and names from right to left stand as they should, and piled marks stay in their post",
    async (world) => {
      const ada = await join(world, "Ada");
      const text = "\u05e9\u05dc\u05d5\u05dd, world";
      await ada.say(text);
      await ada.sees(text);
      const said = ada.page.locator("#posts .said").last();
      assert.equal(await said.evaluate((node) => getComputedStyle(node).direction), "rtl");
      await ada.page.fill("#text", text);
      const field = ada.page.locator("#text");
      assert.equal(await field.evaluate((node) => getComputedStyle(node).direction), "rtl");
      assert.equal(
        await ada.page
          .locator("#posts bdi.who, #people bdi")
          .count()
          .then((n) => n >= 2),
        true,
      );
      assert.equal(await said.evaluate((node) => getComputedStyle(node).overflowY), "clip");
    },
  ],
  [
    "half a character or a NUL that was pasted is mended before it is sent",
    async (world) => {
      const ada = await join(world, "Ada");
      await ada.page.evaluate(() => {
        const field = document.getElementById("text");
        field.value = "half \ud83d and nul \0.";
        field.dispatchEvent(new Event("input"));
      });
      await ada.page.press("#text", "Enter");
      await ada.sees("half \ufffd and nul .");
      await ada.settled();
    },
  ],
  [
    "a page that was offline for 400 posts shows them all within 2 s, though nobody posts any more",
    async (world) => {
      const ada = await join(world, "Ada");
      await ada.create("quiet-board");
      await ada.say("before");
      await ada.settled();
      await ada.context.setOffline(true);
      const api = `${world.cluster.url(world.cluster.masters[1])}/api/v1`;
      const json = { "Content-Type": "application/json" };
      const body = JSON.stringify({ name: "Bulk" });
      const { token } = await (await fetch(`${api}/sessions`, { method: "POST", headers: json, body })).json();
      for (let n = 1; n <= 400; n += 1) {
        const answer = await fetch(`${api}/boards/quiet-board/posts`, {
          method: "POST",
          headers: { ...json, Authorization: `Bearer ${token}` },
          body: JSON.stringify({ id: randomUUID(), text: `bulk ${n}` }),
        });
        assert.equal(answer.status, 201);
      }
      await ada.context.setOffline(false);
      await ada.online();
      const texts = () => ada.page.locator("#posts .said").allTextContents();
      await until("the last of 400 posts", async () => (await texts()).at(-1) === "bulk 400", 2000);
      const shown = (await texts()).filter((text) => text.startsWith("bulk "));
      assert.deepEqual(shown, Array.from({ length: 400 }, (_, n) => `bulk ${n + 1}`));
    },
  ],
  [
    "print shows the conversation alone",
    async (world) => {
      const ada = await join(world, "Ada");
      await ada.say("to be printed");
      await ada.sees("to be printed");
      await ada.page.emulateMedia({ media: "print" });
      for (const hidden of ["#composer", "#boards-side", "#people-side"])
        assert.equal(await ada.page.isVisible(hidden), false, hidden);
      const whole = await ada.page.evaluate(() => {
        const log = document.getElementById("log");
        return log.scrollHeight <= log.clientHeight + 1;
      });
      assert.ok(whole, "nothing is cut off");
      await ada.page.screenshot({ path: `${world.out}/print.png` });
    },
  ],
];
