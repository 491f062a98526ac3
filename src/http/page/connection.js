// Keeps a stream open: here while this page's master lives, else by moving to another one. Where no
// master's stream says anything, for something on the way holds it up, the page stays and asks.

import { session } from "./api.js";
import { sleep, within } from "./numbers.js";
import { Stream } from "./stream.js";

const PAUSE_MIN_MS = 200;
const PAUSE_MAX_MS = 3000;
// The longest wait that a goodbye may ask for.
const BYE_MAX_MS = 10_000;
// A stream that lasted this long was no failure of its master.
const STEADY_MS = 10_000;
// So many streams that broke at once, and another master is tried; after the first master, one.
const OWN_FAILURES_MAX = 3;
// While no stream says anything: between two questions for what is new, and two tries of a stream.
const POLL_MS = 3000;
const STREAM_AGAIN_MS = 10_000;
const TRIED_MAX = 32;

// The epoch of a cursor and its places by their boards, all as texts.
export function readCursor(cursor) {
  const [epoch, rest = ""] = cursor.split(";");
  const pairs = rest.split(",").filter(Boolean);
  return { epoch, places: new Map(pairs.map((pair) => pair.split(":"))) };
}

// A cursor of these boards: of what the stream told, and of what is known of those that it did not
// speak of. One of another epoch says nothing about this one's places.
export function mergeCursors(told, known, boards) {
  const [first, second] = [readCursor(told === "" ? known : told), readCursor(known)];
  const rest = first.epoch === second.epoch ? second.places : [];
  const places = new Map([...rest, ...first.places]);
  // A stream takes no cursor of more boards than it can follow.
  const asked = boards.filter((board) => places.has(board));
  return `${first.epoch};${asked.map((board) => `${board}:${places.get(board)}`).join(",")}`;
}

export class Connection {
  // `follow()` gives the boards to follow, the first cursor and the user; `onEvent(name, data)`;
  // `onState("on" | "lost" | "searching" | "polling")`; `poll()` asks for what is new; `leave(origin)`
  // moves; `onLoggedOut()`. `tried` are masters that were left because their streams said nothing.
  constructor({ masters, tried, follow, onEvent, onState, poll, leave, onLoggedOut }) {
    Object.assign(this, { masters, tried, follow, onEvent, onState, poll, leave, onLoggedOut });
    this.stream = new Stream({
      onEvent: (name, data) => this.hear(name, data),
      onLost: (why) => this.recover(why),
    });
    this.ownFailures = 0;
    this.openedAt = 0;
    // Stopped for good, or until it is opened again.
    this.stopped = false;
    this.resting = false;
    this.recovering = false;
    this.polling = false;
    // Counted up whenever what is going on is not wanted any more.
    this.turn = 0;
  }

  // Also after a rest.
  open() {
    if (this.stopped) return;
    this.resting = false;
    const { boards, cursor, user } = this.follow();
    this.openedAt = performance.now();
    this.stream.open(boards, mergeCursors(this.stream.cursor, cursor, boards), user);
  }

  // Up to where the stream was heard.
  get cursor() {
    return this.stream.cursor;
  }

  stop() {
    this.stopped = true;
    this.rest();
  }

  // Somebody else holds the stream.
  rest() {
    this.resting = true;
    this.recovering = false;
    this.polling = false;
    this.turn += 1;
    this.stream.close();
  }

  hear(name, data) {
    if (name === "hello") {
      this.polling = false;
      this.onState("on");
    }
    // More than a beginning comes through here.
    if (name === "beat") this.tried = [];
    this.onEvent(name, data);
    if (name !== "bye") return;
    if (data.reason === "logged-out") this.onLoggedOut();
    else if (data.reason === "draining") this.recover("draining", data.to);
    else if (data.reason === "slow") this.open();
    else {
      // Pages that were turned away together come back apart.
      const wait = within(0, BYE_MAX_MS, data.retry_ms, PAUSE_MAX_MS) * (1 + Math.random() / 2);
      sleep(wait).then(() => this.recover("bye"));
    }
  }

  async recover(why, prefer = []) {
    if (this.recovering || this.resting) return;
    this.recovering = true;
    const turn = this.turn;
    this.ownFailures = performance.now() - this.openedAt > STEADY_MS ? 0 : this.ownFailures + 1;
    if (!this.polling) this.onState("lost");
    if (why === "refused" && (await session(3000)).status === 401) {
      this.onLoggedOut();
      return;
    }
    // A master that is ready and yet breaks every stream is not asked again and again at once.
    const again = this.ownFailures - 1;
    if (again > 0) await sleep(Math.min(PAUSE_MIN_MS * 2 ** again, PAUSE_MAX_MS));
    for (let pause = PAUSE_MIN_MS, tries = 1; ; tries += 1) {
      if (turn !== this.turn) return;
      const isMute = this.ownFailures >= (this.tried.length > 0 ? 1 : OWN_FAILURES_MAX);
      const leaveOwn = why === "draining" || isMute;
      const except = isMute ? this.tried : [];
      let target = await this.masters.find({ leaveOwn, prefer, except });
      if (target === null && leaveOwn) target = await this.masters.find();
      if (turn !== this.turn) return;
      if (isMute && why !== "draining") this.note(location.origin);
      if (target === location.origin && isMute) {
        this.startPolling(turn);
        await sleep(STREAM_AGAIN_MS);
        if (turn !== this.turn) return;
      }
      if (target === location.origin) break;
      if (target !== null) return this.leave(target);
      this.polling = false;
      this.onState("searching");
      const blind = this.masters.unaskable();
      if (tries >= 4 && blind.length > 0) return this.leave(blind[Math.floor(Math.random() * blind.length)]);
      await sleep(pause * (0.75 + Math.random() / 2));
      pause = Math.min(pause * 2, PAUSE_MAX_MS);
    }
    this.recovering = false;
    this.open();
  }

  // That this master's streams say nothing.
  note(origin) {
    if (!this.tried.includes(origin)) this.tried = [...this.tried, origin].slice(-TRIED_MAX);
  }

  // Asks for what is new until a stream says something.
  async startPolling(turn) {
    if (this.polling) return;
    this.polling = true;
    this.onState("polling");
    while (this.polling && turn === this.turn) {
      await this.poll();
      await sleep(POLL_MS);
    }
  }
}
