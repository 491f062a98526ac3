// What this origin remembers of one person in one cluster: posts not settled, drafts, the board.
//
// Each unsettled post has a key of its own, so that two tabs never overwrite each other's.

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
    return this.keys("out:")
      .map((key) => this.get(key))
      .filter((entry) => entry?.id && entry.text);
  }

  putEntry(entry) {
    this.set(`out:${entry.id}`, entry);
  }

  dropEntry(id) {
    this.set(`out:${id}`, null);
  }

  draft(board) {
    return this.get(`draft:${board}`, "");
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
      this.offerDrafts(drafts);
    }
  }

  // Puts drafts where nothing is being written.
  offerDrafts(drafts) {
    for (const [board, text] of Object.entries(drafts)) {
      if (this.draft(board) === "") this.setDraft(board, String(text));
    }
  }

  // Calls back with the id of each unsettled post that another tab changed, and its new value.
  watch(changed) {
    addEventListener("storage", (event) => {
      const start = `${this.prefix}out:`;
      if (event.key?.startsWith(start)) {
        changed(event.key.slice(start.length), event.newValue === null ? null : JSON.parse(event.newValue));
      }
    });
  }
}
