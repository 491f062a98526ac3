// What this origin remembers of one person in one cluster: posts not settled, drafts, the board.
//
// Each unsettled post has a key of its own, so that two tabs never overwrite each other's.

import { isBoardName } from "./shapes.js";

// Beyond these nothing was written by this page.
const DRAFTS_MAX = 1000;
const DRAFT_LENGTH_MAX = 64 * 1024;

// Pairs of board and text, of what was kept or brought along.
export function readDrafts(drafts) {
  if (drafts === null || typeof drafts !== "object") return [];
  return Object.entries(drafts)
    .filter(([board, text]) => isBoardName(board) && typeof text === "string")
    .slice(0, DRAFTS_MAX)
    .map(([board, text]) => [board, text.slice(0, DRAFT_LENGTH_MAX)]);
}

export class Local {
  constructor(cluster, user) {
    this.prefix = `chatchat:${cluster}:${user}:`;
  }

  get(key, otherwise = null) {
    try {
      return JSON.parse(localStorage.getItem(this.prefix + key)) ?? otherwise;
    } catch {
      return otherwise;
    }
  }

  // Storage may be full or forbidden; then the page works, and a reload forgets.
  set(key, value) {
    try {
      if (value === null) localStorage.removeItem(this.prefix + key);
      else localStorage.setItem(this.prefix + key, JSON.stringify(value));
    } catch {
      // As said above.
    }
  }

  keys(start) {
    try {
      const whole = this.prefix + start;
      return Object.keys(localStorage)
        .filter((key) => key.startsWith(whole))
        .map((key) => key.slice(this.prefix.length));
    } catch {
      return [];
    }
  }

  entries() {
    return this.keys("out:").map((key) => this.get(key));
  }

  putEntry(entry) {
    this.set(`out:${entry.id}`, entry);
  }

  dropEntry(id) {
    this.set(`out:${id}`, null);
  }

  draft(board) {
    const text = this.get(`draft:${board}`, "");
    return typeof text === "string" ? text.slice(0, DRAFT_LENGTH_MAX) : "";
  }

  setDraft(board, text) {
    this.set(`draft:${board}`, text === "" ? null : text);
  }

  drafts() {
    return Object.fromEntries(
      this.keys("draft:").map((key) => [key.slice("draft:".length), this.get(key, "")]),
    );
  }

  // Drafts that travel on are stale here once they have arrived, and all there is until then.
  setAside(move, drafts) {
    for (const board of Object.keys(this.drafts())) this.setDraft(board, "");
    this.set(`left:${move}`, drafts);
  }

  // Takes back those that did not arrive. What was written since then stays.
  takeBack(arrived) {
    for (const key of this.keys("left:")) {
      const drafts = arrived(key.slice("left:".length)) ? {} : this.get(key, {});
      this.set(key, null);
      this.offerDrafts(readDrafts(drafts));
    }
  }

  // Puts drafts where nothing is being written.
  offerDrafts(drafts) {
    for (const [board, text] of drafts) if (this.draft(board) === "") this.setDraft(board, text);
  }

  // Calls back with the id of each unsettled post that another tab changed, and its new value.
  watch(changed) {
    addEventListener("storage", (event) => {
      const start = `${this.prefix}out:`;
      if (event.key?.startsWith(start)) {
        const id = event.key.slice(start.length);
        changed(id, this.get(`out:${id}`));
      }
    });
  }
}
