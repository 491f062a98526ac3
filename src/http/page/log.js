// The list of one board's posts, as the reader sees it: days, who said what, what is unread, what
// is still on its way; and where the reader is in it.

import { $, avatar, dayKey, dayName, el, fullTime, plural, redraw, setText, timeOf } from "./dom.js";
import { hashOf } from "./route.js";
import { pieces } from "./text.js";

// One author's posts within this time stand under one name.
const GROUP_MS = 5 * 60_000;
// Beyond this many the oldest go, as long as the reader is at the end.
const SHOWN_MAX = 600;
const AT_END_PX = 48;

const LINES_MAX = 30;
const LENGTH_MAX = 3000;
const isLong = (text) => text.length > LENGTH_MAX || text.split("\n").length > LINES_MAX;

// A day ends while the page is open.
const DAYS_INTERVAL_MS = 30_000;

export class Log {
  // `names()` gives who can be meant by a mention, `isBoard(name)` which boards can be linked to;
  // `onSeen(seq)` when the reader has the end in view.
  constructor({ nameOf, names, isBoard, me, looking, onSeen, onOlder, onRetry, onCancel }) {
    Object.assign(this, { nameOf, names, isBoard, me, looking, onSeen, onOlder, onRetry, onCancel });
    this.myId = me.id;
    setInterval(() => this.renameDays(), DAYS_INTERVAL_MS);
    this.box = $("log");
    this.list = $("posts");
    this.pending = $("pending");
    this.pill = $("pill");
    this.posts = [];
    // Whether the list is of another board than the one that is read, or of a store that is no more.
    this.stale = false;
    this.mark = 0;
    this.unreadAt = null;
    // Up to where the reader looked while being here.
    this.seen = 0;
    this.missed = 0;
    this.lastMine = null;
    this.box.addEventListener("scroll", () => this.onScroll(), { passive: true });
    this.pill.addEventListener("click", () => {
      this.toEnd();
      // The pill goes, and takes the focus with it.
      this.box.focus({ preventScroll: true });
    });
    $("older").addEventListener("click", () => this.onOlder());
    // The list keeps its end in view when it, or what surrounds it, changes its size.
    this.pinned = true;
    new ResizeObserver(() => this.pinned && this.jump()).observe(this.box);
  }

  get first() {
    return this.posts[0]?.seq ?? null;
  }

  get last() {
    return this.posts.at(-1)?.seq ?? null;
  }

  get atEnd() {
    return this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < AT_END_PX;
  }

  // Shows a board anew. `mark` is up to where it was read before.
  show(posts, mark, truncated) {
    this.posts = posts;
    this.stale = false;
    this.mark = mark;
    this.missed = 0;
    this.seen = 0;
    const unread = posts.find((post) => post.seq > mark && post.author.id !== this.myId);
    this.unreadAt = unread && unread.seq > 1 && mark > 0 ? unread.seq : null;
    this.draw(truncated);
    this.toEnd();
  }

  // From now on nothing in the list counts as read, until it is shown anew.
  leave() {
    this.stale = true;
  }

  // Drawn anew it is nothing to be read out.
  draw(truncated = !$("older").hidden) {
    this.box.setAttribute("aria-busy", "true");
    requestAnimationFrame(() => this.box.removeAttribute("aria-busy"));
    const rows = this.posts.flatMap((post, nth) => this.rows(post, this.posts[nth - 1] ?? null));
    redraw(this.list, rows, this.box);
    const older = $("older");
    if (!truncated && document.activeElement === older) this.box.focus({ preventScroll: true });
    older.hidden = !truncated;
    this.drawEmpty();
  }

  drawEmpty() {
    $("empty").hidden = this.posts.length > 0 || this.pending.childElementCount > 0;
  }

  // Older posts go on top; what the reader looks at stays where it is.
  prepend(posts, truncated) {
    const below = this.box.scrollHeight - this.box.scrollTop;
    this.posts = [...posts, ...this.posts];
    this.draw(truncated);
    this.box.scrollTop = this.box.scrollHeight - below;
  }

