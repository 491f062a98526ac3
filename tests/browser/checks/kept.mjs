// The page's parts that keep something over time, without a browser: tickets, unsent posts, read marks.

import assert from "node:assert/strict";

import { Boards } from "../../../src/http/page/boards.js";
import { hasPassed, Wait } from "../../../src/http/page/clock.js";
import { Outbox, readEntry } from "../../../src/http/page/outbox.js";
import { Ticket } from "../../../src/http/page/ticket.js";

const HOUR_MS = 3_600_000;
// The ids sort the other way round than the posts were written.
const [A, B] = ["f", "1"].map((digit) => `${digit}f0e8c5a-9d0b-4b6e-8a57-6f2f0d9a7c11`);

export const checks = [
  [
    "a wait is over by either clock, and by one that was set back",
    () =>
      world(async (clock) => {
        const passed = [109, 110, 99].map((now) => hasPassed(10, 100, now));
        assert.deepEqual(passed, [false, true, true]);
        const wait = new Wait(0);
        assert.ok(wait.isOver);
        for (const [day, own, is] of [
          [9, 9, false],
          [10, 0, true],
          // It was set back by as much as passed.
          [0, 10, true],
          [-1, 0, true],
        ]) {
          wait.begin(10);
          assert.equal(wait.isOver, false);
          clock.day += day;
          clock.own += own;
          assert.equal(wait.isOver, is, `${day} ms and ${own} ms later`);
        }
      }),
  ],
  [
    "a ticket is renewed in time, also after the clock was set back",
    () =>
      world(async (clock, server) => {
        server.answer = () => [201, { ticket: "t" }];
        const ticket = new Ticket();
        const asked = async () => {
          await Promise.all([ticket.renew(), ticket.renew()]);
          return server.asked.length;
        };
        assert.equal(await asked(), 1);
        assert.equal(await asked(), 1, "it is new");
        clock.day -= HOUR_MS;
        assert.equal(await asked(), 2);
        assert.equal(await asked(), 2, "it is new again");
        clock.day += 4 * 60_000;
        assert.equal(await asked(), 3, "the machine slept");
        server.answer = () => [503, {}];
        clock.own += 4 * 60_000;
        assert.equal(await asked(), 4);
        assert.equal(await asked(), 4, "after a refusal there is a pause");
        clock.day -= HOUR_MS;
        assert.equal(await asked(), 5);
      }),
  ],
  [
    "unsent posts keep their order when the clock is set back",
    () =>
      world(async (clock) => {
        // As a page of an earlier version wrote them, and as this one does.
        for (const turns of [[], [clock.day + HOUR_MS, clock.day + HOUR_MS + 1]]) {
          const store = new Store();
          store.putEntry(entry(A, { text: "A", at: clock.day + HOUR_MS, turn: turns[0] }));
          store.putEntry(entry(B, { text: "B", at: clock.day + HOUR_MS + 1, turn: turns[1] }));
          const box = outbox(store);
          assert.deepEqual(texts(box), ["A", "B"]);
          box.add("lobby", "C");
          box.add("lobby", "D");
          box.put({ ...box.all()[0], tries: 1 });
          assert.deepEqual(texts(box), ["A", "B", "C", "D"]);
          assert.deepEqual(texts(outbox(store)), ["A", "B", "C", "D"], "after a reload too");
        }
      }),
  ],
  [
    "unsent posts keep their order however often a tab shares one of them",
    () =>
      world(async (clock) => {
        clock.day += HOUR_MS;
        const shared = [];
        const first = outbox(new Store(), shared);
        first.add("lobby", "A");
        first.add("lobby", "B");
        clock.day -= HOUR_MS;
        const follower = outbox(new Store());
        const [a, b] = shared.map((word) => JSON.parse(JSON.stringify(word)));
        for (const { id, entry: raw } of [a, b, a]) {
          clock.day += 5;
          follower.onOtherTab(id, raw);
        }
        assert.deepEqual(texts(follower), ["A", "B"]);
        // A leader of an earlier version knows no turns, and cuts the time.
        const { turn: _, ...old } = { ...a.entry, at: clock.day + 60_000, tries: 1 };
        follower.onOtherTab(a.id, old);
        assert.deepEqual(texts(follower), ["A", "B"]);
        assert.equal(follower.all()[0].turn, a.entry.turn);
        follower.onOtherTab(a.id, null);
        assert.deepEqual(texts(follower), ["B"]);
      }),
  ],
  [
    "what two tabs write stands in the order of writing, in both the same",
    () =>
      world(async (clock) => {
        const store = new Store();
        const [first, second] = [outbox(store), outbox(store)];
        clock.day += HOUR_MS;
        first.add("lobby", "A");
        clock.day -= HOUR_MS;
        // It has not heard of the other's yet.
        second.add("lobby", "B");
        assert.deepEqual(texts(outbox(store)), ["A", "B"]);
        const at = { at: clock.day, turn: clock.day };
        const both = [entry(A, { text: "A", ...at }), entry(B, { text: "B", ...at })];
        const orders = [both, both.toReversed()].map((entries) => {
          const box = outbox(new Store());
          for (const one of entries) box.onOtherTab(one.id, one);
          return texts(box);
        });
        assert.deepEqual(orders[0], orders[1], "of one moment");
      }),
  ],
  [
    "a page of an earlier version and this one agree about the order",
    () =>
      world(async (clock) => {
        const store = new Store();
        store.putEntry(entry(A, { text: "old", at: clock.day }));
        outbox(store).add("lobby", "new");
        const next = store.entries().reduce((last, { at }) => Math.max(last, at + 1), clock.day);
        store.putEntry(entry(B, { text: "old again", at: next }));
        assert.deepEqual(texts(outbox(store)), ["old", "new", "old again"]);
        const byTime = store.entries().sort((a, b) => a.at - b.at);
        assert.deepEqual(byTime.map(({ text }) => text), ["old", "new", "old again"]);
      }),
  ],
  [
    "a post's turn has bounds, and one of a stranger's link follows one's own",
    () =>
      world(async (clock) => {
        for (const turn of [-1, 1.5, 1e300, "7", null, undefined])
          assert.equal(readEntry(entry(A, { at: 5, turn })).turn, 5, String(turn));
        assert.equal(readEntry(entry(A, { at: 1e300 })).turn, clock.day);
        assert.equal(readEntry(entry(A, { at: 5, turn: 7 })).turn, 7);
        const store = new Store();
        const box = outbox(store);
        box.add("lobby", "one's own");
        box.adopt([entry(A, { text: "a stranger's", turn: Number.MAX_SAFE_INTEGER })], "it came with a link");
        for (const text of ["C", "D", "E"]) box.add("lobby", text);
        for (const now of [box, outbox(store)])
          assert.deepEqual(texts(now), ["one's own", "a stranger's", "C", "D", "E"]);
        assert.ok(Number.isSafeInteger(box.all().at(-1).turn));
      }),
  ],
  [
    "a post without an outcome can be cancelled, also after the clock was set back",
    () =>
      world(async (clock, server) => {
        const box = outbox(new Store());
        box.add("lobby", "A");
        let passed = 0;
        server.answer = () => {
          clock.day += passed;
          throw new TypeError("no answer");
        };
        const late = async (ms) => {
          passed = ms;
          await box.trySend(box.all()[0]);
          return box.all()[0].late;
        };
        assert.equal(await late(1000), false);
        assert.equal(await late(9000), true);
        box.retry(box.all()[0].id);
        assert.equal(await late(1000), false);
        assert.equal(await late(-HOUR_MS), true);
      }),
  ],
  [
    "of a backup that was restored a page knows as read what the backup says, and says it again",
    () =>
      world(async (_clock, server) => {
        const said = () => server.asked.map(({ path, body }) => [path.split("/").at(-2), body.seq]);
        let restored = 0;
        const boards = listed([board("lobby", 100, 90), board("dev", 5, 5)], 7, () => (restored += 1));
        const marks = () => boards.list.map(({ read_mark }) => read_mark);
        boards.see("lobby", 100);
        await boards.marks.say();
        boards.take([board("dev", 6, 5), board("lobby", 100, 90)], 7);
        assert.deepEqual([marks(), boards.unreadElsewhere, restored], [[5, 100], 1, 0], "read here is read");
        boards.see("dev", 6);
        boards.take([board("dev", 2, 2), board("lobby", 60, 40)], 8);
        assert.deepEqual([marks(), boards.unreadElsewhere, restored], [[2, 40], 20, 1]);
        await boards.marks.say();
        assert.deepEqual(said(), [["lobby", 100]], "what was read before is not said of the backup");
        boards.take([board("dev", 2, 2), board("lobby", 61, 40)], 8);
        assert.equal(restored, 1);
        boards.see("lobby", 61);
        await boards.marks.say();
        assert.deepEqual(said(), [["lobby", 100], ["lobby", 61]]);
      }),
  ],
];

