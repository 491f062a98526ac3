// People of the endurance run: who writes, who reads, and many streams that only listen.

import { randomUUID } from "node:crypto";
import http from "node:http";
import https from "node:https";

import { sleep, until } from "../browser/cluster.mjs";
import { answered, failed } from "./history.mjs";

const agent = new http.Agent({ keepAlive: true, maxSockets: 512 });
const tls_agent = new https.Agent({ keepAlive: true, maxSockets: 512 });
// What connections by TLS take besides: whom they trust, and where names are.
let tls = {};

// From now on every name of an https URL is at this address, and this certificate is trusted.
export function reach_by_tls(address, ca) {
  const lookup = (_, options, done) => (options.all ? done(null, [{ address, family: 4 }]) : done(null, address, 4));
  tls = { ca, lookup };
}

// A request to a URL of either kind, as `http.request` makes it.
export function request_to(url, options, on_answer) {
  if (!url.startsWith("https:")) return http.request(url, { agent, ...options }, on_answer);
  // As pages do: a master answers to no foreign name, and takes requests from no foreign page.
  const headers = { Origin: new URL(url).origin, ...options.headers };
  return https.request(url, { agent: tls_agent, ...tls, ...options, headers }, on_answer);
}

// Each time after so many posts a person restores its session once, at the master that is next.
const RESTORES_AFTER = 30;
// Time without a byte after which a stream is given up.
const SILENCE_MS = 9_000;
// The patience of the library's client (`src/client/mod.rs`, `src/client/chat.rs`). Longest time until an answer, and until
// a connection, and until a master says whether it is ready.
const ANSWER_MS = 12_000;
const CONNECT_MS = 1_500;
// Time for which a master may owe an answer before it is asked whether it is ready, and such questions in a row that it may miss.
const SILENT_AFTER_MS = 2_000;
const MISSED_MAX = 2;
// Time after which a silent master is left in all.
export const LEFT_AFTER_MS = SILENT_AFTER_MS + MISSED_MAX * CONNECT_MS;

// Sends one request; gives `{status, body, goes, retry_after}`, or throws when no answer came. A master that `goes` is about to
// end, and answers no further request. `watch` gives the master up before the limit once it is silent.
function ask(url, method, path, { token, body, limit_ms = ANSWER_MS, watch = false, agent } = {}) {
  return new Promise((done, failed) => {
    const bytes = body === undefined ? undefined : JSON.stringify(body);
    const headers = {};
    if (token) headers.Authorization = `Bearer ${token}`;
    if (bytes !== undefined) Object.assign(headers, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(bytes) });
    const request = request_to(`${url}${path}`, { method, headers, ...(agent !== undefined && { agent }) }, (answer) => {
      let text = "";
      answer.setEncoding("utf8");
      answer.on("data", (part) => (text += part));
      answer.on("end", () => {
        try {
          const goes = answer.headers.connection === "close";
          const retry_after = answer.headers["retry-after"];
          done({ status: answer.statusCode, body: text ? JSON.parse(text) : undefined, goes, retry_after });
        } catch (error) {
          failed(error);
        }
      });
      answer.on("error", failed);
    });
    // Not the socket's own limit, which does not count the time until it is connected.
    const limits = [setTimeout(() => request.destroy(new Error("no answer")), limit_ms)];
    let is_over = false;
    request.on("socket", (socket) => {
      if (!socket.connecting) return;
      const limit = setTimeout(() => request.destroy(new Error("no connection")), CONNECT_MS);
      limits.push(limit);
      socket.once("connect", () => clearTimeout(limit));
    });
    request.on("close", () => {
      is_over = true;
      limits.forEach(clearTimeout);
    });
    if (watch) {
      const look = async (missed) => {
        const is_heard = await is_ready(url).then(() => true, () => false);
        if (is_over) return;
        if (is_heard) limits.push(setTimeout(look, SILENT_AFTER_MS, 0));
        else if (missed + 1 < MISSED_MAX) await look(missed + 1);
        else request.destroy(new Error("silent"));
      };
      limits.push(setTimeout(look, SILENT_AFTER_MS, 0));
    }
    request.on("error", (error) => {
      if (request.reusedSocket) error.on = " on a kept connection";
      failed(error);
    });
    request.end(bytes);
  });
}

