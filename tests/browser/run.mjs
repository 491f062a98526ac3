// Drives the page in a real Chromium against a real cluster, nodes killed on the way.
//
//   npm ci && node run.mjs [flags]        exit code 0 when all passed, 1 when not, 2 for usage

import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";

import { Cluster } from "./cluster.mjs";
import * as access from "./checks/access.mjs";
import * as chat from "./checks/chat.mjs";
import * as faults from "./checks/faults.mjs";
import * as hostile from "./checks/hostile.mjs";
import * as kept from "./checks/kept.mjs";
import * as looks from "./checks/looks.mjs";
import * as ux from "./checks/ux.mjs";
import * as moves from "./checks/moves.mjs";
import * as people from "./checks/people.mjs";
import * as reading from "./checks/reading.mjs";
import * as replay from "./checks/replay.mjs";
import * as strangers from "./checks/strangers.mjs";
import * as tabs from "./checks/tabs.mjs";
import * as units from "./checks/units.mjs";
import { servePage } from "./page.mjs";

const USAGE = `usage: node run.mjs [flags]
  -b, --bin PATH       chatchat-cluster (default: $CHATCHAT_CLUSTER, else target/release/chatchat-cluster)
  -c, --chromium PATH  the browser (default: $CHROMIUM, else /usr/bin/chromium)
  -o, --out DIR        where screenshots go (default: out beside this file)
  -p, --page DIR       page files from here (src/http/page), not those inside the program
  -w, --without-policy  leave the page's content security policy out
      --sim PATH       chatchat-sim, whose page of a run is opened too (default: target/debug/chatchat-sim)
  -s, --short          only what must never break: chat, a dead master, a dead worker, hostile texts,
                       the page of a run, axe, the keyboard alone, two looks
  -l, --long           everything, the deaths three times over
  -f, --filter WORD    only checks whose "suite: name" holds it; suites: units, chat, faults, hostile,
                       strangers, ux, moves, access, reading, people,
                       tabs, looks, replay
  -k, --keep           leave each cluster's directory behind and say where it is
  -v, --verbose        say what the cluster said
  -h, --help           this text`;

const HERE = dirname(fileURLToPath(import.meta.url));

function flags() {
  try {
    const { values } = parseArgs({
      options: {
        bin: { type: "string", short: "b" },
        chromium: { type: "string", short: "c" },
        out: { type: "string", short: "o" },
        page: { type: "string", short: "p" },
        "without-policy": { type: "boolean", short: "w" },
        sim: { type: "string" },
        short: { type: "boolean", short: "s" },
        long: { type: "boolean", short: "l" },
        filter: { type: "string", short: "f" },
        keep: { type: "boolean", short: "k" },
        verbose: { type: "boolean", short: "v" },
        help: { type: "boolean", short: "h" },
      },
    });
    return values;
  } catch (error) {
    console.error(`${error.message}\n${USAGE}`);
    process.exit(2);
  }
}

const asked = flags();
if (asked.help) {
  console.log(USAGE);
  process.exit(0);
}
if (asked.short && asked.long) {
  console.error(`--short and --long exclude each other\n${USAGE}`);
  process.exit(2);
}

const bin = resolve(
  asked.bin ?? process.env.CHATCHAT_CLUSTER ?? join(HERE, "../../target/release/chatchat-cluster"),
);
const sim = resolve(asked.sim ?? join(HERE, "../../target/debug/chatchat-sim"));
const out = resolve(asked.out ?? join(HERE, "out"));
await mkdir(out, { recursive: true });

const dir = asked.page && resolve(asked.page);
const changed = dir || asked["without-policy"] ? { dir, policy: !asked["without-policy"] } : null;

let [passed, failed] = [0, 0];

// Runs one suite against a cluster of its own. What no page may ever do fails the check that saw it.
async function suite(name, checks, { masters = 2, alone = false } = {}) {
  const chosen = checks.filter(([what]) => `${name}: ${what}`.includes(asked.filter ?? ""));
  if (chosen.length === 0) return;
  let cluster = null;
  const browser = await chromium.launch({
    executablePath: asked.chromium ?? process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--disable-dev-shm-usage",
      // A page that the driver put in counts as a public one, which may not ask loopback.
      ...(changed ? ["--disable-features=LocalNetworkAccessChecks"] : []),
    ],
  });
  if (changed) servePage(browser, changed);
  const check = async (what, run) => {
    const begun = Date.now();
    const wrong = [];
    try {
      if (!alone) cluster ??= await Cluster.start({ bin, masters });
      await run({ browser, cluster, wrong, out, sim });
      if (wrong.length > 0) throw new Error(wrong.join("\n"));
      passed += 1;
      console.log(`ok    ${name}: ${what} (${Date.now() - begun} ms)`);
    } catch (error) {
      failed += 1;
      console.log(
        `FAIL  ${name}: ${what}\n      ${String(error.stack ?? error).replaceAll("\n", "\n      ")}`,
      );
    } finally {
      await Promise.all(browser.contexts().map((context) => context.close()));
    }
  };
  try {
    for (const [what, run] of chosen) await check(what, run);
  } finally {
    await browser.close();
    if (asked.verbose && cluster) console.log(cluster.output);
    await cluster?.stop(asked);
  }
}

const rounds = asked.long ? 3 : 1;
await suite("units", [...units.checks, ...kept.checks], { alone: true });
if (existsSync(sim)) {
  await suite("replay", replay.checks, { alone: true });
} else if (replay.checks.some(([what]) => `replay: ${what}`.includes(asked.filter ?? ""))) {
  const mustRun = process.env.CHATCHAT_REQUIRE_ALL === "1";
  if (mustRun) failed += 1;
  console.log(`${mustRun ? "FAIL " : "SKIP "} replay: there is no ${sim}; \`cargo build -p chatchat-sim\` makes it`);
}
await suite("chat", chat.checks);
for (let round = 1; round <= rounds; round += 1) {
  await suite(rounds > 1 ? `faults ${round}` : "faults", faults.checks, { masters: 6 });
}
await suite("hostile", asked.short ? hostile.checks : [...hostile.checks, ...hostile.slow]);
await suite("strangers", strangers.checks);
if (asked.short) {
  await suite("access", access.short);
  await suite("looks", looks.short);
} else {
  await suite("moves", moves.checks);
  await suite("ux", ux.checks);
  await suite("access", access.checks);
  await suite("reading", reading.checks);
  await suite("people", people.checks);
  await suite("tabs", tabs.checks);
  await suite("looks", looks.checks);
}

if (passed + failed === 0) {
  failed += 1;
  console.log(`FAIL  no check has ${JSON.stringify(asked.filter)} in its name`);
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
