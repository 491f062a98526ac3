// People in front of a browser: they join, write, read, and notice what should not happen.

import { until } from "./cluster.mjs";

// Whoever closed a page a moment ago is still in the list; so everyone has a name of their own.
let joined = 0;

export class Person {
  // `wrong` gathers what no page may ever do.
  constructor(page, context, wrong) {
    this.page = page;
    this.context = context;
    this.wrong = wrong;
    this.streams = 0;
    page.on("dialog", (dialog) => {
      wrong.push(`a dialog: ${dialog.message()}`);
      dialog.dismiss().catch(() => {});
    });
    page.on("pageerror", (error) => wrong.push(`an error in the page: ${error.stack ?? error}`));
    page.on("console", (message) => {
      const text = message.text();
      if (/Content Security Policy|Trusted ?Type|Refused to/i.test(text))
        wrong.push(`against the policy: ${text}`);
    });
    page.on("request", (request) => {
      if (new URL(request.url()).pathname === "/api/v1/stream") this.streams += 1;
    });
  }

  static async at(browser, url, wrong, options = {}) {
    const context = await browser.newContext({ viewport: { width: 1200, height: 760 }, ...options });
    const person = new Person(await context.newPage(), context, wrong);
    await person.page.goto(url);
    return person;
  }

  // Another tab of the same person.
  async tab(url) {
    const other = new Person(await this.context.newPage(), this.context, this.wrong);
    await other.page.goto(url);
    return other;
  }

  // Joins as the next person of this name, or as exactly that.
  async join(name, { exactly = false } = {}) {
    joined += 1;
    this.name = exactly ? name : `${name} ${joined}`;
    await this.page.waitForSelector("#join-form:not([hidden])");
    await this.page.fill("#join-name", this.name);
    await this.page.click("#join-form button");
    await this.online();
    return this;
  }

  // Until the stream is open, optionally on this master.
  async online(url = null, limit_ms = 15_000) {
    if (url) await until(`move to ${url}`, () => new URL(this.page.url()).origin === url, limit_ms);
    await this.page.waitForSelector('#where[data-state="on"]', { timeout: limit_ms });
  }

  // Makes a board, or opens the one of this name.
  async create(board) {
    await this.page.fill("#new-board-name", board);
    await this.page.press("#new-board-name", "Enter");
    await this.on(board);
  }

  // Until this board is shown.
  async on(board) {
    await until(`board ${board}`, async () => (await this.page.textContent("#board-name")) === board);
  }

  // Writes and sends, as a person does: until the text stands in the log, on its way or settled.
  // A page that is on its way to another master takes nothing, and brings along what it took.
  async say(text) {
    const field = this.page.locator("#chat:not([hidden]) #text");
    await until(
      "sending",
      async () => {
        try {
          await field.fill(text, { timeout: 2000 });
          await field.press("Enter", { timeout: 2000 });
        } catch {
          // Frozen, or gone for the next page.
        }
        return this.shows(text);
      },
      15_000,
    );
  }

  // Whether a text stands in the log soon; the next page may be on its way.
  async shows(text, limit_ms = 2000) {
    const is = (entry) => entry.text === text;
    const look = async () => (await this.pending()).some(is) || (await this.posts()).some(is);
    return until("a text in the log", look, limit_ms).catch(() => false);
  }

  // All settled posts in view, as {seq, who, text}.
  posts() {
    return this.page.evaluate(() => {
      let who = "";
      return [...document.querySelectorAll("#posts .post")].map((row) => {
        who = row.classList.contains("first") ? row.querySelector(".who").textContent : who;
        const said = row.querySelector(".said").cloneNode(true);
        said.querySelector(".tick")?.remove();
        return { seq: Number(row.dataset.seq), who, text: said.textContent };
      });
    });
  }

  sees(text, limit_ms = 5000) {
    return until(
      `post ${JSON.stringify(text.slice(0, 60))}`,
      async () => (await this.posts()).find((post) => post.text === text),
      limit_ms,
    );
  }

  async count(text) {
    return (await this.posts()).filter((post) => post.text === text).length;
  }

  pending() {
    return this.page.evaluate(() =>
      [...document.querySelectorAll("#pending .post")].map((row) => ({
        text: row.querySelector(".said").textContent,
        fate: row.querySelector(".fate").textContent,
      })),
    );
  }

  settled(limit_ms = 12_000) {
    return until("settled outbox", async () => (await this.pending()).length === 0, limit_ms);
  }

  people() {
    return this.page.evaluate(() =>
      [...document.querySelectorAll("#people .name")].map((node) => node.firstChild.textContent),
    );
  }

  seesPerson(name, limit_ms = 6000) {
    return until(`${name} in the list`, async () => (await this.people()).includes(name), limit_ms);
  }

  async me() {
    return this.page.evaluate(async () => (await (await fetch("/api/v1/session")).json()).user);
  }

  close() {
    return this.context.close();
  }
}
