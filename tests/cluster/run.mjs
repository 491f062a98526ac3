// Runs a cluster of real processes under faults: of its disks, its store, its workers, its load, and of
// random nodes one after another, and checks what people saw: every acknowledged post once, in its place, and nobody cut off longer
// than the fault.
//
//   node run.mjs [flags]        exit code 0 when all held, 1 when not, 2 for usage
//
// Two small file systems are mounted for it (tmpfs), which needs root; without, it says that the
// phases of full disks are skipped. A store on PostgreSQL is a private server, whose faults are those of
// the random ones; the phases of a store in a file are left out then.

import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { existsSync, openSync, writeSync, closeSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { Cluster, sleep, until } from "../browser/cluster.mjs";
import { Chaos } from "./chaos.mjs";
import { History, judge } from "./history.mjs";
import { at_share } from "./numbers.mjs";
import { Person, Reader, Streams, spread } from "./people.mjs";
import { Postgres, programs } from "./postgres.mjs";
import { StatusLog } from "./status.mjs";
import { hold } from "./store_lock.mjs";
import {
  all_done,
  late_posts,
  late_streams,
  longest_gap,
  outage,
  refused_by_drain,
  refused_streams,
  said_of,
  streams_again,
  turned_away,
} from "./weigh.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
const USAGE = `usage: node run.mjs [flags]
  -b, --bin PATH    chatchat-cluster (default: $CHATCHAT_CLUSTER, else target/release/chatchat-cluster)
  -s, --short       shorter faults, 200 streams, 60 boards: about 3 minutes instead of 20
  -f, --filter WORD only phases whose name holds it
      --store KIND  sqlite (default), or postgres: a private server
      --chaos S     seconds of faults of random nodes (default: 600, or 40 with --short)
      --seed N      what they are drawn from (default: a random one, which is printed)
      --history FILE  write what people saw to this file
      --judge PATH  chatchat-sim, whose oracles judge what people saw
  -k, --keep        leave the directory behind
  -h, --help        this text`;

// Time in which a post is acknowledged when nothing is broken, and after the end of a fault: what
// real machines are granted.
const SLACK_MS = 5_000;
// Time until another master may write for a dead one: the life of a lease.
const LEASE_MS = 3_000;
// What a dead worker costs its tasks at most: attempts that run out, and a second.
const WORKER_MS = 2 * 1_000 + 1_000;
// Time in which people get their last posts acknowledged.
const DONE_MS = 30_000;
// Time until the launcher has started a node again and that one has said why it does not run.
const REFUSED_MS = 15_000;

const asked = flags();
const short = asked.short;
// All come from one address, which may create 300 boards at once.
const SIZES = short
  ? { streams: 200, boards: 60, people: 12, fault_s: 8, locks: 1, lock_s: 10, rest_s: 4, chaos_s: 40 }
  : { streams: 2000, boards: 250, people: 40, fault_s: 30, locks: 3, lock_s: 14, rest_s: 25, chaos_s: 600 };

function flags() {
  try {
    const { values } = parseArgs({
      options: {
        bin: { type: "string", short: "b" },
        short: { type: "boolean", short: "s" },
        filter: { type: "string", short: "f" },
        store: { type: "string", default: "sqlite" },
        chaos: { type: "string" },
        seed: { type: "string" },
        history: { type: "string" },
        judge: { type: "string" },
        keep: { type: "boolean", short: "k" },
        help: { type: "boolean", short: "h" },
      },
    });
    if (values.help) {
      console.log(USAGE);
      process.exit(0);
    }
    if (!["sqlite", "postgres"].includes(values.store)) throw new Error("--store takes sqlite or postgres");
    for (const name of ["chaos", "seed"]) {
      if (values[name] !== undefined && !/^\d{1,9}$/.test(values[name])) throw new Error(`--${name} takes a number`);
    }
    return values;
  } catch (error) {
    console.error(`${error.message}\n${USAGE}`);
    process.exit(2);
  }
}

const bin = resolve(
  asked.bin ?? process.env.CHATCHAT_CLUSTER ?? join(HERE, "../../target/release/chatchat-cluster"),
);

const seed = Number(asked.seed ?? Math.floor(Math.random() * 1e9));
const chaos_s = Number(asked.chaos ?? SIZES.chaos_s);
const on_postgres = asked.store === "postgres";
// Notes a fault of nodes or of the store before it begins; what is returned notes its end.
const note = (kind, ...names) => Person.history?.fault(kind, ...names) ?? (() => {});
const postgres_programs = on_postgres && programs();
if (on_postgres && !postgres_programs) {
  console.log("SKIPPED: PostgreSQL is not installed (Debian: apt-get install postgresql)");
  const required = process.env.CHATCHAT_REQUIRE_ALL === "1";
  if (required) console.log("FAIL  CHATCHAT_REQUIRE_ALL=1 demands it");
  process.exit(required ? 1 : 0);
}

// Whether a small file system is mounted at `dir` now.
function mount(dir, size) {
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${size}`, "tmpfs", dir], { stdio: "pipe" });
    return true;
  } catch (error) {
    console.log(`SKIPPED: full disks, since no small one can be mounted here: ${String(error.stderr ?? error.message).trim()}`);
    return false;
  }
}

// Writes a file until the disk takes no more; returns its path.
function fill(dir) {
  const path = join(dir, "ballast");
  for (const size of [1 << 20, 4096, 1]) {
    const file = openSync(path, "a");
    try {
      for (;;) writeSync(file, Buffer.alloc(size));
    } catch (error) {
      if (error.code !== "ENOSPC") throw error;
    } finally {
      closeSync(file);
    }
  }
  return path;
}

const base = await mkdtemp(join(tmpdir(), "chatchat-endurance-"));
const [nodes_disk, store_disk] = [join(base, "nodes"), join(base, "store")];
await mkdir(nodes_disk);
await mkdir(store_disk);
const small_disks = mount(nodes_disk, "256m") && mount(store_disk, "256m");
const store = join(store_disk, "chatchat.db");

let failures = 0;
const fail = (text) => {
  failures += 1;
  console.log(`FAIL  ${text}`);
};

const postgres = on_postgres ? await Postgres.start(postgres_programs) : undefined;
const cluster = await Cluster.start({
  bin,
  masters: 2,
  workers: 3,
  dir: join(nodes_disk, "data"),
  flags: ["--store", postgres?.url ?? `sqlite:${store}`, "--restart"],
}).catch(async (error) => {
  await postgres?.stop();
  throw error;
});
console.log(`store: ${asked.store}; seed of the random faults: ${seed}`);
const status = new StatusLog(cluster);
if (asked.history || asked.judge) {
  Person.history = new History();
  Person.history.cluster(cluster.masters.map((master) => cluster.url(master)), 3);
}
const people = [];
const readers = [];
// Phases with the time that each took away: what a post sent within it may wait for.
const faults = [];
const chaos = new Chaos({
  cluster,
  seed,
  postgres,
  note,
  before: () => spread(readers),
  loses_ms: { master: LEASE_MS, worker: WORKER_MS },
  hold: (seconds) => hold(store, seconds),
});
let streams;

// Phases of a store in a file, which another kind of store has not.
const OF_FILES = ["full disk of the store", "write lock of the store", "worker with "];

async function during(name, length_ms, what) {
  if (on_postgres && OF_FILES.some((start) => name.startsWith(start))) return;
  if (asked.filter && !name.includes(asked.filter)) return;
  if (name.startsWith("full disk") && !small_disks) return;
  console.log(`\n${status.at()} ${name}`);
  status.say_at_next_change();
  const fault = { name, from: Date.now(), loses_ms: length_ms };
  try {
    await spread(readers);
    await what(fault);
  } catch (error) {
    fail(`${name}: ${error.message}`);
  }
  faults.push(fault);
  await sleep(SIZES.rest_s * 1000);
  fault.end = Date.now();
  const sent = people.flatMap((person) => person.sent).filter((post) => post.first >= fault.from && post.first < fault.end);
  const waits = sent.map((post) => (post.acked ?? Date.now()) - post.first).sort((a, b) => a - b);
  const at = (share) => waits[Math.min(waits.length - 1, Math.floor(waits.length * share))] ?? 0;
  console.log(
    `      ${sent.length} posts in ${((fault.end - fault.from) / 1000).toFixed(0)} s: waited ` +
      `p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, longest ${waits.at(-1)} ms`,
  );
  const [bound, without] = [fault.loses_ms + SLACK_MS, outage(people, fault.from, fault.end)];
  if (without > bound) fail(`${name}: nobody's post was acknowledged for ${without} ms, over ${bound} ms`);
}

const masters = cluster.masters;
const urls = masters.map((master) => cluster.url(master));

const tracks = () => [...readers.map((reader) => reader.track), ...(streams?.tracks ?? [])];

// Holds those who streamed at a master at that time to what its end may cost them.
function weigh_streams(url, from, how) {
  const waits = streams_again(tracks(), url, from, Date.now(), how);
  const [most, all] = [at_share(waits, 0.99), at_share(waits, 1)];
  console.log(`      ${waits.length} streams went on, 99 % within ${most} ms, all within ${all} ms`);
  const late = waits.length > 0 ? late_streams(waits, how) : "no stream was there";
  if (late) fail(`${url} was ${how}: ${late}`);
}

// Ends a master; when it runs again, the fault is over, and soon all is whole.
async function end_and_recover(master, signal, over) {
  await chaos.end(master, signal);
  over();
  await chaos.whole();
}

// Whether any master has a node in, with a store.
async function is_served(name) {
  const view = (master) => until(`view of ${master.name}`, () => cluster.view(master));
  const nodes = (await Promise.all(cluster.masters.map(view))).flatMap((one) => one.nodes);
  return nodes.some((node) => node.name === name && node.state === "in" && node.reaches_store !== false);
}

// Has a worker start again with another store in its settings, for which it must end, and then with its own.
async function refuse(name, path) {
  const settings = join(cluster.dir, name, "node.toml");
  const right = await readFile(settings, "utf8");
  const wrong = right.replace(store, path);
  if (wrong === right) throw new Error(`the settings of ${name} do not name ${store}`);
  const over = note("exit", name);
  const said = `(exit code 2): the store ${path}`;
  cluster.expect_end(name, said, { often: true });
  await writeFile(settings, wrong);
  cluster.signal(name, await until(`process of ${name}`, () => chaos.pid_of({ name })), "SIGKILL");
  await until(`refusal of ${name}`, () => cluster.output.includes(`${name} ended ${said}`), REFUSED_MS);
  for (const end = Date.now() + SIZES.fault_s * 1000; Date.now() < end; await sleep(200)) {
    if (await is_served(name)) throw new Error(`${name} is in with the store ${path}`);
  }
  await status.show();
  await writeFile(settings, right);
  const old = await chaos.pid_of({ name });
  try {
    if (old) cluster.signal(name, old, "SIGKILL");
  } catch {
    // It has just ended by itself.
  }
  await chaos.started_again({ name }, old);
  over();
  await chaos.whole();
}

try {
  for (let nth = 0; nth < SIZES.people; nth += 1) {
    const board = nth % 8 === 0 ? "lobby" : `board-${nth % 8}`;
    people.push(await Person.join(urls, nth, board));
  }
  const boards = [...new Set(people.map((person) => person.board))];
  for (const [nth, board] of boards.entries()) {
    await people[nth].create(board);
    readers.push(new Reader(urls, people[nth], board, nth));
  }
  for (const person of people) person.start();
  for (const reader of readers) reader.start();
  status.start();

  await during("calm", 0, () => sleep(SIZES.fault_s * 1000));

  await during("full disk of logs, events and node databases", 0, async () => {
    const over = note("disk_full", ...cluster.nodes.map((node) => node.name));
    const ballast = fill(nodes_disk);
    await sleep(SIZES.fault_s * 1000);
    await status.show();
    await rm(ballast);
    over();
    await chaos.whole();
  });

  await during("full disk of the store", SIZES.fault_s * 1000, async () => {
    const over = note("disk_full", "store");
    const ballast = fill(store_disk);
    await sleep(SIZES.fault_s * 1000);
    await status.show();
    await rm(ballast);
    over();
    await chaos.whole();
  });

  for (let nth = 1; nth <= SIZES.locks; nth += 1) {
    await during(`write lock of the store held for ${SIZES.lock_s} s, time ${nth}`, SIZES.lock_s * 1000, async () => {
      const over = note("pause", "store");
      const lock = hold(store, SIZES.lock_s);
      await lock.held;
      await sleep(SIZES.lock_s * 500);
      await status.show();
      await lock.ended;
      over();
      await chaos.whole();
    });
  }

  await during("worker with a store that is not there", 0, async () => {
    const mistyped = join(store_disk, "mistyped.db");
    await refuse("worker-2", mistyped);
    if (existsSync(mistyped)) fail("a worker made a new empty store");
  });

  // Another one, which the launcher starts again without a long wait.
  await during("worker with another cluster's store", 0, async () => {
    const [dir, foreign] = [join(base, "other"), join(store_disk, "foreign.db")];
    await mkdir(dir);
    const other = await Cluster.start({ bin, masters: 1, workers: 1, dir, flags: ["--store", `sqlite:${foreign}`] });
    await other.stop();
    await refuse("worker-1", foreign);
  });

  await during(`${SIZES.streams} streams move from a killed master`, LEASE_MS, async () => {
    streams = new Streams(urls, people, SIZES.streams);
    await streams.open_all(urls[0]);
    console.log(`      ${streams.open} streams at ${urls[0]}`);
    const killed = Date.now();
    const over = note("exit", cluster.masters[0].name);
    const moved = until("all streams on", () => streams.open === SIZES.streams && streams.at(urls[0]) === 0, 30_000);
    await Promise.all([end_and_recover(cluster.masters[0], "SIGKILL", over), moved]);
    weigh_streams(urls[0], killed, "killed");
    await status.show();
  });

  await during(`${SIZES.streams} streams move from a master that is stopped`, 0, async () => {
    if (!streams) throw new Error("there are no streams: the phase before opens them");
    const stopped = Date.now();
    const over = note("stop", cluster.masters[1].name);
    const moved = until("all streams on", () => streams.open === SIZES.streams && streams.at(urls[1]) === 0, 30_000);
    await Promise.all([end_and_recover(cluster.masters[1], "SIGTERM", over), moved]);
    weigh_streams(urls[1], stopped, "drained");
    const counts = turned_away(people, stopped);
    console.log(`      turned away: ${said_of(counts)}`);
    const refused = refused_by_drain(counts);
    if (refused.length > 0) fail(`a master that drained failed requests: ${refused.join(", ")}`);
    await status.show();
  });

  await during(`${SIZES.boards} boards`, 0, async () => {
    const names = Array.from({ length: SIZES.boards }, (_, nth) => `many-${nth}`);
    const writer = (nth) => people[nth % people.length];
    const made = await Promise.all(names.map((name, nth) => writer(nth).create(name)));
    const answers = await Promise.all(names.map((name, nth) => writer(nth).post_once(name)));
    const all = [...made, ...answers].filter((code) => code !== 200 && code !== 201);
    console.log(`      ${names.length} boards made, ${answers.length} posts at once: ${all.length} refused`);
    if (all.length > 0) fail(`boards: answers ${JSON.stringify([...new Set(all)])}`);
    await status.show();
  });

  // The longest that one of its faults takes away bounds the whole phase; each is held to its own as well.
  await during(`chaos: faults of random nodes for ${chaos_s} s, seed ${seed}`, 0, async (fault) => {
    try {
      await chaos.run(Date.now() + chaos_s * 1000, (one) =>
        console.log(`${status.at()} ${one.action} of ${one.node}: whole ${one.whole - one.over} ms after its end`),
      );
    } finally {
      fault.loses_ms = Math.max(0, ...chaos.faults.map((one) => one.loses_ms));
    }
  });

  await during("calm again", 0, () => sleep(SIZES.fault_s * 500));
} catch (error) {
  fail(error.stack);
}

for (const person of people) person.stop();
const unsettled = await all_done(people, DONE_MS);
if (unsettled.length > 0) fail(`${unsettled.length} posts never acknowledged, such as ${JSON.stringify(unsettled[0])}`);
await sleep(3000);
// Who still tries would do so for ever, and so would who reads.
if (unsettled.length === 0) await check().catch((error) => fail(error.stack));
// It takes seconds, in which nothing that comes is read: nobody may write or read any more.
weigh_chaos();
for (const text of [...late_posts(people, faults, SLACK_MS), ...refused_streams(tracks())]) fail(text);
if (faults.length === 0) fail(`no phase has ${JSON.stringify(asked.filter)} in its name`);
for (const reader of readers) reader.stop();
streams?.stop();
status.stop();
await cluster.stop({ keep: asked.keep }).catch((error) => fail(error.message));
await postgres?.stop({ keep: asked.keep });
for (const dir of [nodes_disk, store_disk]) {
  try {
    execFileSync("umount", ["-l", dir]);
  } catch {
    // It is in use, and ends with the machine.
  }
}
if (asked.keep) console.log(`kept ${base}`);
else await rm(base, { recursive: true, force: true });
console.log(failures ? `\n${failures} FAILED` : "\nall held");
process.exit(failures ? 1 : 0);

// Shows what each random fault cost people, and holds it to what it may cost.
function weigh_chaos() {
  const { faults: drawn } = chaos;
  if (drawn.length === 0) return;
  const posts = people.flatMap((person) => person.sent);
  const acks = posts.filter((post) => post.acked);
  const boards = [...new Set(acks.map((post) => post.board))];
  const gap_of = (those, from, end) => longest_gap(those.map((post) => post.acked), from, end);
  const row = (action, node, cells) =>
    console.log(`      ${action.padEnd(34)} ${node.padEnd(10)} ${cells.map((cell) => String(cell).padStart(12)).join("")}`);
  console.log("");
  row("action", "node", ["whole after", "acks gap", "on a board", "post waited", "at most", "streams on"]);
  for (const fault of drawn) {
    const end = fault.end ?? Date.now();
    const gap = gap_of(acks, fault.from, end);
    const on_board = Math.max(...boards.map((board) => gap_of(acks.filter((post) => post.board === board), fault.from, end)));
    // Also those that were under way when it began.
    const felt = posts.filter((post) => post.first < end && (post.acked ?? Infinity) >= fault.from);
    const wait = Math.max(0, ...felt.map((post) => (post.acked ?? Date.now()) - post.first));
    const bound = fault.loses_ms + SLACK_MS;
    const again = fault.how ? streams_again(tracks(), fault.url, fault.from, end, fault.how) : [];
    const whole = fault.whole === undefined ? "never" : fault.whole - fault.from;
    row(fault.action, fault.node, [whole, gap, on_board, wait, bound, again.length > 0 ? Math.max(...again) : ""]);
    const refused = fault.how === "drained" ? refused_by_drain(turned_away(people, fault.from, end)) : [];
    const wrong = [
      wait > bound && `a post waited ${wait} ms, over ${bound} ms`,
      refused.length > 0 && `requests failed: ${refused.join(", ")}`,
      late_streams(again, fault.how),
      ["killed", "drained"].includes(fault.how) && again.length === 0 && "no stream was there",
    ];
    for (const text of wrong.filter(Boolean)) fail(`${fault.action} of ${fault.node}: ${text}`);
  }
  const gaps = "the longest time without an acknowledgement, of any board and of one";
  console.log(`      all in ms: ${gaps}, the longest wait of a post, its bound, and the longest wait of a stream`);
}

// Every acknowledged post stands once in its board at its place, and readers saw all of it in order.
async function check() {
  Person.history?.all_is_quiet();
  const posts = people.flatMap((person) => person.sent);
  const acked = posts.filter((post) => post.seq);
  let [lost, doubled, moved] = [0, 0, 0];
  const boards = new Map();
  const listed = await people[0].until_done("GET", "/boards");
  for (const board of new Set([...listed.boards.map((one) => one.name), ...posts.map((post) => post.board)])) {
    const all = await people[0].read_all(board);
    boards.set(board, all);
    Person.history?.board(board, all);
    all.forEach((post, nth) => {
      if (post.seq !== nth + 1) fail(`${board}: post ${nth + 1} has seq ${post.seq}`);
    });
    const ids = new Map();
    for (const post of all) ids.set(post.id, [...(ids.get(post.id) ?? []), post.seq]);
    for (const post of acked.filter((post) => post.board === board)) {
      const found = ids.get(post.id) ?? [];
      if (found.length === 0) lost += 1;
      if (found.length > 1) doubled += 1;
      if (found.length === 1 && found[0] !== post.seq) moved += 1;
    }
  }
  console.log(
    `\n${status.at()} ${posts.length} posts sent, ${acked.length} acknowledged: ${lost} lost, ${doubled} doubled, ` +
      `${moved} elsewhere than said; ${posts.length - acked.length} never acknowledged`,
  );
  if (lost || doubled || moved) fail("acknowledged posts");
  if (posts.length > acked.length) fail(`never acknowledged: ${JSON.stringify(posts.find((post) => !post.seq))}`);
  for (const reader of readers) {
    const want = boards.get(reader.board).length;
    await until(`reader of ${reader.board} at ${want}`, () => reader.seq >= want, 5000).catch((e) => fail(e.message));
    for (const gap of reader.gaps) fail(`reader of ${reader.board}: ${gap}`);
  }
  if (streams) {
    const end = boards.get("lobby").length;
    const behind = () => streams.behind(end).length;
    const are_there = until(`all streams at ${end} of the lobby`, () => behind() === 0);
    await are_there.catch((e) => fail(`${behind()} lag: ${e.message}`));
    for (const gap of streams.gaps.slice(0, 5)) fail(`stream: ${gap}`);
    console.log(`      ${streams.opened} streams opened in all, ${streams.gaps.length} with a gap`);
  }
  if (!Person.history) return;
  console.log(`      this script read nothing for ${Person.history.longest_stall_ms()} ms at most`);
  const path = asked.history ?? join(base, "history.jsonl");
  await Person.history.write(path, people[0].epoch);
  if (asked.judge && !judge(asked.judge, path)) fail("the oracles");
}
