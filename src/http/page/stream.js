// One stream of events from this page's master, watched for silence.

import { within } from "./numbers.js";
import { EVENTS } from "./shapes.js";

const HELLO_TIMEOUT_MS = 5000;
const BEAT_MIN_MS = 1000;
const BEAT_MAX_MS = 15_000;
// Two beats missed, and a little for the way.
const BEATS_MISSED_MAX = 2.2;

const parse = (text) => {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
};

export class Stream {
  // `onEvent(name, data)` for each event, `onLost(why)` once: "refused" (an HTTP error),
  // "broken" (the connection ended), "silent".
  constructor({ onEvent, onLost }) {
    this.onEvent = onEvent;
    this.onLost = onLost;
    this.source = null;
    this.cursor = "";
  }

  open(boards, cursor, user) {
    this.close();
    this.cursor = cursor;
    this.limit_ms = HELLO_TIMEOUT_MS;
    this.heard = performance.now();
    const source = new EventSource(
      `/api/v1/stream?${new URLSearchParams({ boards: boards.join(","), cursor, user })}`,
    );
    this.source = source;
    for (const [name, is] of Object.entries(EVENTS)) {
      source.addEventListener(name, (event) => {
        const data = parse(event.data);
        if (this.source === source && is(data)) this.hear(name, data, event.lastEventId);
      });
    }
    source.onerror = () => {
      if (this.source === source) this.lose(source.readyState === EventSource.CLOSED ? "refused" : "broken");
    };
    this.watch = setInterval(() => {
      if (performance.now() - this.heard > this.limit_ms) this.lose("silent");
    }, 500);
  }

  hear(name, data, id) {
    this.heard = performance.now();
    if (name === "hello")
      this.limit_ms = within(BEAT_MIN_MS, BEAT_MAX_MS, data.beat_ms, BEAT_MIN_MS) * BEATS_MISSED_MAX;
    if (id) this.cursor = id;
    // After a bye the end is no surprise.
    if (name === "bye") this.close();
    this.onEvent(name, data);
  }

  lose(why) {
    this.close();
    this.onLost(why);
  }

  close() {
    clearInterval(this.watch);
    this.source?.close();
    this.source = null;
  }
}