// Whether a master takes people; throws when it does not say so in time. Asked on a connection of its own.
async function is_ready(url) {
  const { status, body } = await ask(url, "GET", "/readyz", { limit_ms: CONNECT_MS, agent: false });
  return status === 200 && body?.ready === true;
}

// Who writes a post a second to one board, each until it is acknowledged, over whichever master answers. Moves on as the
// library's client does, but tries again sooner: figures are to show the cluster, and not pauses.
export class Person {
  // Where all of them write down what they saw, if anywhere.
  static history;

  static async join(urls, nth, board, every_ms = 1000) {
    const person = new Person();
    Object.assign(person, { urls, board, every_ms, sent: [], turned_away: [], running: true });
    person.stand_at(nth);
    const opened = await person.until_done("POST", "/sessions", { name: `person ${nth}` });
    ({ token: person.token, epoch: person.epoch } = opened);
    person.number = Person.history?.person(opened.user.id);
    return person;
  }

  // Sends a request of this person, and writes down what became of it. `request` is as the judge knows it. With `watch` a
  // silent master is left, if there is another one to turn to.
  async ask(url, method, path, body, request, { watch = false } = {}) {
    const on_end = request && Person.history?.call(this.number, url, request);
    try {
      const said = await ask(url, method, `/api/v1${path}`, { token: this.token, body, watch: watch && this.urls.length > 1 });
      on_end?.(answered(request, said.status, said.body) ?? failed(said.status, said.retry_after));
      return said;
    } catch (error) {
      on_end?.(failed(undefined, undefined, error));
      throw error;
    }
  }

  get url() {
    return this.urls[this.at % this.urls.length];
  }

  // Goes to the master of this number, counted round, as if none had ever failed.
  stand_at(nth) {
    Object.assign(this, { at: nth, failed: new Map(), failures: 0, doubts: false });
  }

  // Leaves a master for the one that failed the longest ago, or never, and of those for the next one.
  leave(url) {
    if (this.url !== url) return;
    this.failed.set(url, (this.failures += 1));
    const last = (at) => this.failed.get(this.urls[at % this.urls.length]) ?? 0;
    const others = this.urls.map((_, nth) => this.at + 1 + nth);
    this.at = others.reduce((best, at) => (last(at) < last(best) ? at : best));
    this.doubts = true;
  }

  // The master to ask. One in doubt says first whether it is ready: a post would wait for a silent one much longer.
  async next_url() {
    for (let nth = 0; nth < this.urls.length && this.urls.length > 1; nth += 1) {
      const url = this.url;
      if (!this.doubts || (await is_ready(url).catch(() => false))) return url;
      this.leave(url);
    }
    return this.url;
  }

  async until_done(method, path, body, request) {
    for (;;) {
      const url = await this.next_url();
      let why;
      try {
        const { status, body: answer, goes } = await this.ask(url, method, path, body, request, { watch: true });
        if (this.url === url) this.doubts = false;
        if (goes) this.at += 1;
        if (status === 200 || status === 201 || status === 204) return answer;
        // 202: held until the store is back; it is sent until it has its place.
        if (status < 500 && status !== 429 && status !== 202) throw new Error(`${method} ${path}: ${status} ${JSON.stringify(answer)}`, { cause: "final" });
        why = `status ${status}`;
      } catch (error) {
        if (error.cause === "final") throw error;
        why = `${error.code ?? error.message}${error.on ?? ""}`;
      }
      this.turned_away.push({ at: Date.now(), url, why });
      // One that holds a post goes on with it.
      if (why !== "status 202") this.leave(url);
      await sleep(200);
    }
  }

  async create(board) {
    const { status } = await this.ask(this.url, "PUT", `/boards/${board}`, undefined, { ask: "create_board", board });
    return status;
  }

  // One post with one try, whose answer counts.
  async post_once(board) {
    const post = { id: randomUUID(), text: "one" };
    const request = { ask: "post", board, ...post };
    const { status, body } = await this.ask(this.url, "POST", `/boards/${board}/posts`, post, request);
    return status === 201 ? status : `${status} ${body?.type}`;
  }

  // With an offset the posts come at it in each period, whatever the last one waited: people do not write in step then.
  start(offset_ms) {
    this.offset_ms = offset_ms;
    this.done = this.run();
  }

  stop() {
    this.running = false;
  }

