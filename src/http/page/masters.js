// The masters that this page knows, and which of them one may go to.

import { isReady } from "./shapes.js";

const PROBE_TIMEOUT_MS = 1500;
// How much longer to wait for this page's own master when another answered first.
const OWN_ADVANTAGE_MS = 250;

const originOf = (url) => {
  try {
    return new URL(url).origin;
  } catch {
    return null;
  }
};

export class Masters {
  constructor() {
    const content = document.querySelector('meta[name="masters"]')?.content ?? "";
    // Those that the page may ask: its content security policy was made with this list.
    this.askable = content
      .split(" ")
      .map(originOf)
      .filter((origin) => origin !== null);
    this.list = [];
    this.own = null;
  }

  // Takes the list of a session or stream; true when it differs from the one before.
  update(list, own = this.own) {
    const key = (masters) =>
      masters
        .map((m) => m.id)
        .sort()
        .join();
    const changed = this.list.length > 0 && key(this.list) !== key(list);
    this.list = list;
    this.own = own;
    return changed;
  }

  isOwn(master) {
    return this.own ? master.id === this.own.id : originOf(master.http) === location.origin;
  }

  get name() {
    return this.own?.name ?? this.list.find((master) => this.isOwn(master))?.name ?? location.host;
  }

  origins() {
    return [...new Set([location.origin, ...this.askable, ...this.list.map((m) => originOf(m.http))])].filter(
      Boolean,
    );
  }

  others() {
    const listed = this.list.filter((master) => !this.isOwn(master)).map((m) => originOf(m.http));
    const own = [location.origin, this.own && originOf(this.own.http)];
    const known = this.list.length > 0 ? listed : this.askable;
    return [...new Set([...listed, ...known])].filter((origin) => origin !== null && !own.includes(origin));
  }

  // Whether another master is on a host that does not share this one's cookies.
  get needTicket() {
    return this.others().some((origin) => new URL(origin).hostname !== location.hostname);
  }

  // The origin to go on with: this one's own if it is ready, else the first other that is, else null.
  async find({ leaveOwn = false, prefer = [], except = [] } = {}) {
    const wanted = prefer
      .map((m) => originOf(m.http))
      .filter((origin) => origin && origin !== location.origin);
    const others = [...new Set([...wanted, ...this.others()])].filter(
      (origin) => this.askable.includes(origin) && !except.includes(origin),
    );
    const own = leaveOwn ? Promise.resolve(false) : ready(location.origin);
    const other = firstOf(others);
    const first = await Promise.race([
      own.then((is) => (is ? location.origin : other)),
      other.then((origin) => origin ?? own.then((is) => (is ? location.origin : null))),
    ]);
    if (first === null || first === location.origin) return first;
    const grace = new Promise((done) => setTimeout(done, OWN_ADVANTAGE_MS, false));
    return (await Promise.race([own, grace])) ? location.origin : first;
  }

  // Masters that joined after this page was loaded: they cannot be asked, only gone to.
  unaskable() {
    return this.others().filter((origin) => !this.askable.includes(origin));
  }
}

async function ready(origin) {
  try {
    const signal = AbortSignal.timeout(PROBE_TIMEOUT_MS);
    const answer = await fetch(`${origin}/readyz`, {
      mode: "cors",
      credentials: "omit",
      cache: "no-store",
      signal,
    });
    return answer.status === 200 && isReady(await answer.json());
  } catch {
    return false;
  }
}

// The first of these that is ready, in a random order among equals; null when none is.
async function firstOf(origins) {
  const mixed = origins.map((origin) => [Math.random(), origin]).sort((a, b) => a[0] - b[0]);
  const asked = mixed.map(async ([, origin]) => {
    if (await ready(origin)) return origin;
    throw new Error("not ready");
  });
  return Promise.any(asked).catch(() => null);
}
