// The board being read: loads it, keeps it gapless, and brings older posts when asked.

import { readPosts } from "./api.js";
import { sleep, Waker } from "./numbers.js";

const PAGE = 80;
const CATCH_UP = 200;
// To find the reader's place again after a move, at most so many pages.
const PLACE_PAGES_MAX = 8;
// And for a post that an address names.
const ADDRESS_PAGES_MAX = 25;

export class Board {
  // `onMissing(seq)` when a post that an address names is not here, or too far back.
  constructor(log, onMissing) {
    this.log = log;
    this.onMissing = onMissing;
    this.name = null;
    // Counted up whenever what was being loaded is not wanted any more.
    this.turn = 0;
    this.busy = false;
    this.waiting = [];
    // Up to where the board is known to go, by others than its posts.
    this.end = 0;
    this.waker = new Waker();
  }

  // The way is free again: what waits for a page asks now.
  wake() {
    this.waker.wake();
  }

  // Reads the end of a board and shows it; with a place, as far back as that.
  async open(name, mark, place = null, seq = null) {
    const turn = ++this.turn;
    this.name = name;
    this.busy = true;
    this.waiting = [];
    this.end = 0;
    this.log.leave();
    let page = await this.read({ limit: PAGE }, turn);
    if (page === null) return;
    let shown = page.posts;
    const from = seq ?? place?.seq ?? Number.POSITIVE_INFINITY;
    const pages = seq === null ? PLACE_PAGES_MAX : ADDRESS_PAGES_MAX;
    for (let n = 0; page.truncated && shown[0]?.seq > from && n < pages; n += 1) {
      page = await this.read({ before: shown[0].seq, limit: CATCH_UP }, turn);
      if (page === null) return;
      shown = [...page.posts, ...shown];
    }
    this.log.show(shown, mark, page.truncated);
    this.log.goTo(place);
    if (seq !== null && !this.log.reveal(seq)) this.onMissing(seq);
    this.busy = false;
    this.settle();
  }

  // Shows one post, reading back to it if need be.
  async find(seq, mark) {
    if (!this.log.reveal(seq)) await this.open(this.name, mark, null, seq);
  }

  reload(mark) {
    return this.open(this.name, mark);
  }

  // A page, however long it takes; null when it is not wanted any more.
  async read(query, turn) {
    for (;;) {
      const answer = await readPosts(this.name, query);
      if (turn !== this.turn || answer.status === 401) return null;
      if (answer.status === 200) return answer.json;
      if (answer.status === 404) return { posts: [], truncated: false };
      await this.waker.wait(answer.retry_ms);
      if (turn !== this.turn) return null;
    }
  }

  // A post of the stream, or of an answer. Repeats are dropped, holes are filled first.
  add(post) {
    if (post.board !== this.name) return;
    this.waiting.push(post);
    if (!this.busy) this.settle();
  }

  // The board goes at least this far: what is missing before is read.
  reach(end) {
    if (end > this.end) this.end = end;
    if (!this.busy) this.settle();
  }

  settle() {
    this.waiting.sort((a, b) => a.seq - b.seq);
    while (this.waiting.length > 0) {
      const next = (this.log.last ?? 0) + 1;
      if (this.waiting[0].seq > next) {
        this.fill();
        return;
      }
      const post = this.waiting.shift();
      if (post.seq === next) this.log.append(post);
    }
    if (this.end > (this.log.last ?? 0)) this.fill();
  }

  async fill() {
    const turn = this.turn;
    this.busy = true;
    const page = await this.read({ after: this.log.last ?? 0, limit: CATCH_UP }, turn);
    if (page === null) return;
    this.busy = false;
    const first = this.waiting[0]?.seq ?? 0;
    this.waiting.push(...page.posts);
    // It was wrong, or is said again.
    if (page.posts.length === 0) this.end = 0;
    // What the stream showed but a read does not have is asked for again a little later.
    if (page.posts.length === 0 && first > (this.log.last ?? 0) + 1) {
      this.busy = true;
      await sleep(500);
      if (turn !== this.turn) return;
      this.busy = false;
    }
    this.settle();
  }

  async older() {
    if (this.busy || this.log.first === null) return;
    const turn = this.turn;
    this.busy = true;
    const page = await this.read({ before: this.log.first, limit: PAGE }, turn);
    if (page === null) return;
    this.log.prepend(page.posts, page.truncated);
    this.busy = false;
    this.settle();
  }
}
