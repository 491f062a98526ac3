// The page for people who use a keyboard or a screen reader.

import assert from "node:assert/strict";

import { violations } from "../axe.mjs";
import { until } from "../cluster.mjs";
import { Crowd } from "../crowd.mjs";
import { Person } from "../people.mjs";

const SIZES = [
  ["1280 pixels", { viewport: { width: 1280, height: 800 } }],
  ["1280 pixels in the dark", { viewport: { width: 1280, height: 800 }, colorScheme: "dark" }],
  ["320 pixels", { viewport: { width: 320, height: 640 } }],
  ["320 pixels in the dark", { viewport: { width: 320, height: 640 }, colorScheme: "dark" }],
];

const at = ({ browser, cluster, wrong }, options = {}, n = 0) =>
  Person.at(browser, cluster.url(cluster.masters[n]), wrong, options);

const focused = (page) =>
  page.evaluate(() => {
    const node = document.activeElement;
    return node.id || `${node.tagName.toLowerCase()} ${node.textContent.trim()}`;
  });

// Presses Tab until what has the focus is the one.
async function tabTo(page, wanted) {
  const seen = [];
  for (let n = 0; n < 60; n += 1) {
    await page.keyboard.press("Tab");
    const now = await focused(page);
    if (wanted instanceof RegExp ? wanted.test(now) : now === wanted) return;
    seen.push(now);
  }
  throw new Error(`no ${wanted} by keyboard; there were: ${seen.join(", ")}`);
}

const failAll = (person) =>
  person.context.route(
    (url) => url.pathname.endsWith("/posts"),
    (route) =>
      route.request().method() === "POST"
        ? route.fulfill({
            status: 422,
            contentType: "application/problem+json",
            body: '{"type":"urn:chatchat:text-refused"}',
          })
        : route.fallback(),
  );

