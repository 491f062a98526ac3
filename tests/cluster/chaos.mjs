// Faults of random nodes, one after another, drawn from a seed, and what each cost people.

import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { sleep, until } from "../browser/cluster.mjs";
import { WHOLE_WITHIN_MS } from "./weigh.mjs";

const STOP_MS = [500, 5_000];
const PAUSE_MS = [1_500, 4_000];
// The database stays dead so long before it is started again.
const DATABASE_DEAD_MS = [0, 3_000];
// What faults of nodes are in the words of stories. A store that takes no writes stands still for whoever writes.
const KINDS = { "kill -9": "exit", SIGTERM: "stop", SIGSTOP: "pause" };
// What they are for those who stream at a master.
const STREAMS = { "kill -9": "killed", SIGTERM: "drained", SIGSTOP: "silent" };
// Time in which the launcher starts a node again, at most 10 s after it ended.
const RESTART_LIMIT_MS = 40_000;
// Time after which what a fault has done is known to everybody who can tell: two heartbeats.
const TOLD_MS = 1_000;

// Numbers from 0 to below 1 that depend on the seed alone (mulberry32).
export function drawn_from(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export class Chaos {
  // `loses_ms` says what a kill of a node of each role may cost a post; `before` is awaited before each fault; `hold`
  // holds the lock of a store in a file for so many seconds; `postgres` is the server of one on PostgreSQL; `note` is
  // told the kind and the node of a fault before it begins, and returns what notes its end.
  constructor({ cluster, seed, loses_ms, before, hold, postgres, note }) {
    Object.assign(this, { cluster, loses_ms, before, hold, postgres, note, faults: [], bag: [] });
    this.draw = drawn_from(seed);
    this.actions = ["kill -9", "SIGSTOP", "SIGTERM", postgres ? "kill -9 of the database" : "held store lock"];
  }

  pick(list) {
    return list[Math.floor(this.draw() * list.length)];
  }

  between([least, most]) {
    return Math.round(least + this.draw() * (most - least));
  }

  // Each action once in random order, then again.
  next() {
    if (this.bag.length === 0) {
      this.bag = [...this.actions];
      for (let last = this.bag.length - 1; last > 0; last -= 1) {
        const other = Math.floor(this.draw() * (last + 1));
        [this.bag[last], this.bag[other]] = [this.bag[other], this.bag[last]];
      }
    }
    // Drawn whether needed or not, so that what follows depends on no action.
    const [role, nth] = [this.pick(["master", "worker"]), this.draw()];
    const nodes = this.cluster.nodes.filter((node) => node.role === role);
    const [stop_ms, dead_ms, pause_ms] = [STOP_MS, DATABASE_DEAD_MS, PAUSE_MS].map((range) => this.between(range));
    return { action: this.bag.pop(), node: nodes[Math.floor(nth * nodes.length)], stop_ms, dead_ms, pause_ms };
  }

  async pid_of(node) {
    const { nodes } = JSON.parse(await readFile(join(this.cluster.dir, "cluster.json"), "utf8"));
    return nodes.find(({ name }) => name === node.name).pid;
  }

  // Ends a node, and waits until the launcher has started it again.
  async end(node, signal) {
    const pid = await until(`process of ${node.name}`, () => this.pid_of(node));
    this.cluster.signal(node.name, pid, signal);
    await this.started_again(node, pid);
  }

  // Waits until the launcher has started a node again whose process had this number.
  async started_again(node, pid) {
    const is_new = async () => {
      const now = await this.pid_of(node);
      return now && now !== pid;
    };
    await until(`new process of ${node.name}`, is_new, RESTART_LIMIT_MS);
  }

  // Waits until every master serves, and sees every node in and the store reached by all, and all masters have each
  // node at the same place. The last fault was just undone.
  async whole() {
    const { cluster } = this;
    await sleep(TOLD_MS);
    const is_whole = async () => {
      cluster.nodes = JSON.parse(await readFile(join(cluster.dir, "cluster.json"), "utf8")).nodes;
      cluster.masters = cluster.nodes.filter((node) => node.role === "master");
      const places = new Set();
      for (const master of cluster.masters) {
        if (!(await cluster.isReady(master))) throw new Error(`${master.name} is not ready`);
        const { nodes, store } = await cluster.view(master);
        const here = nodes.filter((node) => node.state === "in" && node.reaches_store !== false);
        const is_all = store === "strong" && here.length === cluster.nodes.length;
        if (!is_all) throw new Error(`${master.name}: ${store}, in are ${here.map(({ name }) => name)}`);
        places.add(`${here.map((node) => `${node.name}: ${node.registration} at ${node.master}`).sort()}`);
      }
      if (places.size > 1) throw new Error(`masters disagree: ${[...places].join(" or ")}`);
      return true;
    };
    await until("the whole cluster", is_whole, WHOLE_WITHIN_MS - TOLD_MS);
  }

  // Goes on with faults until that time; `say` is told of each when it is over and all is whole.
  // Each action has its turn even if that takes longer.
  async run(ends, say) {
    while (Date.now() < ends || this.faults.length < this.actions.length) {
      const { action, node, stop_ms, dead_ms, pause_ms } = this.next();
      await this.before();
      // What ends by itself hands its work over.
      const loses_ms = action === "SIGTERM" ? 0 : this.loses_ms[node.role];
      const fault = { action, node: node.name, from: Date.now(), loses_ms };
      const is_masters = node.role === "master" && KINDS[action];
      if (is_masters) Object.assign(fault, { how: STREAMS[action], url: this.cluster.url(node) });
      this.faults.push(fault);
      const at_store = !KINDS[action];
      const over = this.note(at_store ? (this.postgres ? "exit" : "pause") : KINDS[action], at_store ? "store" : node.name);
      if (action === "kill -9" || action === "SIGTERM") {
        await this.end(node, action === "SIGTERM" ? "SIGTERM" : "SIGKILL");
      } else if (action === "SIGSTOP") {
        Object.assign(fault, { action: `SIGSTOP, ${stop_ms} ms`, loses_ms: stop_ms });
        const pid = await until(`process of ${node.name}`, () => this.pid_of(node));
        process.kill(pid, "SIGSTOP");
        try {
          await sleep(stop_ms);
        } finally {
          process.kill(pid, "SIGCONT");
        }
      } else if (action === "held store lock") {
        Object.assign(fault, { action: `${action}, ${stop_ms} ms`, node: "store" });
        const lock = this.hold(stop_ms / 1000);
        await lock.held;
        fault.from = Date.now();
        await lock.ended;
        fault.loses_ms = Date.now() - fault.from;
      } else {
        Object.assign(fault, { action: `kill -9, dead for ${dead_ms} ms`, node: "postgres" });
        await this.postgres.kill();
        await sleep(dead_ms);
        await this.postgres.start_again();
        fault.loses_ms = Date.now() - fault.from;
      }
      over();
      fault.over = Date.now();
      await this.whole();
      fault.whole = Date.now();
      await sleep(pause_ms);
      fault.end = Date.now();
      say(fault);
    }
  }
}