  until_next(first) {
    const now = Date.now();
    if (this.offset_ms === undefined) return Math.max(0, first + this.every_ms - now);
    return this.every_ms - ((now - this.offset_ms) % this.every_ms);
  }

  async run() {
    if (this.offset_ms !== undefined) await sleep(this.until_next());
    while (this.running) {
      const post = { board: this.board, id: randomUUID(), first: Date.now() };
      this.sent.push(post);
      const body = { id: post.id, text: `post ${this.sent.length}` };
      const request = { ask: "post", board: this.board, ...body };
      const { seq } = await this.until_done("POST", `/boards/${this.board}/posts`, body, request);
      Object.assign(post, { seq, acked: Date.now() });
      // Not all at once: what one fault keeps one from, another person does.
      if (Person.history && (this.sent.length + 4 * this.number) % RESTORES_AFTER === 0) await this.restore();
      await sleep(this.until_next(post.first));
    }
  }

  async restore() {
    const url = this.urls[(this.at + 1) % this.urls.length];
    // The judge weighs what became of it.
    await this.ask(url, "GET", "/session", undefined, { ask: "restore" }, { watch: true }).catch(() => {});
  }

  async read_all(board) {
    const all = [];
    for (;;) {
      const page = await this.until_done("GET", `/boards/${board}/posts?after=${all.length}&limit=200`);
      all.push(...page.posts);
      if (page.posts.length === 0 || all.length >= page.last_seq) return all;
    }
  }
}

// Streams of one reader, one after another: at which master each began, when it ended and when the next one began; and
// what was answered instead.
class Track {
  constructor() {
    Object.assign(this, { spans: [], refusals: [] });
  }

  get last() {
    return this.spans.at(-1);
  }

  get is_on() {
    return this.last !== undefined && this.last.ended === undefined;
  }

  is_at(url) {
    return this.is_on && this.last.url === url;
  }

  begin(url) {
    if (this.last) this.last.again = Date.now();
    this.spans.push({ url, began: Date.now() });
  }

  // `by_choice` if the reader itself went away.
  end(url, status, by_choice = false) {
    if (status) this.refusals.push({ url, status });
    if (this.is_on) Object.assign(this.last, { ended: Date.now(), by_choice });
  }
}

// One stream of events; calls `on_event(name, id, data)` and `on_end(status)`, with the status if there was no stream.
export function stream(url, token, path, headers, on_event, on_end) {
  let ended = false;
  const end = (status) => {
    if (!ended) on_end(status);
    ended = true;
  };
  const request = request_to(`${url}/api/v1/stream?${path}`, { agent: false, headers: { Authorization: `Bearer ${token}`, ...headers } }, (answer) => {
    if (answer.statusCode !== 200) {
      answer.resume();
      request.destroy();
      return end(answer.statusCode);
    }
    let text = "";
    answer.setEncoding("utf8");
    answer.on("data", (part) => {
      text += part;
      const blocks = text.split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const fields = Object.fromEntries(
          block.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trim()]),
        );
        on_event(fields.event ?? "message", fields.id, fields.data);
      }
    });
    for (const event of ["end", "error", "close"]) answer.on(event, () => end());
  });
  // Two beats missed mean that the master is gone, and so does a connection that does not come about.
  request.setTimeout(SILENCE_MS, () => request.destroy());
  const limit = setTimeout(() => request.destroy(), SILENCE_MS);
  request.on("response", () => clearTimeout(limit));
  request.on("close", () => clearTimeout(limit));
  request.on("error", () => end());
  request.end();
  return request;
}

// Who reads one board from its first post on, over every master that there is, and notes each gap.
export class Reader {
  constructor(urls, person, board, nth) {
    const cursor = `${person.epoch};${board}:0`;
    Object.assign(this, { urls, person, board, at: nth, seq: 0, cursor, gaps: [], hellos: 0, running: true });
    this.track = new Track();
    this.number = Person.history?.reader();
  }

