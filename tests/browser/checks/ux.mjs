// What people expect of the page.

import assert from "node:assert/strict";

import { sleep, until } from "../cluster.mjs";
import { Person } from "../people.mjs";

const join = async ({ browser, cluster, wrong }, name, n = 0, options = {}, how = {}) =>
  (await Person.at(browser, cluster.url(cluster.masters[n]), wrong, options)).join(name, how);

export const checks = [
  [
    "Enter sends, Shift+Enter breaks a line, an input method's Enter does neither",
    async (world) => {
      const ada = await join(world, "Ada");
      await ada.page.focus("#text");
      await ada.page.keyboard.type("one");
      await ada.page.keyboard.press("Shift+Enter");
      await ada.page.keyboard.type("two");
      await ada.page.evaluate(() => {
        const init = { key: "Enter", bubbles: true, cancelable: true, isComposing: true };
        document.getElementById("text").dispatchEvent(new KeyboardEvent("keydown", init));
      });
      assert.equal(await ada.page.inputValue("#text"), "one\ntwo");
      await ada.page.keyboard.press("Enter");
      await ada.sees("one\ntwo");
      assert.equal(await ada.page.inputValue("#text"), "");
      await until("sent", async () => /sent/.test(await ada.page.textContent("#posts .tick")));
      await ada.page.keyboard.press("Enter");
      await sleep(300);
      assert.equal(await ada.count(""), 0, "nothing is not sent");
    },
  ],
  [
    "who scrolled up is left there, and told of new posts",
    async (world) => {
      const ada = await join(world, "Ada");
      const ben = await join(world, "Ben", 1);
      for (let n = 0; n < 30; n += 1) await ben.say(`filler ${n}\nwith a second line`);
      await ben.settled(30_000);
      await ada.sees("filler 29\nwith a second line");
      await ada.page.evaluate(() => (document.getElementById("log").scrollTop = 300));
      await sleep(200);
      await ben.say("while you read");
      // It is there since she scrolled; the post comes later.
      await until("told of it", async () => /^1 new post/.test(await ada.page.textContent("#pill:not([hidden])")));
      assert.equal(await ada.page.evaluate(() => document.getElementById("log").scrollTop), 300);
      await ada.page.click("#pill");
      await until("the end in view", () =>
        ada.page.evaluate(() => {
          const log = document.getElementById("log");
          return (
            log.scrollHeight - log.scrollTop - log.clientHeight < 4 && document.getElementById("pill").hidden
          );
        }),
      );
    },
  ],
  [
    "who looked away finds a count in the title and a line where the new begins",
    async (world) => {
      const ada = await join(world, "Ada");
      const ben = await join(world, "Ben", 1);
      await ben.say("while you look");
      await ada.sees("while you look");
      await ada.page.evaluate(() => (document.hasFocus = () => false));
      await ben.say("while you are away");
      await ben.say("and another");
      await until("a count in the title", async () => (await ada.page.title()).startsWith("(2) "));
      const after = await ada.page.textContent("#posts .unread + .post .said");
      assert.equal(after, "while you are away");
      await ada.page.evaluate(() => {
        delete document.hasFocus;
        dispatchEvent(new Event("focus"));
      });
      await until("a plain title", async () => (await ada.page.title()).startsWith("#"));
      await ada.page.evaluate(() => (document.hasFocus = () => false));
      await ben.say("away once more");
      await ada.sees("away once more");
      assert.equal(await ada.page.textContent("#posts .unread + .post .said"), "away once more");
    },
  ],
  [
    "a text that is too long is said to be, and kept",
    async (world) => {
      const ada = await join(world, "Ada");
      const long = "x".repeat(8 * 1024 + 5);
      await ada.page.fill("#text", long);
      assert.equal(await ada.page.textContent("#composer-note"), "5 bytes too long");
      await ada.page.press("#text", "Enter");
      assert.equal(await ada.page.inputValue("#text"), long);
    },
  ],
  [
    "two people of one name are told apart",
    async (world) => {
      const first = await join(world, "Sam", 0, {}, { exactly: true });
      const second = await join(world, "Sam", 1, {}, { exactly: true });
      const tags = await Promise.all(
        [first, second].map(async (sam) => `Sam #${(await sam.me()).id.slice(0, 4)}`),
      );
      for (const tag of tags) await first.seesPerson(tag);
      await second.say("which Sam?");
      assert.equal((await first.sees("which Sam?")).who, tags[1]);
    },
  ],
  [
    "everything has a name, a role and a focus to be seen",
    async (world) => {
      const ada = await join(world, "Ada");
      const found = await ada.page.evaluate(() => {
        const wrong = [];
        for (const node of document.querySelectorAll("input, textarea")) {
          if (!node.labels?.length && !node.getAttribute("aria-label")) wrong.push(`no label: ${node.id}`);
        }
        for (const node of document.querySelectorAll("button")) {
          if (node.checkVisibility() && !node.textContent.trim())
            wrong.push(`no name: ${node.id || node.className}`);
        }
        const log = document.getElementById("log");
        if (log.getAttribute("role") !== "log") wrong.push("no log");
        document.getElementById("text").focus();
        if (getComputedStyle(document.activeElement).outlineStyle === "none") wrong.push("no visible focus");
        return wrong;
      });
      assert.deepEqual(found, []);
    },
  ],
  [
    "320 pixels are enough",
    async (world) => {
      const ada = await join(world, "A name of some length, for measure", 0, {
        viewport: { width: 320, height: 568 },
      });
      await ada.say(
        "a-word-that-is-very-much-too-long-for-a-line-of-three-hundred-and-twenty-pixels-".repeat(2),
      );
      await ada.settled();
      const wide = await ada.page.evaluate(() => [
        document.documentElement.scrollWidth,
        document.getElementById("log").scrollWidth,
      ]);
      assert.ok(
        wide.every((width) => width <= 320),
        String(wide),
      );
    },
  ],
  ...["light", "dark"].map((colorScheme) => [
    `texts have a contrast of 4.5 in ${colorScheme}`,
    async (world) => {
      const ada = await join(world, "Ada", 0, { colorScheme });
      await ada.say("to be read");
      await ada.sees("to be read");
      await ada.page.click("#cluster summary");
      await until("nodes", () =>
        ada.page.evaluate(() => document.querySelectorAll("#cluster-nodes li").length > 0),
      );
      const low = await ada.page.evaluate(lowContrast);
      assert.deepEqual(low, []);
    },
  ]),
];

// Runs in the page: every shown text whose colour is too near to what is behind it.
function lowContrast() {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const part = (v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const low = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (
      !walker.currentNode.textContent.trim() ||
      !node.checkVisibility() ||
      node.closest(".hidden-text, noscript")
    )
      continue;
    const [text, ground] = [light(rgba(getComputedStyle(node).color)), light(behind(node))];
    const ratio = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
    if (ratio < 4.5)
      low.push(
        `${ratio.toFixed(2)}: ${node.className || node.id || node.tagName} "${node.textContent.slice(0, 20)}"`,
      );
  }
  return low;
}
