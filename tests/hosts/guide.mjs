// The blocks of docs/operate.md: those that are run on hosts, and the check of those that are only read there.

import { readFile } from "node:fs/promises";

// Most exposure that `systemd-analyze security` may find in the unit of a node, in tenths; 10 is bare.
const EXPOSURE_MAX = 30;

// Blocks of a guide in order: where each is run, and its text.
export async function blocks_of(path) {
  const text = await readFile(path, "utf8");
  return [...text.matchAll(/^```sh ([a-z ]+)\n([\s\S]*?)^```$/gm)].map(([, on, script]) => ({ on: on.split(" "), script }));
}

// The block of a guide for a proxy.
export async function proxy_of(path) {
  const block = (await readFile(path, "utf8")).match(/^```nginx\n([\s\S]*?)^```$/m)?.[1];
  if (!block) throw new Error(`${path} has no block for nginx`);
  return block;
}

// Has systemd judge the units that the guide wrote on this host, where it is installed. Gives a line: what
// held, or what was left out; throws what was said against them.
export async function units_agree(host) {
  const units = await host.run(`command -v systemd-analyze > /dev/null || { echo "units: left out, there is no systemd-analyze"; exit 0; }
cd /etc/systemd/system
systemd-analyze verify --man=no ./chatchat-db.service ./chatchat-master.service ./chatchat-worker@.service 2>&1
systemd-analyze security --offline=true --threshold=${EXPOSURE_MAX} ./chatchat-master.service ./chatchat-worker@.service > /run/exposure 2>&1 ||
  { grep -v '✓' /run/exposure; exit 1; }
echo "units: systemd-analyze finds no fault, and the nodes exposed by ${EXPOSURE_MAX / 10} of 10 at most"`);
  return units.trim().split("\n").at(-1);
}
