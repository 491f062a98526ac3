// Follows docs/operate.md word by word on three hosts in network namespaces, then breaks hosts, links and the
// primary while people write, and checks what they saw: every acknowledged post once, in its place. Where nginx is
// installed, some come through it. What the units say is obeyed without systemd, their hardening too (confine.py).
//
//   node run.mjs [flags]        exit code 0 when all held or nothing can be run here, 1 when not, 2 for usage
//
// It needs root, PostgreSQL, openssl and python3, and a machine that gives namespaces and overlay mounts; without,
// it says so and ends. With CHATCHAT_REQUIRE_ALL=1 that is a failure, unless the machine gives them to nobody.

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { sleep, until } from "../browser/cluster.mjs";
import { History, judge } from "../cluster/history.mjs";
import { at_share } from "../cluster/numbers.mjs";
import { LEFT_AFTER_MS, Person, Reader, spread } from "../cluster/people.mjs";
import {
  WHOLE_WITHIN_MS,
  all_done,
  late_posts,
  late_streams,
  refused_by_drain,
  refused_streams,
  said_of,
  streams_again,
  turned_away,
} from "../cluster/weigh.mjs";
import { figures_of, table_of } from "./figures.mjs";
import { flags } from "./flags.mjs";
import { blocks_of, proxy_of, units_agree } from "./guide.mjs";
import { hardening_of } from "./hardening.mjs";
import { Host, PROGRAMS, make_network, remove_network, why_not } from "./hosts.mjs";
import { start_proxy, stop_proxy, through_proxy, why_no_proxy } from "./proxy.mjs";
import { FOLLOWS_MS, IS_STANDBY, LAST_WRITE, await_follower, lose_primary, own_users, primary_of, stands_at } from "./store.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
// Time in which a post is acknowledged when nothing is broken, and after the end of a fault.
const SLACK_MS = 5_000;
// Time until another master may write for a dead one: the life of a lease.
const LEASE_MS = 3_000;
// Time until a person has left one who does not answer, and its lease is free again.
const SILENCE_MS = LEFT_AFTER_MS + LEASE_MS;
// Time until a person goes on who asks one that does not answer, and then one whose store is away still.
const STORE_AWAY_MS = 12_000;
// Time in which a stranger has three hosts, once the packages are there.
const GUIDE_MS = 300_000;
// Time in which people get their last posts acknowledged.
const DONE_MS = 30_000;

const asked = flags();
const SIZES = asked.short ? { people: 8, fault_s: 10, rest_s: 5 } : { people: 24, fault_s: 25, rest_s: 20 };

const missing = why_not();
if (missing) {
  console.log(`SKIPPED: hosts in namespaces cannot be made here: ${missing.why}`);
  process.exit(missing.mendable && process.env.CHATCHAT_REQUIRE_ALL === "1" ? 1 : 0);
}

