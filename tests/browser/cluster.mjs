// A cluster in a directory of its own: starts it, finds its nodes, stops and kills them by pid.

import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// Waits until `look` gives something, and says what it waited for when it does not.
export async function until(what, look, limit_ms = 5000) {
  const end = Date.now() + limit_ms;
  let last = "";
  for (;;) {
    try {
      const found = await look();
      if (found) return found;
      last = JSON.stringify(found) ?? "nothing";
    } catch (error) {
      last = error.message;
    }
    if (Date.now() > end) throw new Error(`no ${what} within ${limit_ms} ms (last: ${last})`);
    await sleep(50);
  }
}

// How the launcher says that a node ended which got a signal.
const ENDS_BY = { SIGKILL: "(signal 9)", SIGTERM: "(exit code 0)" };

const isFree = (port) =>
  new Promise((done) => {
    const server = createServer();
    server.once("error", () => done(false));
    server.listen(port, "127.0.0.1", () => server.close(() => done(true)));
  });

// A port P such that what the launcher takes (P+i, P+100+i, P+200+i) is free, below the range
// that the system hands out by itself.
async function freePorts(masters) {
  for (let tries = 0; tries < 100; tries += 1) {
    const base = 10_000 + Math.floor(Math.random() * 20_000);
    const ports = [0, 100, 200].flatMap((offset) =>
      Array.from({ length: masters }, (_, i) => base + offset + i),
    );
    if ((await Promise.all(ports.map(isFree))).every(Boolean)) return base;
  }
  throw new Error("no free ports");
}

export class Cluster {
  static async start({ bin, masters = 3, workers = 3, dir, flags = [] }) {
    const cluster = new Cluster();
    cluster.bin = bin;
    cluster.dir = dir ?? (await mkdtemp(join(tmpdir(), "chatchat-browser-")));
    const port = await freePorts(masters);
    const args = ["--masters", masters, "--workers", workers, "--data-dir", cluster.dir, "--http-port", port, ...flags];
    cluster.output = "";
    cluster.expected = [];
    cluster.process = spawn(bin, args.map(String), { stdio: ["ignore", "pipe", "pipe"] });
    cluster.ended = new Promise((done) => cluster.process.once("exit", done));
    for (const stream of [cluster.process.stdout, cluster.process.stderr]) {
      stream.on("data", (bytes) => (cluster.output += bytes));
    }
    cluster.process.once("error", (error) => (cluster.output += error.message));
    const begun = Date.now();
    try {
      await until(
        "cluster.json with all nodes",
        async () => {
          if (cluster.process.exitCode !== null) throw new Error("the launcher ended");
          cluster.nodes = JSON.parse(await readFile(join(cluster.dir, "cluster.json"), "utf8")).nodes;
          return cluster.nodes.length === masters + workers && cluster.nodes.every((node) => node.pid);
        },
        30_000,
      );
      cluster.masters = cluster.nodes.filter((node) => node.role === "master");
      cluster.workers = cluster.nodes.filter((node) => node.role === "worker");
      await until(
        "ready masters",
        async () => (await Promise.all(cluster.masters.map((m) => cluster.isReady(m)))).every(Boolean),
        30_000,
      );
      await until(
        "workers that joined",
        async () => {
          const { nodes } = await cluster.view(cluster.masters[0]);
          return nodes.filter((node) => node.role === "worker" && node.state === "in").length === workers;
        },
        30_000,
      );
    } catch (error) {
      const { output } = cluster;
      await cluster.stop().catch(() => {});
      throw new Error(`${error.message}\n${output}`);
    }
    cluster.started_ms = Date.now() - begun;
    return cluster;
  }

  url(master) {
    return master.http.startsWith("http") ? master.http : `http://${master.http}`;
  }

  async isReady(master) {
    const answer = await fetch(`${this.url(master)}/readyz`, { signal: AbortSignal.timeout(1000) });
    return answer.ok;
  }

  // A master's whole view, as operators see it.
  async view(master) {
    this.token ??= (await readFile(join(this.dir, "admin.token"), "utf8")).trim();
    const base = master.admin.startsWith("http") ? master.admin : `http://${master.admin}`;
    const answer = await fetch(`${base}/api/v1/admin/cluster`, {
      headers: { Authorization: `Bearer ${this.token}` },
      signal: AbortSignal.timeout(1000),
    });
    if (!answer.ok) throw new Error(`the admin listener answered ${answer.status}`);
    return answer.json();
  }

  kill(node, signal = "SIGKILL") {
    this.signal(node.name, node.pid, signal);
    if (signal === "SIGKILL") node.dead = true;
  }

  // Gives a signal to a node's process of that number, whose end by it is no crash.
  signal(name, pid, signal) {
    process.kill(pid, signal);
    if (ENDS_BY[signal]) this.expect_end(name, ENDS_BY[signal]);
  }

  // Notes that a node is to end so, in the launcher's words: once, or as often as it likes.
  expect_end(name, how, { often = false } = {}) {
    this.expected.push({ name, how, often });
  }

  // Ends of nodes of which none was expected, as the launcher told them, and panics.
  async crashes() {
    const expected = [...this.expected];
    const is_crash = (line) => {
      const name = /^(\S+) ended \(/.exec(line)?.[1];
      if (!name) return false;
      const nth = expected.findIndex((end) => end.name === name && line.includes(end.how));
      if (nth >= 0 && !expected[nth].often) expected.splice(nth, 1);
      return nth < 0;
    };
    const lines = this.output.split("\n");
    const found = lines.filter((line) => is_crash(line) || line.includes("panicked"));
    for (const { name } of this.nodes ?? []) {
      // A long log was begun anew once.
      for (const log of ["log", "log.1"]) {
        const text = await readFile(join(this.dir, name, log), "utf8").catch(() => "");
        const panics = text.split("\n").filter((line) => line.includes(" panicked at "));
        found.push(...panics.map((line) => `${name}: ${line}`));
      }
    }
    return found;
  }

  // Throws at the end if the launcher or a node ended that nobody was to end, or panicked.
  async stop({ keep = false } = {}) {
    const was_gone = this.process.exitCode !== null || this.process.signalCode !== null;
    if (this.process.exitCode === null && this.process.signalCode === null) this.process.kill("SIGINT");
    const ended = await Promise.race([this.ended.then(() => true), sleep(8000).then(() => false)]);
    if (!ended) this.process.kill("SIGKILL");
    // A node that outlives its launcher is ours to end.
    for (const node of this.nodes ?? []) {
      if (ended || node.dead) continue;
      try {
        process.kill(node.pid, "SIGKILL");
      } catch {
        // It is gone already.
      }
    }
    const crashes = [...(was_gone ? ["the launcher ended"] : []), ...(await this.crashes())];
    if (keep) console.log(`      kept ${this.dir}`);
    else await rm(this.dir, { recursive: true, force: true });
    if (crashes.length > 0) throw new Error(`ended by itself, or panicked:\n${crashes.join("\n")}`);
  }
}
