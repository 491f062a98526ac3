// Posts that are not settled yet.
//
// 1. An id is drawn once and kept over retries, reloads and moves: however often it is sent, it
//    makes one post.
// 2. At most one post of a board is on its way; the others wait behind it, in the order written.
// 3. A post leaves only when it has a place in its board, was refused, or was cancelled for good.

import { cancelPost, uuid, writePost } from "./api.js";
import { hasPassed } from "./clock.js";
import { Waker, within } from "./numbers.js";
import { isBoardName, isCount, UUID } from "./shapes.js";

// After this long without an outcome a person is offered to cancel.
const PATIENCE_MS = 8000;
const BACKOFF_MIN_MS = 300;
const BACKOFF_MAX_MS = 4000;

const ENTRIES_MAX = 1000;
const TEXT_LENGTH_MAX = 8 * 1024;
const WHY_LENGTH_MAX = 200;
const TRIES_MAX = 1_000_000;
// Posts written in one moment are numbered into the future, by less than this.
const AHEAD_MAX_MS = 60_000;

// A post as a link, another tab or the browser's store hands it in, or null when this page never wrote
// such. Its turn gives the order and stays as it was written, however the clock is set since. A page of an
// earlier version leaves it out: then the `turn` that is known here counts, or else the time.
export function readEntry(raw, now = Date.now(), turn = undefined) {
  if (raw === null || typeof raw !== "object") return null;
  const { id, board, text, at, tries, state, why, cancel, late, since } = raw;
  if (typeof id !== "string" || !UUID.test(id) || !isBoardName(board)) return null;
  if (typeof text !== "string" || text === "" || text.length > TEXT_LENGTH_MAX) return null;
  const known = ["sending", "waiting", "failed"].includes(state);
  return {
    id,
    board,
    text,
    turn: [raw.turn, turn, at].find(isCount) ?? now,
    at: within(0, now + AHEAD_MAX_MS, at, now),
    tries: within(0, TRIES_MAX, tries),
    state: known ? state : "sending",
    why: typeof why === "string" ? why.slice(0, WHY_LENGTH_MAX) : undefined,
    cancel: cancel === true || undefined,
    late: late === true,
    since: since === undefined ? undefined : within(0, now, since, now),
  };
}

const stored = (local) =>
  local
    .entries()
    .slice(0, ENTRIES_MAX)
    .map((raw) => readEntry(raw))
    .filter(Boolean);

// The order of writing, the same in all tabs, also of what two of them took at once.
const byTurn = (a, b) => a.turn - b.turn || (a.id < b.id ? -1 : 1);

const REFUSED = {
  413: "it is too long",
  422: "it cannot be taken",
  404: "there is no such board",
  403: "this page may not write",
  400: "it cannot be taken",
};

export class Outbox {
  // `onChange()` when something is to be drawn again; `onSettled(entry, post)` with the post when
  // it is in its board, with null when it never will be; `onShare(id, entry)` for the other tabs,
  // null for one that is gone; `onLoggedOut()`.
  constructor(local, { onChange, onSettled, onShare, onLoggedOut }) {
    Object.assign(this, { local, onChange, onSettled, onShare, onLoggedOut });
    this.entries = new Map(stored(local).map((entry) => [entry.id, entry]));
    this.driving = new Set();
    this.leading = false;
    this.waker = new Waker();
  }

  of(board) {
    return this.all().filter((entry) => entry.board === board);
  }

  all() {
    return [...this.entries.values()].sort(byTurn);
  }

  // The turn after all that wait, also after what another tab took a moment ago.
  nextTurn() {
    const waiting = [...this.entries.values(), ...stored(this.local)];
    return Math.max(Date.now(), ...waiting.map(({ turn }) => turn + 1));
  }

  // Takes a post, unless far too many wait already.
  add(board, text) {
    if (this.entries.size >= ENTRIES_MAX) return false;
    const turn = this.nextTurn();
    // A page of an earlier version goes by the time.
    this.put({ id: uuid(), board, text, turn, at: turn, tries: 0, state: "sending" });
    this.drive(board);
    return true;
  }

