// Kills masters and workers of a real cluster under load, one after another, and measures how soon
// people stream again and posts flow again; prints the times as figures and bars.
//
//   node recovery.mjs [flags]   exit code 0 when all held, 1 when not, 2 for usage
//
// A killed node stays dead for a while and is started again; the next one is killed once all is whole.

import { spawn } from "node:child_process";
import { openSync } from "node:fs";
import { loadavg } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { Cluster, sleep, until } from "../browser/cluster.mjs";
import { bars, shares } from "./numbers.mjs";
import { Person, stream } from "./people.mjs";
import { WHOLE_WITHIN_MS, all_done, late_streams } from "./weigh.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
const USAGE = `usage: node recovery.mjs [flags]
  -b, --bin PATH    chatchat-cluster (default: $CHATCHAT_CLUSTER, else target/release/chatchat-cluster)
  -r, --rounds N    rounds, each with one killed master and one killed worker (default: 24, 8 minutes)
  -s, --short       4 rounds
  -h, --help        this text`;
const BOARDS = 6;
const WRITERS_PER_BOARD = 3;
const WATCHERS = 36;
const POST_EVERY_MS = 200;
// Time for which a killed node stays dead: longer than all that it is measured by.
const DEAD_MS = 6_000;
const REST_MS = 3_000;
// Time in which people get their last posts acknowledged.
const DONE_MS = 20_000;
// Time until a program that is started says that it is ready, or registers.
const START_MS = 5_000;
// Posts of a board flow again within this, and none waits for longer: the life of a lease, and a second.
const POSTS_WITHIN_MS = 3_000 + 1_000;
// A killed worker costs a task at most attempt_timeout x attempts_per_worker, and a second.
const WORKER_WITHIN_MS = 2 * 1_000 + 1_000;

const asked = flags();
const ROUNDS = Number(asked.rounds ?? (asked.short ? 4 : 24));
const bin = resolve(asked.bin ?? process.env.CHATCHAT_CLUSTER ?? join(HERE, "../../target/release/chatchat-cluster"));

function flags() {
  try {
    const { values } = parseArgs({
      options: {
        bin: { type: "string", short: "b" },
        rounds: { type: "string", short: "r" },
        short: { type: "boolean", short: "s" },
        help: { type: "boolean", short: "h" },
      },
    });
    if (values.help) {
      console.log(USAGE);
      process.exit(0);
    }
    if (values.rounds !== undefined && !(Number(values.rounds) >= 1)) throw new Error("--rounds takes a number");
    return values;
  } catch (error) {
    console.error(`${error.message}\n${USAGE}`);
    process.exit(2);
  }
}

// Who holds a stream of one board at some master, and goes to another one when it ends.
class Watcher {
  constructor(urls, token, board, nth) {
    Object.assign(this, { urls, token, board, url: urls[nth % urls.length], on: false, began: 0, running: true });
  }

  start() {
    let told = false;
    const url = this.url;
    const on_event = (name) => {
      if (name === "hello" && !told) Object.assign(this, { on: (told = true), began: Date.now() });
    };
    this.request = stream(url, this.token, `boards=${this.board}`, {}, on_event, async () => {
      this.on = false;
      const others = this.urls.filter((other) => other !== url);
      this.url = this.next ?? others[Math.floor(Math.random() * others.length)];
      this.next = undefined;
      if (!told) await sleep(100);
      if (this.running) this.start();
    });
  }

  // Goes to a master by itself.
  move(url) {
    if (this.url === url) return;
    this.next = url;
    this.request.destroy();
  }

  stop() {
    this.running = false;
    this.request.destroy();
  }
}

let failures = 0;
const fail = (text) => {
  failures += 1;
  console.log(`FAIL  ${text}`);
};
const begun = Date.now();
const at = () => `[${((Date.now() - begun) / 1000).toFixed(1).padStart(6)}s]`;

const cluster = await Cluster.start({ bin, masters: 3, workers: 3 });
const urls = cluster.masters.map((master) => cluster.url(master));
const restarted = [];
let is_over = false;
const [writers, watchers] = [[], []];
// Times in ms by kind of fault and what was waited for.
const times = { streams: [], posts: [], master_waits: [], worker_waits: [] };

// Starts a node that was killed, with the settings that the launcher gave it.
function start_again(node) {
  const dir = join(cluster.dir, node.name);
  const log = openSync(join(dir, "log"), "a");
  const program = join(dirname(bin), `chatchat-${node.role}`);
  const child = spawn(program, ["--config", join(dir, "node.toml")], { stdio: ["ignore", "ignore", log] });
  restarted.push(child);
  child.once("exit", (code, signal) => {
    if (!is_over && !node.dead) fail(`${node.name} ended by itself: ${signal ?? `exit code ${code}`}`);
  });
  Object.assign(node, { pid: child.pid, dead: false });
}

async function whole() {
  await until(
    "the whole cluster",
    async () => {
      for (const master of cluster.masters) {
        if (!(await cluster.isReady(master))) return false;
        const { nodes } = await cluster.view(master);
        if (nodes.filter((node) => node.state === "in").length !== cluster.nodes.length) return false;
      }
      return true;
    },
    START_MS + WHOLE_WITHIN_MS,
  );
}

// Returns the master that coordinates a board, and all boards that it coordinates.
async function coordinator(board) {
  for (const master of cluster.masters) {
    const { queues } = await cluster.view(master);
    const mine = queues.filter((queue) => queue.held === "mine" && queue.resource.startsWith("board:"));
    const boards = mine.map((queue) => queue.resource.slice("board:".length));
    if (boards.includes(board)) return { master, boards };
  }
  throw new Error(`nobody coordinates ${board}`);
}

