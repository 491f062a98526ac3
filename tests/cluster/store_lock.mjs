// The write lock of a store in a file, held by another process: the store answers no write meanwhile.

import { spawn } from "node:child_process";

// Holds the lock for so many seconds. Both that are returned fail if it was not held so.
export function hold(store, seconds) {
  const script =
    "import sqlite3, sys, time\n" +
    "db = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)\n" +
    "db.execute('BEGIN IMMEDIATE')\nprint('held', flush=True)\n" +
    "time.sleep(float(sys.argv[2]))\ndb.execute('ROLLBACK')\n";
  const child = spawn("python3", ["-c", script, store, String(seconds)], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise((done, failed) => {
    child.once("error", failed);
    child.once("exit", (code) => (code === 0 ? done() : failed(new Error(`the lock was not held: exit code ${code}`))));
  });
  const held = new Promise((done, failed) => {
    child.stdout.once("data", done);
    ended.catch(failed);
  });
  return { held, ended };
}
