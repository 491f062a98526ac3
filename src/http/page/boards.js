// The boards there are: the list of them, how much is new in each, and the making of new ones.

import * as api from "./api.js";
import { $, el, redraw, setText } from "./dom.js";

const REFRESH_MS = 30_000;

const countText = (n) => (n > 99 ? "99+" : String(n));

export class Boards {
  // `current()` names the one being read, `onOpen(name)` when another is chosen or made, `onDrawn()`
  // when how much is new may have changed.
  constructor(boards, { current, onOpen, onDrawn }) {
    Object.assign(this, { current, onOpen, onDrawn });
    this.known = new Map(boards.map((board) => [board.name, board]));
    this.lastRefresh = Date.now();
    $("board-filter").addEventListener("input", () => this.draw());
    $("new-board").addEventListener("submit", (event) => {
      event.preventDefault();
      this.create();
    });
  }

  has(name) {
    return this.known.has(name);
  }

  get(name) {
    return this.known.get(name);
  }

  get names() {
    return [...this.known.keys()];
  }

  get isOld() {
    return Date.now() - this.lastRefresh >= REFRESH_MS;
  }

  get list() {
    return [...this.known.values()];
  }

  // Reads the list again. Gives the store's epoch, or null without an answer.
  async refresh() {
    this.lastRefresh = Date.now();
    const answer = await api.boards();
    if (answer.status !== 200) return null;
    this.take(answer.json.boards);
    return answer.json.epoch;
  }

  // Takes a newer list. What was read here is read, though nobody else knows it yet.
  take(boards) {
    const marked = ({ name, read_mark }) => Math.max(read_mark, this.get(name)?.read_mark ?? 0);
    this.known = new Map(boards.map((board) => [board.name, { ...board, read_mark: marked(board) }]));
    this.draw();
  }

  async create() {
    const field = $("new-board-name");
    const name = field.value.trim().toLowerCase();
    if (name === "") return;
    const answer = await api.createBoard(name);
    const made = answer.status === 200 || answer.status === 201;
    const refused = {
      "malformed-board": "Use a-z, 0-9 and \u2018-\u2019, 32 at most.",
      "too-many-boards": "There are too many boards.",
    };
    setText($("new-board-error"), made ? "" : (refused[answer.kind] ?? "Not now. Try again in a moment."));
    if (!made) return;
    field.value = "";
    this.known.set(name, { ...answer.json });
    this.known = new Map([...this.known].sort(([a], [b]) => (a < b ? -1 : 1)));
    this.onOpen(name);
  }

  get unreadElsewhere() {
    const others = this.list.filter(({ name }) => name !== this.current());
    return others.reduce((sum, { last_seq, read_mark }) => sum + Math.max(0, last_seq - read_mark), 0);
  }

  draw() {
    const filter = $("board-filter").value.trim().toLowerCase();
    const shown = this.list.filter(({ name }) => name.includes(filter));
    redraw(
      $("boards"),
      shown.map((board) => this.row(board)),
    );
    const elsewhere = this.unreadElsewhere;
    const badge = $("unread-narrow");
    badge.hidden = elsewhere === 0;
    setText(badge.firstElementChild, countText(elsewhere));
    this.onDrawn();
  }

  row({ name, last_seq, read_mark }) {
    const current = name === this.current();
    const fresh = current ? 0 : last_seq - read_mark;
    const hidden = el("span", { class: "hidden-text" }, " new");
    const count = fresh > 0 ? el("span", { class: "badge new" }, countText(fresh), hidden) : null;
    const open = () => !current && this.onOpen(name);
    const props = { type: "button", "aria-current": current ? "true" : null, on: { click: open } };
    const button = el("button", props, el("span", { class: "name" }, name), count);
    return el("li", { "data-key": name }, button);
  }
}