const acked_after = (board, from) => {
  const times = writers.filter((one) => one.board === board).flatMap(({ sent }) => sent.filter((post) => post.first >= from && post.acked));
  return Math.min(...times.map((post) => post.acked));
};

// The longest wait of a post that was under way when a node was killed, or began in the time that it was dead.
function longest_wait(killed, until_ms) {
  const concerned = writers.flatMap(({ sent }) => sent).filter((post) => post.first <= until_ms && (post.acked ?? Infinity) >= killed);
  return Math.max(...concerned.map((post) => (post.acked ?? Date.now()) - post.first));
}

async function kill_and_wait(node, boards, orphans) {
  const killed = Date.now();
  cluster.kill(node);
  await until("streams on again", () => orphans.every((one) => one.on && one.began >= killed), 30_000);
  for (const one of orphans) times.streams.push(one.began - killed);
  await until("posts on each board", () => boards.every((board) => acked_after(board, killed) < Infinity), 30_000);
  await sleep(Math.max(0, killed + DEAD_MS - Date.now()));
  const wait = longest_wait(killed, killed + DEAD_MS);
  start_again(node);
  await whole();
  await sleep(REST_MS);
  return { killed, wait };
}

// A master that was started again has no streams: people spread over all of them.
async function spread() {
  watchers.forEach((one, nth) => one.move(urls[nth % urls.length]));
  await until("all streams", () => watchers.every((one, nth) => one.on && one.url === urls[nth % urls.length]), 30_000);
}

async function round(nth) {
  await spread();
  const { master, boards } = await until(`the coordinator of board-${nth % BOARDS}`, () => coordinator(`board-${nth % BOARDS}`));
  const orphans = watchers.filter((one) => one.on && one.url === cluster.url(master));
  const { killed, wait } = await kill_and_wait(master, boards, orphans);
  const flows = boards.map((board) => acked_after(board, killed) - killed);
  times.posts.push(...flows);
  times.master_waits.push(wait);
  const again = times.streams.slice(times.streams.length - orphans.length);
  const slowest = Math.max(0, ...again);
  const late = orphans.length > 0 ? late_streams(again, "killed") : "nobody streamed there";
  if (late) fail(`${master.name} killed: ${late}`);
  console.log(
    `${at()} ${master.name} killed: ${orphans.length} streams on again, the last after ${slowest} ms; ` +
      `${boards.length} boards written again, the last after ${Math.max(...flows)} ms; load ${loadavg()[0].toFixed(1)}`,
  );
  const worker = cluster.workers[nth % cluster.workers.length];
  const { wait: worker_wait } = await kill_and_wait(worker, [], []);
  times.worker_waits.push(worker_wait);
  console.log(`${at()} ${worker.name} killed: a post waited for at most ${worker_wait} ms`);
}

try {
  for (let nth = 0; nth < BOARDS * WRITERS_PER_BOARD; nth += 1) {
    writers.push(await Person.join(urls, Math.floor(nth / BOARDS), `board-${nth % BOARDS}`, POST_EVERY_MS));
    if (nth < BOARDS) await writers[nth].create(`board-${nth}`);
  }
  for (let nth = 0; nth < WATCHERS; nth += 1) {
    const { token } = await Person.join(urls, nth, "lobby");
    watchers.push(new Watcher(urls, token, `board-${nth % BOARDS}`, nth));
  }
  for (const one of [...writers, ...watchers]) one.start();
  await until("all streams", () => watchers.every((one) => one.on), 30_000);
  await sleep(REST_MS);
  for (let nth = 0; nth < ROUNDS; nth += 1) await round(nth);
} catch (error) {
  fail(error.stack);
}
for (const one of [...writers, ...watchers]) one.stop();
const unsettled = (await all_done(writers, DONE_MS)).length;
is_over = true;
for (const child of restarted) child.kill("SIGKILL");
await cluster.stop().catch((error) => fail(error.message));

const KINDS = [
  ["kill -9 of a master", "a person who read from it streams again", times.streams],
  ["kill -9 of a coordinator", "a board that it coordinated is written again", times.posts],
  ["kill -9 of a master", "longest wait of a post", times.master_waits],
  ["kill -9 of a worker", "longest wait of a post", times.worker_waits],
];
console.log(`\n${"".padEnd(70)}       n      p50      p90      p99  longest`);
for (const [kind, what, values] of KINDS) console.log(`${kind.padEnd(25)} ${what.padEnd(44)} ${shares(values)}`);
for (const [kind, what, values] of KINDS) console.log(`\n${kind}: ${what}\n${bars(values).join("\n")}`);

const posts = writers.flatMap(({ sent }) => sent);
console.log(`\n${posts.length} posts, ${unsettled} never acknowledged`);
if (unsettled > 0) fail(`${unsettled} posts were never acknowledged`);
const slow = times.posts.filter((ms) => ms > POSTS_WITHIN_MS);
if (slow.length > 0) fail(`${slow.length} of ${times.posts.length} boards were written again after more than ${POSTS_WITHIN_MS} ms`);
const long = times.master_waits.filter((ms) => ms > POSTS_WITHIN_MS);
if (long.length > 0) fail(`${long.length} killed masters cost a post ${long} ms, over ${POSTS_WITHIN_MS} ms`);
const cost = Math.max(0, ...times.worker_waits);
console.log(`a killed worker cost a post at most ${cost} ms; its bound is ${WORKER_WITHIN_MS} ms`);
const dear = times.worker_waits.filter((ms) => ms > WORKER_WITHIN_MS);
if (dear.length > 0) fail(`${dear.length} of ${times.worker_waits.length} killed workers cost a post ${cost} ms, over ${WORKER_WITHIN_MS} ms`);
console.log(failures ? `\n${failures} FAILED` : "\nall held");
process.exit(failures ? 1 : 0);