  // The next post. The caller keeps the order.
  append(post) {
    const before = this.posts.at(-1) ?? null;
    const mine = post.author.id === this.myId;
    const away = !this.looking() || !this.pinned;
    if (!mine && away && (this.unreadAt === null || this.unreadAt <= this.seen)) {
      this.list.querySelector(".unread")?.remove();
      this.unreadAt = post.seq;
    }
    this.posts.push(post);
    if (mine) this.lastMine = post.seq;
    this.list.append(...this.rows(post, before));
    if (mine) this.tick();
    if (this.pinned) {
      this.trim();
      this.jump();
    } else if (!mine) {
      this.missed += 1;
      this.drawPill();
    }
    this.drawEmpty();
    this.look();
  }

  trim() {
    if (this.posts.length <= SHOWN_MAX) return;
    this.posts = this.posts.slice(-SHOWN_MAX / 2);
    this.draw(true);
  }

  rows(post, before) {
    const rows = [];
    const newDay = !before || dayKey(before.posted_at) !== dayKey(post.posted_at);
    const unread = post.seq === this.unreadAt;
    if (newDay) rows.push(el("li", { class: "day", "data-at": post.posted_at }, dayName(post.posted_at)));
    if (unread) rows.push(el("li", { class: "unread" }, "New"));
    const joined =
      !newDay &&
      !unread &&
      before.author.id === post.author.id &&
      post.posted_at - before.posted_at < GROUP_MS;
    const found = this.read(post.text);
    const said = el("div", { class: "said", dir: "auto" }, ...found.flatMap((piece) => this.piece(piece)));
    const meant = found.some(({ kind, name }) => kind === "mention" && name === this.me.name);
    const row = el(
      "li",
      {
        class: `post${joined ? "" : " first"}${meant ? " meant" : ""}`,
        "data-seq": post.seq,
        "data-key": post.seq,
      },
      this.avatar(post.author),
      this.byline(post.author, post),
      said,
    );
    if (post.seq === this.lastMine) said.append(el("span", { class: "tick" }, "\u2713 sent"));
    if (isLong(post.text)) this.fold(row, said);
    rows.push(row);
    return rows;
  }

  avatar(author) {
    return avatar(author);
  }

  // A post that would fill the page shows its beginning, until it is asked for.
  fold(row, said) {
    const unfold = () => {
      row.classList.remove("folded");
      more.remove();
      this.box.focus({ preventScroll: true });
    };
    const more = el("button", { type: "button", class: "small more", on: { click: unfold } }, "Show all");
    row.classList.add("folded");
    said.after(more);
  }

  read(text) {
    const written = this.posts.map(({ author }) => author.name);
    const names = new Set([this.me.name, ...this.names(), ...written]);
    return pieces(text, { isBoard: this.isBoard, names });
  }

  // What a piece of a text looks like. The marks around code stay in the text, unseen.
  piece({ kind, text, open, close, href, board, seq, name }) {
    const mark = (characters) => el("span", { hidden: true }, characters);
    switch (kind) {
      case "code":
        return [mark(open), el("code", {}, text), mark(close)];
      case "block":
        return [mark(open), el("pre", {}, el("code", {}, text)), mark(close)];
      case "link": {
        const how = {
          rel: "noopener noreferrer nofollow ugc",
          target: "_blank",
          referrerpolicy: "no-referrer",
        };
        return [el("a", { href, ...how }, text)];
      }
      case "place":
        return [el("a", { href: hashOf(board, seq) }, text)];
      case "mention":
        return [el("mark", { class: name === this.me.name ? "mention mine" : "mention" }, text)];
      default:
        return [text];
    }
  }

  byline(author, post) {
    const who = el(
      "bdi",
      { class: "who", "data-user": author.id, "data-name": author.name },
      this.nameOf(author),
    );
    const at = post?.posted_at;
    const time = post
      ? el(
          "a",
          { class: "at", href: hashOf(post.board, post.seq), title: fullTime(at) },
          el("time", { datetime: new Date(at).toISOString() }, timeOf(at)),
        )
      : null;
    return el(
      "div",
      { class: "by" },
      who,
      author.id === this.myId ? el("span", { class: "you" }, "you") : null,
      time,
    );
  }

  // Only the newest post of one's own says that it was sent.
  tick() {
    for (const old of this.list.querySelectorAll(".tick")) {
      if (old.closest(".post").dataset.seq !== String(this.lastMine)) old.remove();
    }
  }

  // Who is who may change with who is active.
  rename() {
    for (const node of this.box.querySelectorAll(".who")) {
      setText(node, this.nameOf({ id: node.dataset.user, name: node.dataset.name }));
    }
  }

