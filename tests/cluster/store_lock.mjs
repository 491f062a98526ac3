// The write lock of a store in a file, held by another process: the store answers no write meanwhile.

import { spawn } from "node:child_process";

// Holds the lock for so many seconds.
export function hold(store, seconds) {
  const script =
    "import sqlite3, sys, time\n" +
    "db = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)\n" +
    "db.execute('BEGIN IMMEDIATE')\nprint('held', flush=True)\n" +
    "time.sleep(float(sys.argv[2]))\ndb.execute('ROLLBACK')\n";
  const child = spawn("python3", ["-c", script, store, String(seconds)], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise((done) => child.once("exit", done));
  return { held: new Promise((done) => child.stdout.once("data", done)), ended };
}