export const checks = [
  ...SIZES.map(([size, options]) => [
    `axe finds nothing at ${size}`,
    async (world) => {
      const ada = await at(world, options);
      await ada.page.waitForSelector("#join-form:not([hidden])");
      assert.deepEqual(await violations(ada.page), [], "joining");
      await ada.join("Ada");
      for (const text of ["first", "second, of the same author"]) await ada.say(text);
      await ada.settled();
      await failAll(ada);
      await ada.say("never sent");
      await until("a refusal", async () => /not sent/.test((await ada.pending())[0]?.fate));
      assert.deepEqual(await violations(ada.page), [], "the chat");
      for (const button of ["#show-boards", "#show-people"]) {
        if (!(await ada.page.isVisible(button))) continue;
        await ada.page.click(button);
        await ada.page.waitForTimeout(300);
        assert.deepEqual(await violations(ada.page), [], button);
        await ada.page.keyboard.press("Escape");
      }
      if (await ada.page.isVisible("#show-people")) await ada.page.click("#show-people");
      await ada.page.click("#cluster summary");
      await ada.page.waitForSelector("#cluster-nodes li .state");
      await ada.page.waitForTimeout(300);
      assert.deepEqual(await violations(ada.page), [], "the cluster");
    },
  ]),
  ...SIZES.filter(([size]) => !size.includes("dark")).map(([size, options]) => [
    `the keyboard alone is enough at ${size}`,
    async (world) => {
      const narrow = options.viewport.width < 600;
      const ada = await at(world, options);
      const { page } = ada;
      await page.waitForSelector("#join-form:not([hidden])");
      assert.equal(await focused(page), "join-name");
      await page.keyboard.type("Ada by keyboard");
      await page.keyboard.press("Enter");
      await ada.online();
      if (narrow) {
        await tabTo(page, "show-boards");
        await page.keyboard.press("Enter");
      }
      const board = narrow ? "narrow" : "wide";
      await tabTo(page, "new-board-name");
      await page.keyboard.type(board);
      await page.keyboard.press("Enter");
      await until("the new board", async () => (await page.textContent("#board-name")) === board);
      if (narrow) {
        assert.equal(await focused(page), "show-boards", "back at what opened the side");
        await page.keyboard.press("Enter");
      }
      await page.keyboard.press("Shift+Tab");
      await until("a board in focus", async () => {
        if ((await focused(page)).startsWith("button lobby")) return true;
        await page.keyboard.press("Tab");
        return false;
      });
      await page.keyboard.press("Enter");
      await until("the lobby", async () => (await page.textContent("#board-name")) === "lobby");
      assert.equal(await focused(page), narrow ? "show-boards" : "button lobby", "the focus stays");
      await tabTo(page, "text");
      await page.keyboard.type(`by keyboard, ${board}`);
      await page.keyboard.press("Enter");
      await ada.sees(`by keyboard, ${board}`);
      assert.equal(await focused(page), "text");
      await ada.settled();
      if (narrow) {
        await page.focus("#text");
        for (let n = 0; n < 20 && (await focused(page)) !== "show-people"; n += 1)
          await page.keyboard.press("Shift+Tab");
        await page.keyboard.press("Enter");
        await page.keyboard.press("Escape");
        assert.equal(await focused(page), "show-people", "Escape closes a side and gives the focus back");
        await page.keyboard.press("Enter");
      }
      await tabTo(page, "leave");
      await page.keyboard.press("Enter");
      await page.waitForSelector("#join-form:not([hidden])");
    },
  ]),
  [
    "the focus stays over what is drawn again",
    async (world) => {
      const ada = await at(world);
      await ada.join("Ada");
      const ben = await (await at(world, {}, 1)).join("Ben");
      await ada.page.focus('#boards button:has-text("lobby")');
      await ben.page.fill("#new-board-name", "another");
      await ben.page.press("#new-board-name", "Enter");
      await ben.say("there is something new");
      await ada.page.evaluate(() => (document.hasFocus = () => true));
      await until(
        "a count",
        async () => (await ada.page.locator('#boards button:has-text("another") .new').count()) > 0,
        40_000,
      );
      assert.equal(await focused(ada.page), "button lobby", "of the boards");
      await failAll(ada);
      await ada.say("refused once");
      await until("a refusal", async () => /not sent/.test((await ada.pending())[0]?.fate));
      await ada.page.focus('#pending button:has-text("Retry")');
      await ada.page.keyboard.press("Enter");
      await until("a second refusal", async () => /not sent/.test((await ada.pending())[0]?.fate));
      assert.match(await focused(ada.page), /^(button Retry|text)$/, "of what waits");
      await ada.page.focus('#pending button:has-text("Cancel")');
      await ada.page.keyboard.press("Enter");
      await ada.settled();
      assert.equal(await focused(ada.page), "text", "of what is gone");
    },
  ],
  [
    "every post has its author and time for a screen reader, and main is a landmark",
    async (world) => {
      const ada = await (await at(world)).join("Ada");
      await ada.say("one of two");
      await ada.say("two of two");
      await ada.sees("two of two");
      await ada.settled();
      const tree = await ada.page.locator("main:visible").ariaSnapshot();
      for (const text of ["one of two", "two of two"]) {
        const item = tree.split("- listitem").find((part) => part.includes(text));
        assert.ok(item?.includes(ada.name), `${text}: ${tree}`);
        assert.match(item, /time/, text);
      }
    },
  ],
  [
    "with many people the way out stays in view",
    async (world) => {
      const { cluster } = world;
      const crowd = await Crowd.at(cluster.url(cluster.masters[1]), "Person", 150);
      try {
        const ada = await (await at(world)).join("Ada");
        await until("many people", async () => (await ada.people()).length >= 150, 20_000);
        for (const id of ["leave", "cluster"]) {
          const box = await ada.page.locator(`#${id}`).boundingBox();
          assert.ok(box && box.y + box.height <= 760, `${id} at ${JSON.stringify(box)}`);
        }
      } finally {
        crowd.close();
      }
    },
  ],
  [
    "unread posts of other boards are in the title and, on a narrow page, at the button",
    async (world) => {
      const ada = await at(world, { viewport: { width: 320, height: 640 } });
      const ben = await (await at(world, {}, 1)).join("Ben");
      await ben.page.fill("#new-board-name", "elsewhere");
      await ben.page.press("#new-board-name", "Enter");
      await until("board", async () => (await ben.page.textContent("#board-name")) === "elsewhere");
      await ada.join("Ada");
      for (const text of ["one", "two"]) await ben.say(text);
      await until("a badge", async () => (await ada.page.textContent("#unread-narrow")) === "2 unread");
      assert.ok(await ada.page.isVisible("#unread-narrow"));
      assert.match(await ada.page.title(), /^\(2\) #lobby/);
      await ada.page.click("#show-boards");
      await ada.page.click('#boards button:has-text("elsewhere")');
      await until("a plain title", async () => (await ada.page.title()).startsWith("#elsewhere"));
    },
  ],
];

// What the gate asks: axe at both widths, each in one of the two schemes, and the keyboard at both widths.
export const short = checks.filter(([what]) =>
  /^(axe finds nothing at (1280 pixels|320 pixels in the dark)|the keyboard alone is enough at .*)$/.test(what),
);
