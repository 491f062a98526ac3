// Flags of run.mjs.

import { parseArgs } from "node:util";

const USAGE = `usage: node run.mjs [flags]
  -b, --bin DIR     directory of the programs (default: target/release)
  -B, --before DIR  directory of earlier programs, with which the cluster starts and from which it is upgraded
      --guide FILE  guide of the earlier programs, by which the hosts are set up (default: docs/operate.md)
  -f, --filter WORD only phases whose name holds it
  -s, --short       shorter faults, and only what the gate asks: a master behind a proxy is killed, so is the host of
                    a standby, one host is upgraded, with --before every one, and that of the primary is cut off
      --history FILE  write what people saw to this file
      --judge PATH  chatchat-sim, whose oracles judge what people saw
  -k, --keep        leave the directory behind
  -h, --help        this text`;

// Reads them; ends the process after their help, or with 2 when they are wrong.
export function flags() {
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
