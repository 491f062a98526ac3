// Tells when a wait is over by clocks that may be set while the page is open, or stand still.

// Whether so long has passed since a time of day. A clock that was set back cannot tell: then it has.
export const hasPassed = (ms, since, now = Date.now()) => now < since || now - since >= ms;

// A wait that is over as soon as either clock says so: the time of day may be set, and the page's own
// clock may stand still while the machine sleeps.
export class Wait {
  constructor(ms) {
    this.begin(ms);
  }

  // From now on it takes so long.
  begin(ms) {
    this.ms = ms;
    this.day = Date.now();
    this.own = performance.now();
  }

  get isOver() {
    return hasPassed(this.ms, this.day) || performance.now() - this.own >= this.ms;
  }
}
