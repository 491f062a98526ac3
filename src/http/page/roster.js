// The active people as a stream or an answer tells them: all of them, or a part and then what changed.

// So many are asked for at once, and shown.
export const SHOWN_MAX = 200;
// Changes that may overtake the answer that they go on from.
const CHANGES_MAX = 16;

const byName = (a, b) => (a.name === b.name ? (a.id < b.id ? -1 : 1) : a.name < b.name ? -1 : 1);

export class Roster {
  constructor() {
    this.version = null;
    // Of all active people; those above a window are not known here.
    this.total = 0;
    // Whether whoever is known is here now, because a stream says who leaves.
    this.live = false;
    this.users = new Map();
    this.changes = [];
  }

  // Takes in an event of the stream or an answer; false when a version before it is missing.
  take(data) {
    if (data.came) {
      this.changes = [...this.changes, data].slice(-CHANGES_MAX);
      this.live = this.apply(data);
      return this.live;
    }
    this.version = data.version ?? null;
    this.total = data.total ?? data.users.length;
    // An answer says how consistent it is, and nobody tells what changes of it.
    this.live = data.total !== undefined && data.consistency === undefined;
    this.users = new Map(data.users.map((user) => [user.id, user]));
    // A stream that begins has versions of its own; an answer is of those that it told.
    if (this.live) this.changes = [];
    for (const change of this.changes) if (this.apply(change)) this.live = true;
    return true;
  }

  apply({ version, since, total, came, left }) {
    if (this.version !== since) return false;
    Object.assign(this, { version, total });
    for (const id of left) this.users.delete(id);
    for (const user of came) this.users.set(user.id, user);
    return true;
  }

  // As an event that brings another tab up to here.
  get window() {
    return { version: this.version, total: this.total, users: [...this.users.values()] };
  }

  // The first of those that are known, and oneself.
  shown(me) {
    const all = [...this.users.values()].sort(byName);
    const first = all.slice(0, SHOWN_MAX);
    const own = first.some(({ id }) => id === me.id) ? [] : all.filter(({ id }) => id === me.id);
    return [...first, ...own];
  }

  // So few are known that the list is worth asking for: of a crowd, half a window.
  get thin() {
    return this.users.size < (this.total > SHOWN_MAX ? SHOWN_MAX / 2 : this.total);
  }
}