  // Takes posts that were carried here. With a `doubt` they say it, and wait for a click.
  adopt(entries, doubt) {
    let turn = this.nextTurn();
    for (const raw of entries.slice(0, ENTRIES_MAX)) {
      const brought = readEntry(raw);
      if (brought === null) continue;
      const { id, state, why, cancel } = brought;
      const withdrawn = cancel === true && !doubt;
      // An earlier move may have left it here, from before it was withdrawn.
      const here = this.entries.get(id);
      if (here && !withdrawn) continue;
      const unknown = doubt ? { since: undefined, late: false, turn: turn++ } : {};
      const entry = here ?? { ...brought, ...unknown, why: undefined, cancel: undefined };
      if (doubt) this.put({ ...entry, state: "failed", why: doubt });
      else if (withdrawn) this.put({ ...entry, cancel, state: "sending", why: undefined });
      else if (state === "failed") this.put({ ...entry, state, why });
      else this.put(entry);
    }
  }

  put(entry) {
    this.entries.set(entry.id, entry);
    this.local.putEntry(entry);
    this.onShare(entry.id, entry);
    this.onChange();
  }

  drop(entry) {
    this.entries.delete(entry.id);
    this.local.dropEntry(entry.id);
    this.onShare(entry.id, null);
    this.onChange();
  }

  lead() {
    this.leading = true;
    this.kick();
  }

  // Nothing is kept for this person: it was handed on.
  forget() {
    for (const id of this.entries.keys()) this.local.dropEntry(id);
  }

  // Somebody else goes on with it.
  rest() {
    this.leading = false;
  }

  // The way is free again: what waits goes now.
  kick() {
    this.waker.wake();
    for (const entry of this.entries.values()) this.drive(entry.board);
  }

  retry(id) {
    const entry = this.entries.get(id);
    if (!entry) return;
    this.put({ ...entry, state: "sending", why: undefined, cancel: undefined, since: Date.now() });
    this.kick();
  }

  cancel(id) {
    const entry = this.entries.get(id);
    if (!entry) return;
    if (entry.tries === 0 && !this.driving.has(entry.board)) {
      this.settle({ ...entry, cancel: true }, null);
      return;
    }
    this.put({ ...entry, cancel: true, state: "sending", why: undefined });
    this.kick();
  }

  // The stream showed it before the answer came.
  seen(post) {
    const entry = this.entries.get(post.id);
    if (entry) this.settle(entry, post);
  }

  onOtherTab(id, raw) {
    const entry = readEntry(raw, Date.now(), this.entries.get(id)?.turn);
    if (entry === null) this.entries.delete(id);
    else this.entries.set(id, entry);
    this.onChange();
    if (this.leading && entry !== null) this.kick();
  }

  settle(entry, post) {
    if (!this.entries.has(entry.id)) return;
    this.drop(entry);
    this.onSettled(entry, post);
  }

  async drive(board) {
    if (!this.leading || this.driving.has(board)) return;
    this.driving.add(board);
    let backoff = BACKOFF_MIN_MS;
    for (;;) {
      const entry = this.of(board).find(({ state }) => state !== "failed");
      if (!entry || !this.leading) break;
      const wait = await (entry.cancel ? this.tryCancel(entry) : this.trySend(entry));
      if (wait === null) {
        backoff = BACKOFF_MIN_MS;
      } else {
        await this.waker.wait(Math.max(wait, backoff));
        backoff = Math.min(backoff * 2, BACKOFF_MAX_MS);
      }
    }
    this.driving.delete(board);
  }

  // One try. Null when it was settled, else how long to wait.
  async trySend(entry) {
    const since = entry.since ?? Date.now();
    this.put({ ...entry, since, tries: entry.tries + 1 });
    const answer = await writePost(entry);
    const now = this.entries.get(entry.id);
    if (!now) return null;
    switch (answer.status) {
      case 200:
      case 201:
        this.settle(now, answer.json);
        return null;
      case 202:
        this.put({ ...now, state: "waiting" });
        return 10_000;
      case 401:
        this.onLoggedOut();
        return 5000;
      case 410:
        this.settle(now, null);
        return null;
      case 503:
        this.put({ ...now, state: "waiting" });
        return answer.retry_ms;
      case 429:
        return answer.retry_ms;
      case 0:
      case 408:
      case 504:
        this.put({ ...now, late: hasPassed(PATIENCE_MS, since) });
        return BACKOFF_MIN_MS;
      default:
        // 500 may pass; the rest is a refusal.
        if (answer.status >= 500) return 1000;
        this.put({ ...now, state: "failed", why: REFUSED[answer.status] ?? answer.detail });
        return null;
    }
  }

  async tryCancel(entry) {
    const answer = await cancelPost(entry.id);
    const now = this.entries.get(entry.id);
    if (!now) return null;
    if (answer.status === 200) {
      this.settle(now, answer.json.state === "committed" ? answer.json : null);
      return null;
    }
    if (answer.status === 401) this.onLoggedOut();
    return answer.retry_ms;
  }
}
