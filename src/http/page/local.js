// What this origin remembers of one person in one cluster: posts not settled, drafts, the board.
//
// Each unsettled post has a key of its own, and each tab's draft of a board, so that two tabs never
// overwrite each other's.

import { uuid } from "./api.js";
import { isBoardName, UUID } from "./shapes.js";

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

const TAB = "chatchat-tab";

// This tab's name, the same after a reload. While the page is open it is not in the tab's storage,
// so that a copy of the tab gets another one.
export function tabName() {
  let name = "";
  const keep = (change) => {
    try {
      change();
    } catch {
      // Without storage each load is another tab.
    }
  };
  keep(() => {
    name = sessionStorage.getItem(TAB) ?? "";
    sessionStorage.removeItem(TAB);
  });
  if (!UUID.test(name)) name = uuid();
  addEventListener("pagehide", () => keep(() => sessionStorage.setItem(TAB, name)));
  return name;
}

export class Local {
  constructor(cluster, user, tab) {
    this.prefix = `chatchat:${cluster}:${user}:`;
    this.tab = tab;
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

  draft(board, tab = this.tab) {
    const text = this.get(`draft:${board}:${tab}`, "");
    return typeof text === "string" ? text.slice(0, DRAFT_LENGTH_MAX) : "";
  }

  setDraft(board, text) {
    this.set(`draft:${board}:${this.tab}`, text === "" ? null : text);
  }

  drafts() {
    const own = this.keys("draft:")
      .map((key) => key.split(":"))
      .filter(([, , tab]) => tab === this.tab);
    return Object.fromEntries(own.map(([, board]) => [board, this.draft(board)]));
  }

  // Takes over what a tab left that is open no more, where nothing is being written here.
  inherit(living) {
    for (const key of this.keys("draft:").slice(0, DRAFTS_MAX)) {
      const [, board, tab] = key.split(":");
      if (tab === this.tab || living.has(tab) || this.draft(board) !== "") continue;
      this.setDraft(board, this.draft(board, tab));
      this.set(key, null);
    }
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
}