  // Posts on their way, below all that is settled.
  drawPending(entries, me) {
    const grew = entries.length > this.pending.childElementCount;
    const old = new Map([...this.pending.children].map((row) => [row.dataset.key, row]));
    const last = this.posts.at(-1);
    const rows = entries.map((entry, nth) => {
      const look = [entry.state, entry.why, entry.cancel, entry.late].join();
      const known = old.get(entry.id);
      if (known?.dataset.look === look) return known;
      const joined = nth > 0 || (last && last.author.id === me.id && entry.at - last.posted_at < GROUP_MS);
      return this.pendingRow(entry, me, look, joined);
    });
    redraw(this.pending, rows, $("text"));
    if (grew) {
      this.unreadAt = null;
      this.list.querySelector(".unread")?.remove();
      this.toEnd();
    } else if (this.pinned) {
      this.jump();
    }
    this.drawEmpty();
  }

  pendingRow(entry, me, look, joined) {
    const { id, state, cancel, late, why, text } = entry;
    const words = cancel
      ? "cancelling"
      : state === "failed"
        ? `not sent: ${why}`
        : state === "waiting"
          ? "waiting for the store"
          : late
            ? "not sent yet, still trying"
            : "sending";
    const act = (label, action) =>
      el("button", { type: "button", class: "small", on: { click: action } }, label);
    const offer = !cancel && (state === "failed" || state === "waiting" || late);
    const fate = el(
      "div",
      { class: "fate" },
      el("span", {}, words),
      offer && act("Retry", () => this.onRetry(id)),
      offer && act("Cancel", () => this.onCancel(id)),
    );
    const shown = state === "failed" ? "failed" : cancel || state === "sending" ? "sending" : state;
    return el(
      "li",
      {
        class: joined ? "post" : "post first",
        "data-key": id,
        "data-look": look,
        "data-state": shown,
      },
      this.avatar(me),
      this.byline(me, null),
      el("div", { class: "said", dir: "auto" }, ...this.read(text).flatMap((piece) => this.piece(piece))),
      fate,
    );
  }

  drawPill() {
    this.pill.hidden = this.pinned;
    const text = this.missed > 0 ? plural(this.missed, "new post") : "Jump to latest";
    setText(this.pill, `${text} \u2193`);
  }

  jump() {
    this.box.scrollTop = this.box.scrollHeight;
  }

  toEnd() {
    this.pinned = true;
    this.jump();
    this.drawPill();
    this.look();
  }

  onScroll() {
    this.pinned = this.atEnd;
    this.drawPill();
    this.look();
    if (this.box.scrollTop < 80 && !$("older").hidden) this.onOlder();
  }

  // The reader sees the end: nothing is missed any more.
  look() {
    if (!this.pinned) return;
    if (this.missed > 0) {
      this.missed = 0;
      this.drawPill();
    }
    if (this.last === null || this.stale || !this.looking()) return;
    this.seen = this.last;
    this.onSeen(this.last);
  }

  // Where the reader is: null at the end, else the first post in view and how far it is off the top.
  place() {
    if (this.pinned) return null;
    const top = this.box.getBoundingClientRect().top;
    const row = [...this.list.querySelectorAll(".post")].find(
      (node) => node.getBoundingClientRect().bottom > top,
    );
    return row ? { seq: Number(row.dataset.seq), off: row.getBoundingClientRect().top - top } : null;
  }

  goTo(place) {
    const row = place && this.list.querySelector(`[data-seq="${Number(place.seq)}"]`);
    if (!row) return;
    this.pinned = false;
    this.box.scrollTop +=
      row.getBoundingClientRect().top - this.box.getBoundingClientRect().top - (Number(place.off) || 0);
    this.drawPill();
  }

  // Shows the post that an address names; false when it is not in the list.
  reveal(seq) {
    const row = this.list.querySelector(`[data-seq="${Number(seq)}"]`);
    if (!row) return false;
    for (const old of this.list.querySelectorAll(".target")) old.classList.remove("target");
    row.classList.add("target");
    row.scrollIntoView({ block: "center" });
    row.querySelector(".at").focus({ preventScroll: true });
    this.pinned = this.atEnd;
    this.drawPill();
    return true;
  }

  renameDays() {
    for (const day of this.list.querySelectorAll(".day")) setText(day, dayName(Number(day.dataset.at)));
  }
}
