// Keeps a stream open: here while this page's master lives, else by moving to another one.

import { session } from "./api.js";
import { sleep, within } from "./numbers.js";
import { Stream } from "./stream.js";

const PAUSE_MIN_MS = 200;
const PAUSE_MAX_MS = 3000;
// The longest wait that a goodbye may ask for.
const BYE_MAX_MS = 10_000;
// A stream that lasted this long was no failure of its master.
const STEADY_MS = 10_000;
// So many streams that broke at once, and another master is tried.
const OWN_FAILURES_MAX = 3;

// A cursor of what the stream told, and of what is known of boards that it did not speak of. One of
// another epoch says nothing about this one's places.
export function mergeCursors(told, known) {
  const read = (cursor) => {
    const [epoch, rest = ""] = cursor.split(";");
    return {
      epoch,
      places: rest
        .split(",")
        .filter(Boolean)
        .map((pair) => pair.split(":")),
    };
  };
  if (told === "") return known;
  const [first, second] = [read(told), read(known)];
  if (first.epoch !== second.epoch) return told;
  const places = new Map([...second.places, ...first.places]);
  return `${first.epoch};${[...places].map(([board, seq]) => `${board}:${seq}`).join(",")}`;
}

export class Connection {
  // `follow()` gives the boards to follow, the first cursor and the user; `onEvent(name, data)`;
  // `onState("on" | "lost" | "searching")`; `leave(origin)` moves; `onLoggedOut()`.
  constructor({ masters, follow, onEvent, onState, leave, onLoggedOut }) {
    Object.assign(this, { masters, follow, onEvent, onState, leave, onLoggedOut });
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
    // Counted up whenever what is going on is not wanted any more.
    this.turn = 0;
  }

  // Also after a rest.
  open() {
    if (this.stopped) return;
    this.resting = false;
    const { boards, cursor, user } = this.follow();
    this.openedAt = performance.now();
    this.stream.open(boards, mergeCursors(this.stream.cursor, cursor), user);
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
    this.turn += 1;
    this.stream.close();
  }

  hear(name, data) {
    if (name === "hello") this.onState("on");
    this.onEvent(name, data);
    if (name !== "bye") return;
    if (data.reason === "logged-out") this.onLoggedOut();
    else if (data.reason === "draining") this.recover("draining", data.to);
    else if (data.reason === "slow") this.open();
    else sleep(within(0, BYE_MAX_MS, data.retry_ms, PAUSE_MAX_MS)).then(() => this.recover("bye"));
  }

  async recover(why, prefer = []) {
    if (this.recovering || this.resting) return;
    this.recovering = true;
    const turn = this.turn;
    this.ownFailures = performance.now() - this.openedAt > STEADY_MS ? 0 : this.ownFailures + 1;
    this.onState("lost");
    if (why === "refused" && (await session(3000)).status === 401) {
      this.onLoggedOut();
      return;
    }
    // A master that is ready and yet breaks every stream is not asked again and again at once.
    const again = this.ownFailures - 1;
    if (again > 0) await sleep(Math.min(PAUSE_MIN_MS * 2 ** again, PAUSE_MAX_MS));
    for (let pause = PAUSE_MIN_MS, tries = 1; ; tries += 1) {
      if (turn !== this.turn) return;
      const leaveOwn = why === "draining" || this.ownFailures >= OWN_FAILURES_MAX;
      let target = await this.masters.find({ leaveOwn, prefer });
      if (target === null && leaveOwn) target = await this.masters.find();
      if (turn !== this.turn) return;
      if (target === location.origin) break;
      if (target !== null) return this.leave(target);
      this.onState("searching");
      const blind = this.masters.unaskable();
      if (tries >= 4 && blind.length > 0) return this.leave(blind[Math.floor(Math.random() * blind.length)]);
      await sleep(pause * (0.75 + Math.random() / 2));
      pause = Math.min(pause * 2, PAUSE_MAX_MS);
    }
    this.recovering = false;
    this.open();
  }
}
