// The page's parts that decide, without a browser.

import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";

import { until } from "../cluster.mjs";
import { Board } from "../../../src/http/page/board.js";
import { mergeCursors, readCursor } from "../../../src/http/page/connection.js";
import { dayName } from "../../../src/http/page/dom.js";
import { Roster, SHOWN_MAX } from "../../../src/http/page/roster.js";
import { readRoute } from "../../../src/http/page/route.js";
import { mentionsName, pieces } from "../../../src/http/page/text.js";
import { read } from "../../../src/http/page/api.js";
import { Election, SILENCE_MS } from "../../../src/http/page/election.js";
import { sleep, Waker } from "../../../src/http/page/numbers.js";
import { readEntry } from "../../../src/http/page/outbox.js";
import { readDrafts } from "../../../src/http/page/local.js";
import { EVENTS, isFate, isPage, isPost } from "../../../src/http/page/shapes.js";

const ID = "3f0e8c5a-9d0b-4b6e-8a57-6f2f0d9a7c11";
const POST = {
  id: ID,
  board: "lobby",
  seq: 7,
  author: { id: "0".repeat(32), name: "Ada" },
  text: "hello",
  posted_at: 1_700_000_000_000,
};
const problem = (kind) => JSON.stringify({ type: `urn:chatchat:${kind}`, detail: "why" });

const PAGE = new URL("../../../src/http/page/", import.meta.url);