const bin = resolve(asked.bin ?? join(HERE, "../../target/release"));
const before = asked.before && resolve(asked.before);
for (const dir of before ? [before, bin] : [bin]) {
  const lacking = PROGRAMS.filter((name) => !existsSync(join(dir, name)));
  if (lacking.length === 0) continue;
  console.error(`${dir} lacks ${lacking.join(", ")}: \`cargo build --release --bins\` makes them, of an earlier commit in a \`git worktree\``);
  process.exit(2);
}
const to_itself = !before || PROGRAMS.every((name) => spawnSync("cmp", ["-s", join(before, name), join(bin, name)]).status === 0);
const base = await mkdtemp(join(tmpdir(), "chatchat-hosts-"));
const [north, middle, south] = ["north", "middle", "south"].map(
  (name, nth) => new Host(name, `10.77.0.${nth + 1}`, join(base, name), before ?? bin),
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
const report = [];
const phases = [];

// The blocks of one step of the guide, on one host.
const step = async (name, host, run = (script) => host.paste(script)) => {
  const of_step = blocks.filter(({ on }) => on.includes(name));
  if (of_step.length === 0) throw new Error(`the guide has no block \`${name}\``);
  let out = "";
  for (const block of of_step) out += await run(block.script);
  return out;
};

async function set_up() {
  for (const { on, script } of await blocks_of(asked.guide ?? GUIDE)) {
    const places = hosts.filter((host) => on.includes("every") || on.includes(host.name));
    for (const host of places) await host.paste(script);
  }
}

// Nodes that are in, as the master of a host has them: name, registration, and for a worker its master.
const rows_of = (status) =>
  status.split("\n").map((line) => line.split(/\s+/)).filter(([, , state]) => state === "in")
    .map(([name, , , registration, master]) => ({ name, registration, master }));

// Waits until nodes of these hosts are in: each master shows itself and all workers, and all say the same of where a
// worker is registered. The last fault is undone since that time.
async function whole(among = hosts, undone = Date.now()) {
  const workers = among.flatMap(({ name }) => [`worker-${name}-1`, `worker-${name}-2`]);
  const masters = among.map(({ name }) => `master-${name}`);
  const look = async () => {
    const said = await Promise.all(among.map((host) => step("status", host)));
    const shown = said.map(rows_of);
    const lacks = (name, nth) => !shown[nth].some((row) => row.name === name);
    const missing = masters.flatMap((master, nth) => [master, ...workers].filter((name) => lacks(name, nth)));
    if (missing.length > 0) throw new Error(`${missing} not in:\n${said.join("\n")}`);
    for (const worker of workers) {
      const rows = shown.flat().filter(({ name }) => name === worker);
      const places = new Set(rows.map(({ master, registration }) => `${registration} at ${master}`));
      if (places.size === 1 && masters.includes(rows[0].master)) continue;
      throw new Error(`${worker} has registrations ${[...places]}:\n${said.join("\n")}`);
    }
    return true;
  };
  await until("whole cluster", look, undone + WHOLE_WITHIN_MS - Date.now());
  console.log(`${at()} whole after ${Date.now() - undone} ms`);
}

const UPGRADE = asked.short && !before ? "one host is upgraded" : "every host in turn is upgraded";
const STANDBY_DIES = "the host of a standby is killed";
const PRIMARY_IS_CUT = "the host of the primary is cut off, a standby promoted";
const PROXY = "a master behind nginx is killed";
const SHORT = [PROXY, STANDBY_DIES, PRIMARY_IS_CUT, UPGRADE];

const is_asked = (name) => (asked.filter ? name.includes(asked.filter) : !asked.short || SHORT.includes(name));

// The nodes of a host as places in what is recorded: hosts have numbers in order, with a master and two workers each.
const nodes_of = (host) => {
  const nth = hosts.indexOf(host);
  return [`master-${nth}`, `worker-${2 * nth}`, `worker-${2 * nth + 1}`];
};
// Records a fault before it begins, if anything is recorded; what is returned records its end. A host that is cut off is
// recorded as a pause, as that is what everybody else sees of it.
const note = (kind, ...places) => Person.history?.fault(kind, ...places) ?? (() => {});

// A phase, what it takes away at most: of the time of a post, and of the time in which anybody's is acknowledged.
async function during(name, loses_ms, what, stands_still_ms = loses_ms) {
  if (!is_asked(name)) return;
  console.log(`\n${at()} ${name}`);
  // An earlier fault may have left everybody at one master: then this one would concern all of them or nobody.
  people.forEach((person, nth) => person.stand_at(nth));
  const from = Date.now();
  const phase = { name, from, loses_ms };
  phases.push(phase);
  try {
    await spread(readers);
    await what(phase);
  } catch (error) {
    fail(`${name}: ${error.message}`);
  }
  await sleep(SIZES.rest_s * 1000);
  const end = Date.now();
  Object.assign(phase, { end }, figures_of(people, from, end));
  console.log(`      ${phase.posts} posts in ${((end - from) / 1000).toFixed(0)} s, the longest wait ${phase.longest} ms, the longest outage ${phase.outage} ms`);
  if (phase.outage > stands_still_ms + SLACK_MS) fail(`${name}: nobody's post was acknowledged for ${phase.outage} ms`);
}

// Notes that no store takes writes any more; what is returned notes the end.
function store_goes(phase, kind) {
  const [from, over] = [Date.now(), note(kind, "store")];
  return () => {
    over();
    phase.store_away = Date.now() - from;
  };
}

// A master that is stopped refuses nobody, and cuts nobody off.
function nobody_was_refused(from) {
  const counts = turned_away(people, from);
  console.log(`      turned away: ${said_of(counts)}`);
  const refused = refused_by_drain(counts);
  if (refused.length > 0) fail(`requests failed: ${refused.join(", ")}`);
}

const tracks = () => readers.map((reader) => reader.track);

// Holds those who streamed at the master of a host at that time to what its end may cost them.
function weigh_streams(host, from, how) {
  const waits = streams_again(tracks(), host.url, from, Date.now(), how);
  console.log(`      ${waits.length} streams at ${host.name} went on within ${at_share(waits, 1)} ms`);
  const late = waits.length > 0 ? late_streams(waits, how) : "no stream was there";
  if (late) fail(`the master of ${host.name} was ${how}: ${late}`);
}

// Does a planned step of the guide on a host, which stops its nodes and starts them again.
async function planned(name, host, nodes) {
  const [from, over] = [Date.now(), note("stop", ...nodes)];
  await step(name, host);
  over();
  await whole();
  weigh_streams(host, from, "drained");
}

// Every acknowledged post stands once in its board at its place, and readers saw all of it in order.
async function check() {
  Person.history?.all_is_quiet();
  const posts = people.flatMap((person) => person.sent);
  let [lost, doubled, moved] = [0, 0, 0];
  // Sessions list the lobby too, to which nobody writes here.
  for (const board of new Set(["lobby", ...posts.map((post) => post.board)])) {
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

const primary = () => primary_of(hosts);

// A person has to decide: what they take for it is lost.
const DECIDES_MS = 5_000;

// Loses the primary, promotes the standby that received more, as the guide says, and waits until the hosts that are left
// go on. What one of them has the other one lacks.
async function promote([behind, ahead], take_away) {
  const had = await lose_primary(take_away, behind, ahead);
  await sleep(DECIDES_MS);
  const standbys = [behind, ahead];
  const received = await Promise.all(standbys.map((host) => stands_at(host, (one) => step("promote", one))));
  const nth = received[0] >= received[1] ? 0 : 1;
  const next = standbys[nth];
  if (!(received[nth] >= had)) fail(`${next.name} is promoted at ${received[nth]}: ${ahead.name} had ${had} bytes`);
  await step("promoted", next);
  console.log(`${at()} ${next.name} is promoted (${received.join(" and ")} bytes received)`);
  await whole(standbys);
  // Commits wait for it.
  await await_follower(next);
  return next;
}

// Makes an old primary a standby of the new one, as the guide says.
async function give_back(old, next) {
  await step("returned", old);
  const follows = async () => (await old.run(IS_STANDBY, 5000)).trim() === "t";
  await until(`${old.name} as a standby`, follows, 30_000);
  await whole();
  if ((await primary()) !== next) fail(`the primary is ${(await primary())?.name}`);
}

for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => (ending ??= clean_up().then(() => process.exit(130))));

try {
  make_network("10.77.0.254");
  await Promise.all(hosts.map((host) => host.start()));
  await set_up();
  await whole();
  console.log(`${at()} ${asked.guide ?? "docs/operate.md"} was followed: three masters, six workers`);
  if (Date.now() - begun > GUIDE_MS) fail(`the guide took more than ${GUIDE_MS} ms`);
  if (!asked.guide) await own_users(hosts, fail);
  report.push(await units_agree(north), ...(await hardening_of(hosts, fail)));
  const no_proxy = why_no_proxy();
  if (no_proxy && is_asked(PROXY)) {
    report.push(`proxy: SKIPPED, ${no_proxy}`);
    console.log(report.at(-1));
    if (process.env.CHATCHAT_REQUIRE_ALL === "1") fail(no_proxy);
  }

  const urls = hosts.map((host) => host.url);
  Person.history?.cluster(urls, 2 * hosts.length);
  for (let nth = 0; nth < SIZES.people; nth += 1) people.push(await Person.join(urls, nth, `board-${nth % 4}`));
  for (let nth = 0; nth < 4; nth += 1) {
    await people[nth].create(`board-${nth}`);
    readers.push(new Reader(urls, people[nth], `board-${nth}`, nth));
  }
  people.forEach((person, nth) => person.start((nth * person.every_ms) / people.length));
  for (const reader of readers) reader.start();

  await during("calm", 0, () => sleep(SIZES.fault_s * 1000));

  if (!no_proxy) {
    await during(PROXY, SILENCE_MS, async () => {
      const from = Date.now();
      for (const host of hosts) await planned("proxied", host, nodes_of(host).slice(0, 1));
      nobody_was_refused(from);
      await spread(readers);
      await start_proxy(middle, await proxy_of(GUIDE));
      let host, killed, undone;
      const kill = async (master) => {
        host = hosts.find(({ name }) => master === `master-${name}`);
        const pid = () => host.run("pidof chatchat-master", 5000);
        const [old, over] = [await pid(), note("exit", nodes_of(host)[0])];
        host.expect_end("chatchat-master", -9);
        killed = Date.now();
        await host.run(`kill -9 ${old}`);
        undone = until(`a new process of ${master}`, async () => (await pid()) !== old).then(over).then(Date.now);
        undone.catch(() => {});
      };
      const { line, person } = await through_proxy(SIZES.people, SIZES.fault_s / 2, kill);
      people.push(person);
      console.log(`      ${line}`);
      await stop_proxy(middle);
      await whole(hosts, await undone);
      weigh_streams(host, killed, "killed");
    });
  }

  await during(STANDBY_DIES, SILENCE_MS, async () => {
    const over = note("crash", ...nodes_of(south));
    const killed = Date.now();
    await south.kill();
    await sleep(SIZES.fault_s * 1000);
    await whole([north, middle]);
    await south.start();
    await south.run("systemctl start chatchat-db chatchat-master chatchat-worker@worker-1 chatchat-worker@worker-2");
    over();
    await whole();
    weigh_streams(south, killed, "silent");
  }, LEASE_MS);

  await during("the host of a standby is cut off", SILENCE_MS, async () => {
    const over = note("pause", ...nodes_of(middle));
    const cut = Date.now();
    middle.cut();
    await sleep(SIZES.fault_s * 1000);
    middle.mend();
    over();
    await whole();
    weigh_streams(middle, cut, "silent");
  }, LEASE_MS);

  await during(UPGRADE, 0, async () => {
    const from = Date.now();
    report.push(
      to_itself
        ? `upgrade: from the programs to themselves, ${before ? "as those of --before are the same" : "for lack of --before"}: it says nothing of two releases`
        : `upgrade: from ${before} to ${bin}`,
    );
    // Not the first one, whose server is the primary.
    for (const host of asked.short && !before ? [middle] : hosts) {
      await host.bring(bin);
      await planned("upgrade", host, nodes_of(host));
      if (!(await host.runs_what_is_installed())) fail(`${host.name} runs earlier programs`);
      console.log(`${at()} ${host.name} is upgraded`);
    }
    nobody_was_refused(from);
  });

  await during("the host of the primary is killed, a standby promoted", DECIDES_MS + FOLLOWS_MS + STORE_AWAY_MS, async (phase) => {
    let [over, store_is_back, killed] = [];
    const next = await promote([middle, south], () => {
      [over, store_is_back, killed] = [note("crash", ...nodes_of(north)), store_goes(phase, "exit"), Date.now()];
      return north.kill();
    });
    store_is_back();
    await sleep(SIZES.fault_s * 1000);
    await north.start();
    await north.run("systemctl start chatchat-master chatchat-worker@worker-1 chatchat-worker@worker-2");
    over();
    await whole();
    await give_back(north, next);
    weigh_streams(north, killed, "silent");
  });

  // While the store is away people go from master to master, and at any time to the one that answers nothing.
  await during(PRIMARY_IS_CUT, DECIDES_MS + FOLLOWS_MS + STORE_AWAY_MS, async (phase) => {
    const old = await primary();
    if (!old) throw new Error("there is no primary");
    let [over, store_is_back, cut] = [];
    const standbys = hosts.filter((host) => host !== old);
    const next = await promote(standbys, () => {
      [over, store_is_back, cut] = [note("pause", ...nodes_of(old)), store_goes(phase, "pause"), Date.now()];
      return old.cut();
    });
    store_is_back();
    await sleep(SIZES.fault_s * 1000);
    // Its own master and workers still reach it: what it acknowledged to them would be lost.
    if ((await old.console(IS_STANDBY)).trim() !== "f") fail(`the server at ${old.name} is no primary any more`);
    await step("fenced", old, (script) => old.console({ paste: script }));
    const end = await old.console(LAST_WRITE);
    if (!/state: +shut down\n/.test(`${end}\n`)) fail(`the server at ${old.name} is not shut down: ${end}`);
    old.mend();
    over();
    console.log(`${at()} ${old.name} is fenced and back`);
    await whole();
    if ((await primary()) !== next) fail(`the primary is ${(await primary())?.name}`);
    const now = await old.run(LAST_WRITE);
    if (now.trim() !== end.trim()) fail(`the server at ${old.name} was written after it was fenced:\n${end}\n${now}`);
    await give_back(old, next);
    weigh_streams(old, cut, "silent");
  });

  await during("the process of the primary is killed and comes back", STORE_AWAY_MS, async (phase) => {
    const host = await primary();
    const over = store_goes(phase, "exit");
    host.expect_end("chatchat-db", -9);
    await host.run("kill -9 $(head -1 /var/lib/chatchat-db/data/postmaster.pid)");
    await until(`the server at ${host.name}`, async () => (await host.run(IS_STANDBY, 5000)).trim() === "f", 30_000);
    await await_follower(host);
    over();
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
const unsettled = await all_done(people, DONE_MS);
if (unsettled.length > 0) fail(`${unsettled.length} posts never acknowledged, such as ${JSON.stringify(unsettled[0])}`);
else if (people.length > 0) await check().catch((error) => fail(error.stack));
for (const text of [...late_posts(people, phases, SLACK_MS), ...refused_streams(tracks())]) fail(text);
for (const reader of readers) reader.stop();
for (const host of hosts) {
  const crashes = await host.crashes().catch((error) => [error.message]);
  if (crashes.length > 0) fail(`ended by itself, or panicked:\n${crashes.join("\n")}`);
}
if (failures) for (const host of hosts) console.log(`\n${host.name}:\n${await host.run("tail -n 15 /var/log/chatchat-*.log", 5000).catch((e) => e.message)}`);
await clean_up();
if (phases.length > 0) console.log(`\n${table_of(phases)}\n`);
for (const line of report) console.log(line);
if (asked.filter && phases.length === 0) fail(`no phase has ${JSON.stringify(asked.filter)} in its name`);
console.log(failures ? `\n${failures} FAILED` : "\nall held");
process.exit(failures ? 1 : 0);
