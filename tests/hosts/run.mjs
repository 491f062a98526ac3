// Follows docs/operate.md word by word on three hosts in network namespaces, then breaks hosts, links and the
// primary while people write, and checks what they saw: every acknowledged post once, in its place.
//
//   node run.mjs [flags]        exit code 0 when all held or nothing can be run here, 1 when not, 2 for usage
//
// It needs root, PostgreSQL, openssl and overlay mounts; without, it says so and ends. With
// CHATCHAT_REQUIRE_ALL=1 that is a failure.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { sleep, until } from "../browser/cluster.mjs";
import { History, judge } from "../cluster/history.mjs";
import { Person, Reader } from "../cluster/people.mjs";
import { Host, blocks_of, make_network, remove_network, why_not } from "./hosts.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
const USAGE = `usage: node run.mjs [flags]
  -b, --bin DIR     directory of the programs (default: target/release)
  -B, --before DIR  directory of earlier programs, with which the cluster starts and from which it is upgraded
      --guide FILE  guide of the earlier programs, by which the hosts are set up (default: docs/operate.md)
  -f, --filter WORD only phases whose name holds it
  -s, --short       shorter faults
      --history FILE  write what people saw to this file
      --judge PATH  chatchat-sim, whose oracles judge what people saw
  -k, --keep        leave the directory behind
  -h, --help        this text`;
// Time in which a post is acknowledged when nothing is broken, and after the end of a fault.
const SLACK_MS = 5_000;
// Time until a person gives up one who does not answer, and a lease is free again; an answer of a master
// whose store is away comes within it too.
const SILENCE_MS = 12_000;

const asked = flags();
const SIZES = asked.short ? { people: 8, fault_s: 10, rest_s: 5 } : { people: 24, fault_s: 25, rest_s: 20 };