  start() {
    this.at = this.next ?? this.at;
    this.next = undefined;
    const url = this.url_of(this.at);
    const path = `boards=${this.board}&cursor=${encodeURIComponent(this.cursor)}`;
    const log = Person.history?.stream(this.person.number, this.number, url, [this.board], this.cursor);
    this.request = stream(
      url,
      this.person.token,
      path,
      {},
      (name, id, data) => {
        log?.event(name, id, data);
        this.cursor = id ?? this.cursor;
        if (name === "hello" && !this.track.is_on) this.track.begin(url);
        if (name === "hello") Object.assign(this, { master: JSON.parse(data).node.name, hellos: this.hellos + 1 });
        if (name === "reset") this.gaps.push(`reset ${data}`);
        if (name !== "post") return;
        const { seq } = JSON.parse(data);
        if (seq > this.seq + 1) this.gaps.push(`${seq} after ${this.seq}`);
        this.seq = Math.max(this.seq, seq);
        this.on_post?.(seq);
      },
      async (status) => {
        if (this.running) log?.end(status);
        this.track.end(url, status, this.next !== undefined);
        this.at += 1;
        await sleep(200);
        if (this.running) this.start();
      },
    );
  }

  url_of(nth) {
    return this.urls[nth % this.urls.length];
  }

  // Goes to the master of this number, counted round, by itself.
  move(nth) {
    if (this.track.is_at(this.url_of(nth))) return;
    this.next = nth;
    this.request.destroy();
  }

  stop() {
    this.running = false;
    this.request.destroy();
  }
}

// Has the nth of these readers read at the nth master, counted round: a fault may have left all of them at one, and the
// next fault would concern nobody then.
export async function spread(readers) {
  readers.forEach((reader, nth) => reader.move(nth));
  const is_there = (reader, nth) => reader.track.is_at(reader.url_of(nth));
  await until("all readers at their masters", () => readers.every(is_there));
}

// Many streams of the lobby, which move to the next master when theirs ends.
export class Streams {
  // A session may have 32; a reader may have one more of it.
  static PER_SESSION = 30;

  constructor(urls, people, count) {
    const sessions = Math.ceil(count / Streams.PER_SESSION);
    Object.assign(this, { urls, people, count, sessions, open: 0, opened: 0, gaps: [], running: true, where: new Map(), requests: new Set() });
    this.all = [];
  }

  get tracks() {
    return this.all.map((one) => one.track);
  }

  // Those that lack posts of a lobby of this length.
  behind(length) {
    return this.all.filter((one) => !(one.seq >= length));
  }

  at(url) {
    return this.where.get(url) ?? 0;
  }

  async open_all(url) {
    const tokens = [];
    for (let nth = 0; nth < this.sessions; nth += 1) tokens.push((await Person.join(this.urls, this.urls.indexOf(url), "lobby")).token);
    for (let nth = 0; nth < this.count; nth += 1) {
      this.all.push({ at: this.urls.indexOf(url), token: tokens[nth % tokens.length], track: new Track() });
      this.start(this.all.at(-1));
      if (nth % 50 === 49) await sleep(50);
    }
    const end = Date.now() + 30_000;
    while (this.open < this.count) {
      if (Date.now() > end) throw new Error(`only ${this.open} of ${this.count} streams opened`);
      await sleep(100);
    }
  }

  start(one) {
    const url = this.urls[one.at % this.urls.length];
    let on = false;
    const request = stream(
      url,
      one.token,
      "boards=lobby",
      one.last ? { "Last-Event-ID": one.last } : {},
      (name, id) => {
        if (name === "hello" && !on) {
          on = true;
          this.open += 1;
          this.opened += 1;
          this.where.set(url, this.at(url) + 1);
          one.track.begin(url);
        }
        this.follow(one, name, id);
      },
      async (status) => {
        this.requests.delete(request);
        if (on) {
          this.open -= 1;
          this.where.set(url, this.at(url) - 1);
        }
        one.track.end(url, status);
        one.at += 1;
        await sleep(100 + Math.random() * 200);
        if (this.running) this.start(one);
      },
    );
    this.requests.add(request);
  }

  // Notes how far a stream is in the lobby, and each hole.
  follow(one, name, id) {
    if (!id) return;
    // A board that has no place in a cursor has no posts.
    const seq = Number(/[;,]lobby:(\d+)/.exec(id)?.[1] ?? 0);
    if (name === "reset") this.gaps.push("reset");
    // The first one begins at the end, any other one where the last one was.
    if (one.last === undefined) one.seq = seq;
    else if (seq > one.seq + (name === "post" ? 1 : 0)) this.gaps.push(`${name} ${id} after ${one.last}`);
    one.seq = Math.max(one.seq, seq);
    one.last = id;
  }

  stop() {
    this.running = false;
    for (const request of this.requests) request.destroy();
  }
}