// Two clocks that move only when they are set, and a server that says what it is told to.
async function world(run) {
  const own = { day: Date.now, own: performance.now, fetch: globalThis.fetch };
  const clock = { day: 1_800_000_000_000, own: 1000 };
  const server = { asked: [], answer: () => [204, null] };
  Date.now = () => clock.day;
  performance.now = () => clock.own;
  globalThis.fetch = async (path, { body }) => {
    server.asked.push({ path, body: body === undefined ? null : JSON.parse(body) });
    const [status, json] = server.answer();
    const text = async () => (json === null ? "" : JSON.stringify(json));
    return { status, headers: new Headers(), text };
  };
  try {
    await run(clock, server);
  } finally {
    Date.now = own.day;
    performance.now = own.own;
    globalThis.fetch = own.fetch;
  }
}

// What a browser stores, in no order of its own.
class Store {
  constructor() {
    this.kept = new Map();
  }

  entries() {
    return [...this.kept.values()].reverse().map((text) => JSON.parse(text));
  }

  putEntry(one) {
    this.kept.set(one.id, JSON.stringify(one));
  }

  dropEntry(id) {
    this.kept.delete(id);
  }
}

const entry = (id, rest) => ({ id, board: "lobby", text: "x", tries: 0, state: "sending", ...rest });

function outbox(store, shared = []) {
  const nothing = () => {};
  const onShare = (id, one) => shared.push({ id, entry: one });
  return new Outbox(store, { onChange: nothing, onSettled: nothing, onShare, onLoggedOut: nothing });
}

const texts = (box) => box.of("lobby").map(({ text }) => text);

const board = (name, last_seq, read_mark) => ({ name, last_seq, read_mark });

// A list of boards that is not drawn, while another board is read.
function listed(boards, epoch, onRestored) {
  const own = globalThis.document;
  globalThis.document = { getElementById: () => ({ addEventListener: () => {} }) };
  try {
    const list = new Boards(boards, epoch, { current: () => "other", onRestored });
    list.draw = () => {};
    return list;
  } finally {
    globalThis.document = own;
  }
}