function flags() {
  try {
    const { values } = parseArgs({
      options: {
        bin: { type: "string", short: "b" },
        before: { type: "string", short: "B" },
        guide: { type: "string" },
        filter: { type: "string", short: "f" },
        short: { type: "boolean", short: "s" },
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
    return values;
  } catch (error) {
    console.error(`${error.message}\n${USAGE}`);
    process.exit(2);
  }
}

const missing = why_not();
if (missing) {
  console.log(`SKIPPED: hosts in namespaces cannot be made here: ${missing}`);
  process.exit(process.env.CHATCHAT_REQUIRE_ALL === "1" ? 1 : 0);
}

const bin = resolve(asked.bin ?? join(HERE, "../../target/release"));
const base = await mkdtemp(join(tmpdir(), "chatchat-hosts-"));
const [north, middle, south] = ["north", "middle", "south"].map(
  (name, nth) => new Host(name, `10.77.0.${nth + 1}`, join(base, name), resolve(asked.before ?? bin)),
);
const hosts = [north, middle, south];
const GUIDE = join(HERE, "../../docs/operate.md");
const blocks = await blocks_of(GUIDE);
const begun = Date.now();
const at = () => `[${((Date.now() - begun) / 1000).toFixed(1).padStart(6)}s]`;

let failures = 0;
const fail = (text) => {
  failures += 1;
  console.log(`FAIL  ${text}`);
};
if (asked.history || asked.judge) Person.history = new History();
const people = [];
const readers = [];
let ending;

// The blocks of one step of the guide, on one host.
const step = async (name, host) => {
  let out = "";
  for (const block of blocks.filter(({ on }) => on.includes(name))) out += await host.run(block.script);
  return out;
};

async function set_up() {
  for (const { on, script } of await blocks_of(asked.guide ?? GUIDE)) {
    const places = hosts.filter((host) => on.includes("every") || on.includes(host.name));
    for (const host of places) await host.run(script);
  }
}

// Waits until masters and workers of these hosts are in: each master shows itself and all workers.
async function whole(among = hosts, limit_ms = 60_000) {
  const workers = among.flatMap(({ name }) => [`worker-${name}-1`, `worker-${name}-2`]);
  const look = async (host) => {
    const status = await step("status", host);
    const is_in = (name) => status.split("\n").some((line) => line.startsWith(`${name} `) && / in /.test(line));
    const missing = [`master-${host.name}`, ...workers].filter((name) => !is_in(name));
    if (missing.length > 0) throw new Error(`${missing} not in:\n${status}`);
  };
  for (const host of among) await until(`nodes in at ${host.name}`, () => look(host).then(() => true), limit_ms);
}

async function during(name, loses_ms, what) {
  if (asked.filter && !name.includes(asked.filter)) return;
  console.log(`\n${at()} ${name}`);
  const from = Date.now();
  try {
    await what();
  } catch (error) {
    fail(`${name}: ${error.message}`);
  }
  await sleep(SIZES.rest_s * 1000);
  const end = Date.now();
  const sent = people.flatMap((person) => person.sent).filter((post) => post.first >= from && post.first < end);
  const waits = sent.map((post) => (post.acked ?? Date.now()) - post.first).sort((a, b) => a - b);
  const share = (part) => waits[Math.min(waits.length - 1, Math.floor(waits.length * part))] ?? 0;
  console.log(`      ${sent.length} posts in ${((end - from) / 1000).toFixed(0)} s: waited p50 ${share(0.5)} ms, p99 ${share(0.99)} ms, longest ${waits.at(-1)} ms`);
  const bound = loses_ms + SLACK_MS;
  const late = waits.filter((wait) => wait > bound);
  if (late.length > 0) fail(`${name}: ${late.length} posts waited over ${bound} ms`);
}

// A master that is stopped says so in its answers; who had none lately may find it gone. It refuses nobody, and cuts nobody off.
function nobody_was_refused(from) {
  const counts = new Map();
  for (const { why } of people.flatMap((person) => person.turned_away.filter((one) => one.at >= from))) counts.set(why, (counts.get(why) ?? 0) + 1);
  console.log(`      turned away: ${[...counts].map(([why, times]) => `${why} ${times} times`).join(", ") || "nobody"}`);
  counts.delete("ECONNREFUSED");
  if (counts.size > 0) fail(`requests failed: ${[...counts.keys()].join(", ")}`);
}

// Every acknowledged post stands once in its board at its place, and readers saw all of it in order.
async function check() {
  Person.history?.all_is_quiet();
  const posts = people.flatMap((person) => person.sent);
  let [lost, doubled, moved] = [0, 0, 0];
  for (const board of new Set(posts.map((post) => post.board))) {
    const all = await people[0].read_all(board);
    Person.history?.board(board, all);
    all.forEach((post, nth) => {
      if (post.seq !== nth + 1) fail(`${board}: post ${nth + 1} has seq ${post.seq}`);
    });
    const places = new Map();
    for (const post of all) places.set(post.id, [...(places.get(post.id) ?? []), post.seq]);
    for (const post of posts.filter((one) => one.board === board && one.seq)) {
      const found = places.get(post.id) ?? [];
      if (found.length === 0) lost += 1;
      if (found.length > 1) doubled += 1;
      if (found.length === 1 && found[0] !== post.seq) moved += 1;
    }
    for (const reader of readers.filter((one) => one.board === board)) {
      await until(`reader of ${board} at ${all.length}`, () => reader.seq >= all.length, 10_000).catch((e) => fail(e.message));
      for (const gap of reader.gaps) fail(`reader of ${board}: ${gap}`);
    }
  }
  const acked = posts.filter((post) => post.seq).length;
  console.log(
    `\n${at()} ${posts.length} posts sent, ${acked} acknowledged: ${lost} lost, ${doubled} doubled, ${moved} elsewhere than said; ` +
      `${posts.length - acked} never acknowledged`,
  );
  if (lost || doubled || moved || acked < posts.length) fail("posts");
  if (!Person.history) return;
  const path = asked.history ?? join(base, "history.jsonl");
  await Person.history.write(path, people[0].epoch);
  if (asked.judge && !judge(asked.judge, path)) fail("the oracles");
}

async function primary() {
  for (const host of hosts) {
    const is = await host.run(`su postgres -s /bin/sh -c "psql -Atc 'SELECT pg_is_in_recovery()' postgres"`, 5000).catch(() => "");
    if (is.trim() === "f") return host;
  }
  return undefined;
}

for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => (ending ??= clean_up().then(() => process.exit(130))));

// Each worker has a user of its own at PostgreSQL, and the login in a file that only it can read.
async function own_users() {
  const asks = "SELECT count(*) FROM pg_roles WHERE rolcanlogin AND rolname LIKE 'chatchat\\_%'";
  const users = Number(await (await primary()).run(`su postgres -s /bin/sh -c "psql -At postgres" <<< "${asks}"`));
  if (users !== 2 * hosts.length) fail(`${users} users of workers at PostgreSQL`);
  for (const host of hosts) {
    const modes = await host.run("stat -c %a:%U /var/lib/chatchat/worker-*/store.login");
    if (modes.trim() !== "600:chatchat\n600:chatchat") fail(`store.login at ${host.name}: ${modes}`);
  }
}

try {
  make_network("10.77.0.254");
  await Promise.all(hosts.map((host) => host.start()));
  await set_up();
  await whole();
  console.log(`${at()} ${asked.guide ?? "docs/operate.md"} was followed: three masters, six workers`);
  if (!asked.guide) await own_users();

  const urls = hosts.map((host) => host.url);
  for (let nth = 0; nth < SIZES.people; nth += 1) people.push(await Person.join(urls, nth, `board-${nth % 4}`));
  for (let nth = 0; nth < 4; nth += 1) {
    await people[nth].create(`board-${nth}`);
    readers.push(new Reader(urls, people[nth], `board-${nth}`, nth));
  }
  for (const one of [...people, ...readers]) one.start();

  await during("calm", 0, () => sleep(SIZES.fault_s * 1000));

  await during("the host of a standby is killed", SILENCE_MS, async () => {
    await south.kill();
    await sleep(SIZES.fault_s * 1000);
    await whole([north, middle]);
    await south.start();
    await south.run("systemctl start chatchat-db chatchat-master chatchat-worker@worker-1 chatchat-worker@worker-2");
    await whole();
  });

  await during("the host of a standby is cut off", SILENCE_MS, async () => {
    middle.cut();
    await sleep(SIZES.fault_s * 1000);
    middle.mend();
    await whole();
  });

  await during("every host in turn is upgraded", 0, async () => {
    const from = Date.now();
    for (const host of hosts) {
      await host.bring(bin);
      await step("upgrade", host);
      await whole();
      if (!(await host.runs_what_is_installed())) fail(`${host.name} runs earlier programs`);
      console.log(`${at()} ${host.name} is upgraded`);
    }
    nobody_was_refused(from);
  });

  // A person has to decide: what they take for it is lost.
  const DECIDES_MS = 5_000;
  await during("the host of the primary is killed, a standby promoted", SILENCE_MS + DECIDES_MS, async () => {
    await north.kill();
    await sleep(DECIDES_MS);
    const standbys = [middle, south];
    const received = await Promise.all(standbys.map(async (host) => Number(await step("promote", host))));
    const next = standbys[received[0] >= received[1] ? 0 : 1];
    await step("promoted", next);
    console.log(`${at()} ${next.name} is promoted (${received.join(" and ")} bytes received)`);
    await whole(standbys);
    await sleep(SIZES.fault_s * 1000);
    await north.start();
    await north.run("systemctl start chatchat-master chatchat-worker@worker-1 chatchat-worker@worker-2");
    await step("returned", north);
    await whole();
    if ((await primary()) !== next) fail(`the primary is ${(await primary())?.name}`);
  });

  await during("the process of the primary is killed and comes back", SILENCE_MS, async () => {
    const host = await primary();
    await host.run("kill -9 $(head -1 /var/lib/chatchat-db/data/postmaster.pid)");
    await sleep(SIZES.fault_s * 1000);
    await whole();
  });
} catch (error) {
  fail(error.stack);
}

async function clean_up() {
  await Promise.all(hosts.map((host) => host.process && host.kill().catch(() => {})));
  remove_network(hosts);
  if (asked.keep) console.log(`kept ${base}`);
  else await rm(base, { recursive: true, force: true });
}

for (const person of people) person.stop();
const ended = await Promise.race([Promise.all(people.map((person) => person.done)), sleep(30_000).then(() => "late")]);
if (ended === "late") fail("posts that are never acknowledged");
else if (people.length > 0) await check().catch((error) => fail(error.stack));
for (const reader of readers) reader.stop();
if (failures) for (const host of hosts) console.log(`\n${host.name}:\n${await host.run("tail -n 15 /var/log/chatchat-*.log", 5000).catch((e) => e.message)}`);
await clean_up();
console.log(failures ? `\n${failures} FAILED` : "\nall held");
process.exit(failures ? 1 : 0);
