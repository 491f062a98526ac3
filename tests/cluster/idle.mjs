// Many people who only listen: each has a session and a stream, which is read over a bare socket.

import { randomUUID } from "node:crypto";
import http from "node:http";
import net from "node:net";

import { sleep, until } from "../browser/cluster.mjs";

// People of one address: fewer than the sessions that a master opens at once for it.
const PER_ADDRESS = 900;
const AT_ONCE = 16;
// Time between two signs of life of one session, as the page has it.
const ALIVE_MS = 12_000;
// Times that a stream is asked for.
const TRIES = 3;
const MARK = /mark (\d+)\./g;
// Longest beginning of a mark that can end a piece.
const CARRY = 16;

export class IdlePeople {
  constructor(url) {
    const { hostname, port } = new URL(url);
    Object.assign(this, { hostname, port: Number(port), open: 0, ended: 0, wrong: [], sockets: [], agents: new Map(), closed: false });
  }

  // The address from which the nth person comes.
  address(nth) {
    return `127.0.1.${1 + Math.floor(nth / PER_ADDRESS)}`;
  }

  call(from, method, path, token, body) {
    const agent = this.agents.get(from) ?? new http.Agent({ keepAlive: true, maxSockets: 4, localAddress: from });
    this.agents.set(from, agent);
    return new Promise((done, failed) => {
      const bytes = body === undefined ? "" : JSON.stringify(body);
      const headers = { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(bytes) };
      if (token) headers.Authorization = `Bearer ${token}`;
      const options = { host: this.hostname, port: this.port, method, path: `/api/v1${path}`, headers, agent };
      const request = http.request(options, (answer) => {
        let text = "";
        answer.setEncoding("utf8");
        answer.on("data", (part) => (text += part));
        answer.on("end", () => {
          if (answer.statusCode >= 300) return failed(new Error(`${method} ${path}: ${answer.statusCode} ${text}`));
          done(text ? JSON.parse(text) : undefined);
        });
        answer.on("error", failed);
      });
      request.on("error", failed);
      request.end(bytes);
    });
  }

  async open_session(name, nth = 0) {
    const { token } = await this.call(this.address(nth), "POST", "/sessions", undefined, { name });
    return token;
  }

  async in_turn(count, what) {
    let next = 0;
    const one = async () => {
      while (next < count) await what(next++);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, one));
  }

  async open_sessions(count) {
    const tokens = [];
    await this.in_turn(count, async (nth) => {
      tokens[nth] = await this.open_session(`idle ${nth}`, nth);
    });
    return tokens;
  }

  // Answers beats for all sessions in turn, as their pages do.
  async keep_alive(tokens) {
    while (!this.closed) {
      const from = Date.now();
      for (let nth = 0; nth < tokens.length && !this.closed; nth += 1) {
        this.call(this.address(nth), "POST", "/session/alive", tokens[nth]).catch((error) => this.closed || this.wrong.push(error.message));
        const due = from + (ALIVE_MS * (nth + 1)) / tokens.length;
        if (due - Date.now() > 20) await sleep(due - Date.now());
      }
      await sleep(Math.max(10, from + ALIVE_MS - Date.now()));
    }
  }

  async open_streams(tokens) {
    await this.in_turn(tokens.length, async (nth) => {
      for (let tries = 1; ; tries += 1) {
        const failed = await this.open_stream(nth, tokens[nth]).catch((error) => error);
        if (!failed) return;
        // A busy machine may take longer than the master waits.
        if (tries === TRIES) throw failed;
        await sleep(200);
      }
    });
    await until(`${tokens.length} streams`, () => this.open === tokens.length, 30_000);
  }

  open_stream(nth, token) {
    return new Promise((done, failed) => {
      const socket = net.connect({ host: this.hostname, port: this.port, localAddress: this.address(nth) });
      let [said, seen, carry] = [false, 0, ""];
      socket.write(`GET /api/v1/stream?boards=lobby HTTP/1.1\r\nHost: ${this.hostname}:${this.port}\r\nAuthorization: Bearer ${token}\r\n\r\n`);
      socket.on("data", (bytes) => {
        const text = carry + bytes.latin1Slice();
        let from = 0;
        for (const found of text.matchAll(MARK)) {
          const mark = Number(found[1]);
          if (mark !== seen + 1) this.wrong.push(`stream ${nth}: post ${mark} after post ${seen}`);
          if (mark === this.mark) this.arrivals.push(performance.now() - this.sent);
          seen = mark;
          from = found.index + found[0].length;
        }
        carry = text.slice(Math.max(from, text.length - CARRY));
        if (said || !text.includes("event: hello")) return;
        said = true;
        this.open += 1;
        done();
      });
      socket.on("error", () => {});
      socket.on("close", () => {
        if (!said) return failed(new Error(`stream ${nth} did not open: ${carry || "closed"}`));
        this.open -= 1;
        if (!this.closed) this.ended += 1;
      });
      this.sockets.push(socket);
    });
  }

  // Notes from now on when the post of this number reaches each stream.
  expect(mark, sent) {
    Object.assign(this, { mark, sent, arrivals: [] });
    return this.arrivals;
  }

  post(token, text) {
    return this.call(this.address(0), "POST", "/boards/lobby/posts", token, { id: randomUUID(), text });
  }

  close() {
    this.closed = true;
    for (const socket of this.sockets) socket.destroy();
    for (const agent of this.agents.values()) agent.destroy();
  }
}
