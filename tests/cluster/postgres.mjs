// A private PostgreSQL server in a temporary directory, on a socket of its own, run by a user that is
// not root, as it demands.

import { execFileSync, spawn } from "node:child_process";
import { chownSync, existsSync, openSync, readdirSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { until } from "../browser/cluster.mjs";

const USER = "chatchat";
const START_MAX_MS = 60_000;
// Part of the socket's name; nothing listens on the network.
const PORT = "5432";

// Returns the directory of the programs, if PostgreSQL is installed.
export function programs() {
  const debian = "/usr/lib/postgresql";
  const versions = existsSync(debian) ? readdirSync(debian).sort((a, b) => Number(b) - Number(a)) : [];
  const dirs = [...versions.map((version) => join(debian, version, "bin")), ...(process.env.PATH ?? "").split(":")];
  return dirs.find((dir) => ["initdb", "postgres", "psql"].every((program) => existsSync(join(dir, program))));
}

export class Postgres {
  static async start(bin) {
    const server = new Postgres();
    const base = await mkdtemp(join(tmpdir(), "chatchat-postgres-"));
    Object.assign(server, { bin, base, data: join(base, "data"), as: [] });
    await mkdir(server.data, { mode: 0o700 });
    if (process.getuid() === 0) {
      const id = (flag) => Number(execFileSync("id", [flag, "postgres"], { encoding: "utf8" }));
      const [user, group] = [id("-u"), id("-g")];
      server.as = [`--reuid=${user}`, `--regid=${group}`, "--clear-groups"];
      for (const dir of [base, server.data]) chownSync(dir, user, group);
    }
    const flags = ["-U", USER, "-E", "UTF8", "--locale=C.UTF-8", "--auth=trust", "--no-sync", "-D", server.data];
    execFileSync("setpriv", [...server.as, join(bin, "initdb"), ...flags], { cwd: "/", stdio: "pipe" });
    await server.start_again();
    return server;
  }

  get url() {
    return `postgres://${USER}@${this.base.replaceAll("/", "%2F")}:${PORT}/postgres`;
  }

  get pid() {
    return this.process.pid;
  }

  spawn() {
    const log = openSync(join(this.base, "log"), "a");
    const flags = ["-D", this.data, "-k", this.base, "-p", PORT, "-c", "listen_addresses=", "-c", "unix_socket_permissions=0777"];
    // It ends with this process, however that ends.
    const args = ["--pdeathsig", "QUIT", ...this.as, join(this.bin, "postgres"), ...flags];
    this.process = spawn("setpriv", args, { cwd: "/", stdio: ["ignore", log, log] });
    this.ended = new Promise((done) => this.process.once("exit", done));
  }

  // Starts it, as often as it takes until the processes of a killed one have ended, and waits until it answers.
  async start_again() {
    this.spawn();
    const asks = ["-h", this.base, "-p", PORT, "-U", USER, "-Atc", "SELECT 1", "postgres"];
    const answers = () => {
      if (this.process.exitCode !== null || this.process.signalCode !== null) this.spawn();
      return execFileSync(join(this.bin, "psql"), asks, { encoding: "utf8", stdio: "pipe" }).trim() === "1";
    };
    await until("answer of PostgreSQL", answers, START_MAX_MS).catch(async (error) => {
      throw new Error(`${error.message}\n${await readFile(join(this.base, "log"), "utf8").catch(() => "")}`);
    });
  }

  // As a crash of its main process does; the others end when they notice.
  async kill() {
    this.process.kill("SIGKILL");
    await this.ended;
  }

  async stop({ keep = false } = {}) {
    this.process.kill("SIGQUIT");
    await this.ended;
    if (keep) console.log(`      kept ${this.base}`);
    else await rm(this.base, { recursive: true, force: true });
  }
}