export const checks = [
  [
    "what a module takes from another by its name is there",
    async () => {
      for (const file of (await readdir(PAGE)).filter((name) => name.endsWith(".js"))) {
        const source = await readFile(new URL(file, PAGE), "utf8");
        for (const [, name, from] of source.matchAll(/import \* as (\w+) from "\.\/([\w.]+)"/g)) {
          const exported = await readFile(new URL(from, PAGE), "utf8");
          for (const [, used] of source.matchAll(new RegExp(`\\b${name}\\.(?!js\\b)(\\w+)`, "g"))) {
            const is = new RegExp(`^export (async )?(const|function|class) ${used}\\b`, "m");
            assert.match(exported, is, `${file} uses ${name}.${used}`);
          }
        }
      }
    },
  ],
  [
    "an answer counts only if status and body are ours",
    async () => {
      const written = (json) => isPost(json) && json.id === ID;
      const wanted = { 200: written, 201: written, 202: isFate(ID, ["pending"]), 204: null };
      const status = (code, body) => read(code, null, body, wanted).status;
      assert.equal(status(201, JSON.stringify(POST)), 201);
      assert.equal(status(200, JSON.stringify(POST)), 200);
      assert.equal(status(202, JSON.stringify({ id: ID, state: "pending", copies: 2 })), 202);
      assert.equal(status(204, ""), 204);
      for (const kind of ["unknown-session", "cancelled", "broken"]) {
        assert.equal(read(401, null, problem(kind), wanted).kind, kind);
      }
      const strange = [
        [200, "<html>Sign in to the network</html>"],
        [200, ""],
        [200, "null"],
        [200, JSON.stringify({ ...POST, id: ID.replace("3", "4") })],
        [200, JSON.stringify({ ...POST, seq: "7" })],
        [206, JSON.stringify(POST)],
        [202, JSON.stringify({ id: "x", state: "pending" })],
        [204, "<html>"],
        [401, "<html>"],
        [403, JSON.stringify({ error: "blocked" })],
        [503, "upstream"],
        [200, problem("unknown-session")],
      ];
      for (const [code, body] of strange) assert.equal(status(code, body), 0, `${code} ${body}`);
    },
  ],
  [
    "a page of posts is of the board that was asked for",
    async () => {
      const page = { posts: [POST], last_seq: 7, truncated: false, epoch: 1 };
      assert.ok(isPage("lobby")(page));
      assert.ok(!isPage("dev")(page));
      assert.ok(!isPage("lobby")({ ...page, posts: [{ ...POST, author: null }] }));
    },
  ],
  [
    "a wait that a server asks for is cut to a few seconds",
    async () => {
      const wait = (after) => read(503, after, problem("unavailable"), {}).retry_ms;
      assert.equal(wait("3"), 3000);
      for (const after of ["3600", "2147484", "1e300", "Infinity"]) assert.equal(wait(after), 10_000, after);
      for (const after of [null, "", "0", "-5", "soon", "Fri, 31 Dec 2099 23:59:59 GMT"])
        assert.equal(wait(after), 1000, after);
    },
  ],
  [
    "a sleep longer than a timer can count does not end at once",
    async () => {
      for (const ms of [2 ** 31, Number.NaN, Number.POSITIVE_INFINITY]) {
        const waker = new Waker();
        const first = await Promise.race([sleep(ms).then(() => "slept"), sleep(50).then(() => "not yet")]);
        assert.equal(first, "not yet", String(ms));
        const waited = waker.wait(ms).then(() => "woken");
        waker.wake();
        assert.equal(await waited, "woken");
      }
    },
  ],
  [
    "a post from a link or a store has bounds, or is none",
    async () => {
      const now = 1_700_000_000_000;
      const good = { id: ID, board: "lobby", text: "x", at: now, tries: 2, state: "waiting" };
      assert.deepEqual(JSON.parse(JSON.stringify(readEntry(good, now))), { ...good, late: false, turn: now });
      assert.equal(readEntry({ ...good, at: 1e300 }, now).at, now + 60_000);
      assert.equal(readEntry({ ...good, at: "soon" }, now).at, now);
      assert.equal(readEntry({ ...good, tries: -1 }, now).tries, 0);
      assert.equal(readEntry({ ...good, state: "__proto__" }, now).state, "sending");
      for (const bad of [
        null,
        "x",
        { ...good, id: "1" },
        { ...good, board: "A B" },
        { ...good, text: "" },
        { ...good, text: "x".repeat(9000) },
      ])
        assert.equal(readEntry(bad, now), null, JSON.stringify(bad)?.slice(0, 60));
    },
  ],
  [
    "one of many tabs leads, and another when it goes or falls silent",
    async () => {
      const world = new Elections(["c", "a", "b", "d"]);
      world.run(1000);
      assert.deepEqual(world.leaders(), ["a"]);
      world.add("0");
      world.run(1000);
      assert.deepEqual(world.leaders(), ["a"], "who comes later does not take over");
      world.go("a");
      world.run(1000);
      assert.deepEqual(world.leaders(), ["0"]);
      world.hang("0");
      world.run(SILENCE_MS - 3000);
      assert.deepEqual(world.leaders(), ["0"], "a pause is no end");
      world.run(4000);
      assert.deepEqual(world.leaders(), ["0", "b"], "the silent one does not know yet");
      assert.ok(world.tabs.get("c").isConnected(world.now));
      world.wake("0");
      world.run(3000);
      assert.deepEqual(world.leaders(), ["b"]);
    },
  ],
  [
    "a tab that hears no leader is not connected",
    async () => {
      const world = new Elections(["a", "b"]);
      assert.equal(world.tabs.get("b").isConnected(world.now), false);
      world.run(1000);
      assert.equal(world.tabs.get("b").isConnected(world.now), true);
      world.hang("a");
      world.run(SILENCE_MS - 1500);
      world.hang("b");
      assert.equal(world.tabs.get("b").isConnected(world.now + 2000), false);
    },
  ],
  [
    "a text is cut into plain text, code, links, places and mentions",
    async () => {
      const isBoard = (name) => ["lobby", "dev"].includes(name);
      const names = ["Ada", "Ada Lovelace", "Jos\u00e9"];
      const cut = (text) => {
        const found = pieces(text, { isBoard, names });
        const whole = found.map(({ open = "", text: inner, close = "" }) => open + inner + close).join("");
        assert.equal(whole, text, "nothing is lost");
        return found.filter(({ kind }) => kind !== "text").map(({ kind, text: inner }) => `${kind} ${inner}`);
      };
      assert.deepEqual(cut("see https://a.example/x_(y)?q=1#z, or (http://b.example)."), [
        "link https://a.example/x_(y)?q=1#z",
        "link http://b.example",
      ]);
      assert.deepEqual(cut("javascript:alert(1) data:text/html,x //x.example ftp://y https://"), []);
      assert.deepEqual(cut("run `a @Ada #lobby https://x.example` now"), [
        "code a @Ada #lobby https://x.example",
      ]);
      assert.deepEqual(cut("```sh\nls `x`\n\nls\n``` after ```"), ["block ls `x`\n\nls"]);
      assert.deepEqual(cut("```\n```"), ["block "]);
      assert.deepEqual(cut("#lobby/12, #dev and #none, a#lobby, #lobby-x, &#lobby"), [
        "place #lobby/12",
        "place #dev",
      ]);
      assert.deepEqual(cut("@ada lovelace, @Adam, x@Ada, (@JOS\u00c9)"), [
        "mention @ada lovelace",
        "mention @JOS\u00c9",
      ]);
      assert.ok(mentionsName("well, @Ada?", "Ada"));
      assert.ok(!mentionsName("well, `@Ada`?", "Ada"));
      const begun = performance.now();
      for (const text of ["@", "`", "```\n", "#", "http://", "(", "https://a.b)"])
        cut(text.repeat(8192 / text.length));
      assert.ok(performance.now() - begun < 2000, "a hostile text costs no time");
    },
  ],
  [
    "an address names a board, or a post of it",
    async () => {
      assert.deepEqual(readRoute("#lobby"), { board: "lobby", seq: null });
      assert.deepEqual(readRoute("#lobby/123"), { board: "lobby", seq: 123 });
      for (const bad of [
        "",
        "#",
        "#move=x",
        "#Lobby",
        "#lobby/",
        "#lobby/0",
        "#lobby/1e9",
        "#lobby/9999999999999999",
      ])
        assert.equal(readRoute(bad), null, bad);
    },
  ],
  [
    "a day is named by the calendar, also when the clock changes",
    async () => {
      const zone = process.env.TZ;
      process.env.TZ = "Europe/Berlin";
      try {
        const at = (...parts) => new Date(...parts).getTime();
        // 25 hours in October, 23 in March.
        assert.equal(dayName(at(2026, 9, 24, 23, 30), at(2026, 9, 25, 23, 45)), "Yesterday");
        assert.equal(dayName(at(2026, 2, 28, 12), at(2026, 2, 29, 23, 59)), "Yesterday");
        assert.equal(dayName(at(2026, 2, 28, 23, 59), at(2026, 2, 30, 0, 30)).includes("Yesterday"), false);
        assert.equal(dayName(at(2026, 9, 25, 0, 10), at(2026, 9, 26, 0, 5)), "Yesterday");
        assert.equal(dayName(at(2026, 9, 25, 0, 1), at(2026, 9, 25, 23, 59)), "Today");
        assert.match(dayName(at(2027, 0, 3), at(2026, 9, 25)), /2027/, "a day to come has its year");
        assert.match(dayName(at(2025, 0, 3), at(2026, 9, 25)), /2025/);
      } finally {
        if (zone === undefined) delete process.env.TZ;
        else process.env.TZ = zone;
      }
    },
  ],
  [
    "a stream goes on where it was, and elsewhere where the page is",
    async () => {
      const both = ["lobby", "dev"];
      assert.equal(mergeCursors("", "7;lobby:3", both), "7;lobby:3");
      assert.equal(mergeCursors("7;lobby:5", "7;lobby:3,dev:9", both), "7;lobby:5,dev:9");
      assert.equal(mergeCursors("8;lobby:1", "7;lobby:3,dev:9", both), "8;lobby:1");
    },
  ],
  [
    "a stream's cursor names only boards that are asked for, however many were told",
    async () => {
      const names = Array.from({ length: 33 }, (_, n) => `b${n}`);
      const told = `7;${names.slice(0, 32).map((name) => `${name}:5`).join(",")}`;
      const boards = [names[32], ...names.slice(0, 31)];
      const known = `7;${boards.map((name) => `${name}:3`).join(",")}`;
      for (const [before, epoch] of [
        [told, "7"],
        ["", "7"],
        [told.replace("7;", "8;"), "8"],
      ]) {
        const merged = readCursor(mergeCursors(before, known, boards));
        assert.equal(merged.epoch, epoch);
        assert.ok(merged.places.size >= 31 && merged.places.size <= 32, `${merged.places.size} places`);
        for (const name of merged.places.keys()) assert.ok(boards.includes(name), name);
      }
      const { places } = readCursor(mergeCursors(told, known, boards));
      assert.deepEqual([places.get("b32"), places.get("b0"), places.has("b31")], ["3", "5", false]);
    },
  ],
  [
    "a board is read up to where it is known to go, and no word of an end is asked about for ever",
    async () => {
      const posts = [1, 2, 3].map((seq) => ({ ...POST, seq }));
      const [shown, asked] = [[], []];
      const log = {
        get last() {
          return shown.at(-1) ?? null;
        },
        append: ({ seq }) => shown.push(seq),
      };
      const own = globalThis.fetch;
      globalThis.fetch = async (path) => {
        const after = Number(new URL(path, "http://page.example").searchParams.get("after"));
        asked.push(after);
        const page = { posts: posts.filter(({ seq }) => seq > after), last_seq: 3, truncated: false };
        return { status: 200, headers: new Headers(), text: async () => JSON.stringify(page) };
      };
      try {
        const board = new Board(log, () => {});
        board.name = "lobby";
        board.reach(Number.NaN);
        board.reach(2);
        await until("what was missing", () => shown.length === 3);
        board.reach(3);
        assert.deepEqual([shown, asked], [[1, 2, 3], [0]]);
        board.reach(9);
        await sleep(200);
        assert.deepEqual([shown, asked], [[1, 2, 3], [0, 3]]);
      } finally {
        globalThis.fetch = own;
      }
    },
  ],
  [
    "a roster follows changes, and says when a version is missing",
    async () => {
      const roster = new Roster();
      const known = () => roster.shown({ id: "" }).map(({ name }) => name);
      const change = (since, came, left, total) => ({ version: since + 1, since, came, left, total });
      assert.equal(roster.take(change(0, [person(1)], [], 1)), false, "there is no list yet");
      assert.ok(roster.take({ version: 4, total: 2, users: [person(2), person(1)] }));
      assert.deepEqual(known(), ["Person 001", "Person 002"]);
      assert.ok(roster.take(change(4, [person(3)], [person(1).id, person(9).id], 2)));
      assert.deepEqual([known(), roster.total, roster.live], [["Person 002", "Person 003"], 2, true]);
      assert.equal(roster.take(change(6, [person(5)], [], 4)), false, "5 to 6 is missing");
      assert.deepEqual([known(), roster.live], [["Person 002", "Person 003"], false]);
      // The answer is of a version before a change that came meanwhile.
      assert.ok(roster.take({ version: 6, total: 3, consistency: "strong", users: [person(2), person(3), person(4)] }));
      assert.deepEqual([roster.version, known().length, roster.total, roster.live], [7, 4, 4, true]);
      assert.ok(roster.take({ version: 1, total: 1, users: [person(1)] }), "a new stream");
      assert.deepEqual(known(), ["Person 001"]);
      assert.ok(roster.take({ users: [person(1), person(2)] }), "a master of an earlier version");
      assert.deepEqual([roster.total, roster.live, known().length], [2, false, 2]);
    },
  ],
  [
    "a roster of many shows a window and oneself",
    async () => {
      const roster = new Roster();
      const users = Array.from({ length: SHOWN_MAX + 2 }, (_, n) => person(n));
      roster.take({ version: 1, total: 1500, users });
      assert.equal(roster.shown(person(0)).length, SHOWN_MAX);
      const shown = roster.shown(person(SHOWN_MAX + 1));
      assert.deepEqual([shown.length, shown.at(-1)], [SHOWN_MAX + 1, person(SHOWN_MAX + 1)]);
      assert.equal(roster.thin, false);
      const left = users.slice(0, 150).map(({ id }) => id);
      roster.take({ version: 2, since: 1, total: 1350, came: [], left });
      assert.equal(roster.thin, true, "of so many it knows few");
    },
  ],
  [
    "an event of people is a list, a window or a change, and nothing else",
    async () => {
      const is = EVENTS.presence;
      const change = { version: 2, since: 1, total: 1, came: [person(1)], left: [person(2).id] };
      assert.ok(is({ users: [] }) && is({ version: 1, total: 0, users: [] }) && is(change));
      for (const bad of [null, {}, { users: [{}] }, { users: [], version: -1 }])
        assert.ok(!is(bad), JSON.stringify(bad));
      for (const key of ["version", "since", "total", "came", "left"])
        assert.ok(!is({ ...change, [key]: "x" }), key);
      assert.ok(!is({ ...change, left: ["x"] }));
    },
  ],
  [
    "drafts from a link or a store have bounds",
    async () => {
      assert.deepEqual(readDrafts(null), []);
      assert.deepEqual(readDrafts({ lobby: "a", "no board": "b", dev: 7 }), [["lobby", "a"]]);
      assert.equal(readDrafts({ lobby: "x".repeat(1e6) })[0][1].length, 65_536);
    },
  ],
];

