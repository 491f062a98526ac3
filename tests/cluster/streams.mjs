// Opens many idle streams on one master of a real cluster, and measures what each costs the master
// in memory and how long a post takes until the last of them has it.
//
//   node streams.mjs [flags]    exit code 0 when all held, 1 when not, 2 for usage
//
// Each stream belongs to a person of its own. People come from several addresses of the loopback, so
// that the limits of the masters' defaults hold for them. The readers run in this one process.

import { readFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { Cluster, sleep, until } from "../browser/cluster.mjs";
import { IdlePeople } from "./idle.mjs";
import { at_share } from "./numbers.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
const USAGE = `usage: node streams.mjs [flags]
  -b, --bin PATH    chatchat-cluster (default: $CHATCHAT_CLUSTER, else target/release/chatchat-cluster)
  -n, --streams N   streams (default: 10,000)
  -s, --short       1,000 streams, 20 posts
  -h, --help        this text`;
// What a stream may cost the master with its session, all settled and idle.
const BYTES_PER_STREAM_MAX = 20 * 1024;
// Time until the master has given back what it needed for opening.
const SETTLE_MS = 15_000;
const POST_EVERY_MS = 500;
const ARRIVES_WITHIN_MS = 10_000;

const asked = flags();
const COUNT = Number(asked.streams ?? (asked.short ? 1000 : 10_000));
const POSTS = asked.short ? 20 : 100;

function flags() {
  try {
    const { values } = parseArgs({
      options: {
        bin: { type: "string", short: "b" },
        streams: { type: "string", short: "n" },
        short: { type: "boolean", short: "s" },
        help: { type: "boolean", short: "h" },
      },
    });
    if (values.help) {
      console.log(USAGE);
      process.exit(0);
    }
    if (values.streams !== undefined && !(Number(values.streams) >= 1)) throw new Error("--streams takes a number");
    return values;
  } catch (error) {
    console.error(`${error.message}\n${USAGE}`);
    process.exit(2);
  }
}

// Resident memory of a process in bytes: all of it, and the part that is no file's.
async function resident(pid) {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  const field = (name) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)[1]) * 1024;
  return { all: field("VmRSS"), own: field("RssAnon") };
}

// Processor time that a process used since its start, in seconds.
async function processor_s(pid) {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

const bin = resolve(asked.bin ?? process.env.CHATCHAT_CLUSTER ?? join(HERE, "../../target/release/chatchat-cluster"));
let failures = 0;
const fail = (text) => {
  failures += 1;
  console.log(`FAIL  ${text}`);
};
const mib = (bytes) => (bytes / 1024 / 1024).toFixed(1);
const kib = (bytes) => (bytes / 1024).toFixed(1);

const cluster = await Cluster.start({ bin, masters: 1, workers: 3 });
const { pid } = cluster.masters[0];
let people;
try {
  people = new IdlePeople(cluster.url(cluster.masters[0]));
  const writer = await people.open_session("writer");

  // The first requests and posts touch what a master needs once.
  for (let nth = 0; nth < 50; nth += 1) await people.post(writer, `warm up ${nth}`);
  await sleep(3000);
  const empty = await resident(pid);
  console.log(`one session, no stream: ${mib(empty.all)} MiB resident`);

  let from = Date.now();
  const tokens = await people.open_sessions(COUNT);
  console.log(`${COUNT} sessions opened in ${((Date.now() - from) / 1000).toFixed(1)} s`);
  people.keep_alive(tokens);
  await sleep(3000);
  const with_sessions = await resident(pid);

  from = Date.now();
  await people.open_streams(tokens);
  console.log(`${people.open} streams opened in ${((Date.now() - from) / 1000).toFixed(1)} s`);
  await sleep(SETTLE_MS);
  const [idle_from, used_from] = [Date.now(), await processor_s(pid)];
  await sleep(SETTLE_MS);
  const used = ((await processor_s(pid)) - used_from) / ((Date.now() - idle_from) / 1000);
  const idle = await resident(pid);

  const [all, first, lasts] = [[], [], []];
  let acked = [];
  for (let nth = 1; nth <= POSTS; nth += 1) {
    const sent = performance.now();
    const arrivals = people.expect(nth, sent);
    const answer = people.post(writer, `mark ${nth}.`).then(() => acked.push(performance.now() - sent));
    const arrived = () => arrivals.length >= people.open || Promise.reject(new Error(`${arrivals.length} of ${people.open}, ${people.ended} ended`));
    await Promise.all([answer, until(`post ${nth} at all streams`, arrived, ARRIVES_WITHIN_MS)]);
    for (const ms of arrivals) all.push(ms);
    first.push(arrivals[0]);
    lasts.push(arrivals.at(-1));
    await sleep(Math.max(0, POST_EVERY_MS - (performance.now() - sent)));
  }
  const after = await resident(pid);

  const per = (later, before, of) => kib((later[of] - before[of]) / COUNT);
  console.log(`
master's memory, KiB for each of ${COUNT}          resident   of it no file's
  session without a stream                     ${per(with_sessions, empty, "all").padStart(8)} ${per(with_sessions, empty, "own").padStart(15)}
  session with an idle stream                  ${per(idle, empty, "all").padStart(8)} ${per(idle, empty, "own").padStart(15)}
  the same after ${String(POSTS).padStart(3)} posts                     ${per(after, empty, "all").padStart(8)} ${per(after, empty, "own").padStart(15)}
  (${mib(empty.all)} MiB before, ${mib(idle.all)} MiB idle, ${mib(after.all)} MiB after the posts; ${(used * 100).toFixed(1)} % of a core while idle)

${POSTS} posts, ms from sending                  p50      p99  longest`);
  for (const [name, values] of [
    ["until the writer has the answer", acked],
    ["until the first stream has it", first],
    ["until any one stream has it", all],
    ["until the last stream has it", lasts],
  ]) {
    const cells = [at_share(values, 0.5), at_share(values, 0.99), at_share(values, 1)].map((ms) => ms.toFixed(1).padStart(8));
    console.log(`  ${name.padEnd(36)} ${cells.join(" ")}`);
  }
  if (people.ended > 0) fail(`${people.ended} streams ended`);
  for (const text of people.wrong.slice(0, 5)) fail(text);
  const cost = (Math.max(idle.all, after.all) - empty.all) / COUNT;
  if (cost > BYTES_PER_STREAM_MAX) fail(`a stream costs ${kib(cost)} KiB, over ${kib(BYTES_PER_STREAM_MAX)}`);
} catch (error) {
  fail(error.stack);
}
people?.close();
await cluster.stop().catch((error) => fail(error.message));
console.log(failures ? `\n${failures} FAILED` : "\nall held");
process.exit(failures ? 1 : 0);
