// Keeps numbers from outside within bounds: a wait, a size or a count that a server, a link or the
// browser's store hands in may be anything.

// What is no number stands for `otherwise`.
export function within(low, high, value, otherwise = low) {
  if (typeof value !== "number" || Number.isNaN(value)) return otherwise;
  return Math.min(Math.max(value, low), high);
}

// A timer takes 31 bits and fires at once beyond; nothing here waits for longer than this.
const SLEEP_MAX_MS = 60_000;

export const sleep = (ms) => new Promise((done) => setTimeout(done, within(0, SLEEP_MAX_MS, ms, 1000)));

// Waits that good news may cut short.
export class Waker {
  constructor() {
    this.wake();
  }

  wake() {
    this.ring?.();
    this.rung = new Promise((ring) => (this.ring = ring));
  }

  wait(ms) {
    return Promise.race([sleep(ms), this.rung]);
  }
}
