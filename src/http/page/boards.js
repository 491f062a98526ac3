// The boards there are: the list of them, how much is new in each, and the making of new ones.

import * as api from "./api.js";
import { Wait } from "./clock.js";
import { $, el, redraw, setText } from "./dom.js";
import { ReadMarks } from "./marks.js";

const REFRESH_MS = 30_000;

const countText = (n) => (n > 99 ? "99+" : String(n));

export class Boards {
  // The boards of one epoch of the store. `current()` names the one being read, `onOpen(name)` when
  // another is chosen or made, `onDrawn()` when how much is new may have changed, `onRestored()` when
  // the boards are those of another epoch.
  constructor(boards, epoch, { current, onOpen, onDrawn, onRestored }) {
    Object.assign(this, { epoch, current, onOpen, onDrawn, onRestored });
    this.known = new Map(boards.map((board) => [board.name, board]));
    this.marks = new ReadMarks();
    this.untilRefresh = new Wait(REFRESH_MS);
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

  // Up to where a board was read.
  markOf(name) {
    return this.get(name)?.read_mark ?? 0;
  }

  get isOld() {
    return this.untilRefresh.isOver;
  }

  get list() {
    return [...this.known.values()];
  }

  // Reads the list again, and says whether there was an answer.
  async refresh() {
    this.untilRefresh.begin(REFRESH_MS);
    const answer = await api.boards();
    if (answer.status !== 200) return false;
    this.take(answer.json.boards, answer.json.epoch);
    return true;
  }

  // Takes a newer list. What was read here is read, though nobody else knows it yet; but of a backup
  // that was restored, whose places have other posts, only what it says itself.
  take(boards, epoch) {
    const isRestored = epoch !== this.epoch;
    const marked = ({ name, read_mark }) => Math.max(read_mark, isRestored ? 0 : this.markOf(name));
    this.known = new Map(boards.map((board) => [board.name, { ...board, read_mark: marked(board) }]));
    this.epoch = epoch;
    if (isRestored) this.marks.forget();
    this.draw();
    if (isRestored) this.onRestored();
  }

  // The reader has a board's posts up to this one in view.
  see(name, seq) {
    const board = this.get(name);
    if (!board) return;
    this.marks.set(name, seq, board.read_mark);
    if (seq <= board.read_mark) return;
    board.read_mark = seq;
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
