// The ticket with which a session moves to a master on another host, kept fresh while one is needed.

import { ticket } from "./api.js";
import { Wait } from "./clock.js";

const INTERVAL_MS = 4 * 60_000;
// Between tries for a ticket that was not given, doubling.
const PAUSE_MIN_MS = 3000;
const PAUSE_MAX_MS = 30_000;

export class Ticket {
  constructor() {
    this.text = null;
    this.asking = false;
    this.untilNext = new Wait(0);
    this.pause_ms = PAUSE_MIN_MS;
  }

  // Asks for a new one when it is time.
  // The old ticket ends a minute after the new one is due, so a refusal cannot wait as long again.
  async renew() {
    if (this.asking || !this.untilNext.isOver) return;
    this.asking = true;
    const answer = await ticket();
    const given = answer.status === 201 ? answer.json.ticket : undefined;
    this.text = given ?? this.text;
    const pause = Math.max(answer.retry_ms, this.pause_ms);
    this.untilNext.begin(given ? INTERVAL_MS : pause);
    this.asking = false;
    this.pause_ms = given ? PAUSE_MIN_MS : Math.min(2 * this.pause_ms, PAUSE_MAX_MS);
  }
}