const person = (n) => ({
  id: String(n).padStart(32, "0"),
  name: `Person ${String(n).padStart(3, "0")}`,
  since: 1,
  last_seen: 2,
});

// Tabs of one browser on one channel, with a clock of their own.
class Elections {
  constructor(ids) {
    this.now = 0;
    this.tabs = new Map();
    this.hung = new Set();
    this.missed = new Map();
    for (const id of ids) this.add(id);
  }

  add(id) {
    this.tabs.set(id, new Election(id));
  }

  go(id) {
    const words = this.tabs.get(id).leave();
    this.tabs.delete(id);
    this.say(id, words);
  }

  hang(id) {
    this.hung.add(id);
    this.missed.set(id, []);
  }

  // What was said meanwhile is heard at once.
  wake(id) {
    this.hung.delete(id);
    for (const word of this.missed.get(id)) this.say(id, this.tabs.get(id).hear(word, this.now));
  }

  leaders() {
    return [...this.tabs.values()]
      .filter((tab) => tab.leading)
      .map((tab) => tab.id)
      .sort();
  }

  run(ms) {
    for (const end = this.now + ms; this.now < end; this.now += 250) {
      for (const [id, tab] of this.tabs) if (!this.hung.has(id)) this.say(id, tab.tick(this.now));
    }
  }

  say(from, words) {
    for (const word of words) {
      for (const [id, tab] of this.tabs) {
        if (id === from) continue;
        if (this.hung.has(id)) this.missed.get(id).push(word);
        else this.say(id, tab.hear(word, this.now));
      }
    }
  }
}
