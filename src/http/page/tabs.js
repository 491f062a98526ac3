// All tabs of one person on one origin: one leads (holds the stream, drives the outbox), the
// others follow what it tells them. Browsers allow six connections per host, and a stream is one.
//
// Locks of the browser are no help: they are missing on most plain addresses, and one stays held
// by a tab that hangs.

import { Election } from "./election.js";
import { isBoardName } from "./shapes.js";

const TICK_MS = 250;
// All tabs that can answer have done so by then.
const ROLL_CALL_MS = 400;
// With the leader's own board, what one stream can follow.
const READERS_MAX = 31;

export class Tabs {
  // `tab` names this tab. `onLead()` when it begins to lead, `onFollow()` when another one does
  // instead, `onDeaf()` when no leader is heard; `onTold(message)` for what the leader says,
  // `onAsked()` for a tab that wants to know all, `onShared(message)` for what any tab says to all;
  // `onReads(board)` when another tab says what it reads; `onRollCall(tabs)` once, with the names of
  // the other living tabs.
  constructor(name, tab, listeners) {
    Object.assign(this, { tab, ...listeners });
    this.election = new Election(tab);
    this.wasLeading = false;
    this.wasConnected = false;
    this.living = new Set();
    // What this tab reads, and what each other one does, the one heard last at the end.
    this.board = null;
    this.readers = new Map();
    this.channel = new BroadcastChannel(name);
    this.channel.onmessage = ({ data }) => this.hear(data);
    this.post({ who: tab });
    setTimeout(() => this.onRollCall(this.living), ROLL_CALL_MS);
    this.timer = setInterval(() => this.tick(), TICK_MS);
    this.tick();
    addEventListener("pagehide", () => this.close());
  }

  get leading() {
    return this.election.leading;
  }

  // The boards of the other tabs, which whoever leads follows for them.
  get readElsewhere() {
    return [...this.readers.values()].reverse();
  }

  // Says which board this tab reads. All remember it: any of them may lead next.
  read(board) {
    this.board = board;
    this.post({ here: this.tab, reads: board });
  }

  hear(data) {
    if (data.who) this.post({ here: this.tab, reads: this.board });
    if (data.here) this.meet(data.here, data.reads);
    if (data.gone) this.readers.delete(data.gone);
    if (data.shared) this.onShared(data.shared);
    if (data.word) this.say(this.election.hear(data.word, performance.now()));
    if (data.ask && this.leading) this.onAsked();
    if (data.tell && !this.leading) this.onTold(data.tell);
  }

  meet(tab, board) {
    this.living.add(tab);
    if (!isBoardName(board)) return;
    this.readers.delete(tab);
    this.readers.set(tab, board);
    // One that crashed never says that it is gone.
    if (this.readers.size > READERS_MAX) this.readers.delete(this.readers.keys().next().value);
    this.onReads(board);
  }

  // Also whenever the stream is heard: a hidden tab's timers are slow.
  tick() {
    if (this.channel) this.say(this.election.tick(performance.now()));
  }

  say(words) {
    for (const word of words) this.post({ word });
    const connected = this.election.isConnected(performance.now());
    if (this.leading && !this.wasLeading) queueMicrotask(() => this.leading && this.onLead());
    if (!this.leading && this.wasLeading) queueMicrotask(() => this.leading || this.onFollow());
    if (!this.leading && this.wasConnected && !connected) queueMicrotask(() => this.onDeaf());
    if (!this.leading && connected && (this.wasLeading || !this.wasConnected)) this.post({ ask: true });
    this.wasLeading = this.leading;
    this.wasConnected = connected;
  }

  tell(message) {
    this.tick();
    if (this.leading) this.post({ word: this.election.say("beat"), tell: message });
  }

  share(message) {
    this.post({ shared: message });
  }

  post(message) {
    this.channel?.postMessage(message);
  }

  close() {
    if (!this.channel) return;
    this.post({ gone: this.tab });
    for (const word of this.election.leave()) this.post({ word });
    clearInterval(this.timer);
    this.channel.close();
    this.channel = null;
  }
}
