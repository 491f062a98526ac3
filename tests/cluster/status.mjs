// What the masters say of the cluster meanwhile: a line at each change, and `chatctl status` when asked.

import { execFile } from "node:child_process";
import { dirname, join } from "node:path";
import { promisify } from "node:util";

import { sleep } from "../browser/cluster.mjs";

const run = promisify(execFile);

export class StatusLog {
  constructor(cluster) {
    Object.assign(this, { cluster, begun: Date.now(), last: new Map(), running: false });
  }

  at() {
    const s = (Date.now() - this.begun) / 1000;
    return `[${s.toFixed(1).padStart(6)}s]`;
  }

  start() {
    this.running = true;
    this.done = this.watch();
  }

  async stop() {
    this.running = false;
    await this.done;
  }

  say_at_next_change() {
    this.last.clear();
  }

  async watch() {
    while (this.running) {
      for (const master of this.cluster.masters) {
        const line = await this.line(master).catch((error) => `no answer (${error.name})`);
        if (this.last.get(master.name) !== line) console.log(`${this.at()} ${master.name}: ${line}`);
        this.last.set(master.name, line);
      }
      await sleep(500);
    }
  }

  async line(master) {
    const ready = await fetch(`${this.cluster.url(master)}/readyz`, { signal: AbortSignal.timeout(1000) });
    const body = await ready.text();
    const view = await this.cluster.view(master);
    const workers = view.nodes.filter((node) => node.role === "worker");
    const say = workers.map((node) => `${node.name} ${node.state}${node.reaches_store === false ? " without store" : ""}`).sort();
    const failed = view.failed.map((node) => `${node.why}`);
    return `readyz ${ready.status} ${body.trim()}; ${view.store}; ${say.join(", ")}${failed.length ? `; failed: ${failed}` : ""}`;
  }

  // Prints what an operator would see now.
  async show() {
    const { cluster } = this;
    const args = ["status", "--data-dir", cluster.dir];
    const shown = await run(join(dirname(cluster.bin), "chatctl"), args, { timeout: 10_000 }).catch((error) => ({
      stdout: `${error.stdout ?? ""}${error.stderr ?? error.message}`,
    }));
    const lines = shown.stdout.trimEnd().split("\n");
    console.log(lines.slice(0, 40).map((line) => `      | ${line}`).join("\n"));
  }
}
