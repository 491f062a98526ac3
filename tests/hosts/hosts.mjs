// Three hosts in network namespaces, each with its own mounts, processes and name, on one bridge.

import { execFileSync, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { until } from "../browser/cluster.mjs";

const HOST_PY = new URL("host.py", import.meta.url).pathname;
// Where that writes each end of a service.
const ENDS = "/var/log/ends";
const BRIDGE = "chatchat-br";
// Directories of which each host has its own copy, over the machine's.
const OWN = ["/etc", "/var", "/usr/local", "/root"];
// What a new machine with Debian's package has on its disks: its own name at an address that is no other's, and a server
// that starts at each boot.
const AS_DEBIAN = (name) => `echo "127.0.1.1 ${name}" >> /etc/hosts
mkdir -p /etc/systemd/system/multi-user.target.wants
ln -sf /lib/systemd/system/postgresql.service /etc/systemd/system/multi-user.target.wants/`;
export const PROGRAMS = ["chatchat-master", "chatchat-worker", "chatctl"];

const paths = (bin) => PROGRAMS.map((name) => join(bin, name)).join(" ");
// A command as host.py takes it: a script of its own shell, or a block to paste.
const as_asked = (script) => JSON.stringify(script.paste ? script : `set -e\n${script}`);
const root = (...args) => execFileSync(args[0], args.slice(1), { stdio: "pipe" });
const quietly = (...args) => {
  try {
    root(...args);
  } catch {
    // It was not there.
  }
};

export class Host {
  constructor(name, address, dir, bin) {
    Object.assign(this, { name, address, dir, bin });
    this.url = `http://${address}:8080`;
    this.link = `chat-${name}`;
    this.expected = [];
  }

  // Plugs the host in and switches it on. What it wrote to its disks before is there again.
  async start() {
    const net = `chatchat-${this.name}`;
    quietly("ip", "netns", "del", net);
    quietly("ip", "link", "del", this.link);
    root("ip", "netns", "add", net);
    root("ip", "link", "add", this.link, "type", "veth", "peer", "name", "eth0", "netns", net);
    root("ip", "link", "set", this.link, "master", BRIDGE, "up");
    // A machine that comes back has the network card that others remember.
    root("ip", "-n", net, "link", "set", "eth0", "address", `02:00:00:00:00:0${this.address.at(-1)}`);
    root("ip", "-n", net, "addr", "add", `${this.address}/24`, "dev", "eth0");
    for (const device of ["eth0", "lo"]) root("ip", "-n", net, "link", "set", device, "up");
    const mounts = [];
    for (const path of OWN) {
      const place = join(this.dir, path.replaceAll("/", "_"));
      await mkdir(join(place, "up"), { recursive: true });
      await mkdir(join(place, "work"), { recursive: true });
      mounts.push(`mount -t overlay overlay -o lowerdir=${path},upperdir=${place}/up,workdir=${place}/work ${path}`);
    }
    // What a machine has of itself when it starts.
    mounts.push("mount -t tmpfs tmpfs /run", "install -d -o postgres -g postgres /run/postgresql");
    const shims = join(this.dir, "shims");
    await mkdir(shims, { recursive: true });
    for (const what of ["ssh", "systemctl"]) {
      await writeFile(join(shims, what), `#!/bin/sh\nexec python3 ${HOST_PY} ${what} "$@"\n`);
      await chmod(join(shims, what), 0o755);
    }
    // A host that was killed has its disks, and the programs on them, as they were.
    const install = this.process ? "" : `cp ${paths(this.bin)} /usr/local/bin/\n${AS_DEBIAN(this.name)}`;
    const script = `set -e\n${mounts.join("\n")}\n${install}\nexport PATH=${shims}:$PATH\nexec python3 ${HOST_PY} run ${this.name}`;
    const args = ["netns", "exec", net, "unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc", "bash", "-c", script];
    this.process = spawn("ip", args, { stdio: ["ignore", "pipe", "pipe"] });
    this.output = "";
    for (const stream of [this.process.stdout, this.process.stderr]) stream.on("data", (bytes) => (this.output += bytes));
    this.ended = new Promise((done) => this.process.once("exit", done));
    await until(`host ${this.name}: ${this.output}`, () => this.output.includes("up"), 10_000);
  }

  // Ends every process of the host at once, as a power cut does: nobody hears of it, and its disks stay.
  async kill() {
    quietly("ip", "link", "set", this.link, "down");
    this.process.kill("SIGKILL");
    await this.ended;
  }

  // Puts new programs where the guide's upgrade takes them from.
  async bring(bin) {
    await this.run(`mkdir -p /var/tmp/chatchat-new && cp ${paths(bin)} /var/tmp/chatchat-new/`);
  }

  // Whether each program that was brought is the one that is installed now, and each process of ours runs that.
  async runs_what_is_installed() {
    for (const name of PROGRAMS) await this.run(`cmp /var/tmp/chatchat-new/${name} /usr/local/bin/${name}`);
    const old = await this.run("readlink /proc/[0-9]*/exe | grep '/chatchat-.*(deleted)' || true");
    return old.trim() === "";
  }

  // Tries what the hardening of a unit forbids, as its service would, and gives what came of it as JSON.
  try_hardening(unit) {
    return this.run(`python3 ${HOST_PY} try ${unit}`);
  }

  // Notes that a service is to end so without being asked, once.
  expect_end(unit, code) {
    this.expected.push({ unit, code });
  }

  // Ends of services of which none was expected, those by which one that was asked to end failed, and panics.
  async crashes() {
    const expected = [...this.expected];
    const lines_of = async (script) => (await this.run(`${script} || true`, 5000)).split("\n").filter(Boolean);
    const ends = (await lines_of(`cat ${ENDS}`)).map((line) => JSON.parse(line));
    const is_crash = ({ unit, code, asked }) => {
      if (asked && code === 0) return false;
      const nth = expected.findIndex((end) => !asked && end.unit === unit && end.code === code);
      if (nth >= 0) expected.splice(nth, 1);
      return nth < 0;
    };
    const panics = await lines_of("grep -h ' panicked at ' /var/log/chatchat-*.log");
    const sentence = ({ unit, code, asked }) => `${unit} ended with ${code}${asked ? " when it was asked to" : ""}`;
    return [...ends.filter(is_crash).map(sentence), ...panics].map((what) => `${this.name}: ${what}`);
  }

  cut() {
    root("ip", "link", "set", this.link, "down");
  }

  mend() {
    root("ip", "link", "set", this.link, "up");
  }

  // Runs a script as root, and gives its output; throws what it said when it fails.
  run(script, limit_ms = 120_000) {
    return new Promise((done, failed) => {
      const socket = connect(22, this.address);
      let text = "";
      socket.setTimeout(limit_ms, () => socket.destroy(new Error("no end in time")));
      socket.setEncoding("utf8");
      socket.on("data", (part) => (text += part));
      socket.on("error", (error) => failed(new Error(`${this.name}: ${error.message}`)));
      socket.on("close", () => {
        const at = text.lastIndexOf("\n");
        const [out, code] = [text.slice(0, at), text.slice(at + 1)];
        if (code === "0") return done(out);
        failed(new Error(`${this.name}: exit ${code}\n${script.paste ?? script}\n${out}\n${this.output.slice(-2000)}`));
      });
      socket.end(`${as_asked(script)}\n`);
    });
  }

  // Runs a block of the guide in the one shell into which a person pastes them: its variables, `umask` and `cd` stay.
  paste(block) {
    return this.run({ paste: block });
  }

  // Runs a script as root at the host's own console, which needs no network.
  console(script) {
    const args = ["netns", "exec", `chatchat-${this.name}`, "python3", HOST_PY, "ask", this.address, as_asked(script)];
    return new Promise((done, failed) => {
      const process = spawn("ip", args, { stdio: ["ignore", "pipe", "pipe"], timeout: 120_000 });
      let [out, errors] = ["", ""];
      process.stdout.on("data", (bytes) => (out += bytes));
      process.stderr.on("data", (bytes) => (errors += bytes));
      process.on("error", failed);
      process.on("close", (code) => {
        if (code === 0) return done(out);
        failed(new Error(`${this.name}: exit ${code} at the console\n${script.paste ?? script}\n${out}${errors}`));
      });
    });
  }
}

// Makes the bridge that the hosts and the people are on.
export function make_network(address) {
  quietly("ip", "link", "del", BRIDGE);
  root("ip", "link", "add", BRIDGE, "type", "bridge");
  root("ip", "addr", "add", `${address}/24`, "dev", BRIDGE);
  root("ip", "link", "set", BRIDGE, "up");
}

export function remove_network(hosts) {
  for (const host of hosts) quietly("ip", "netns", "del", `chatchat-${host.name}`);
  quietly("ip", "link", "del", BRIDGE);
}

// Why hosts cannot be made here, if they cannot. `mendable` says whether root and packages are all that lacks:
// else the machine gives nobody namespaces or overlays.
export function why_not() {
  if (process.getuid() !== 0) return { why: "it needs root", mendable: true };
  const lacking = ["ip", "unshare", "openssl", "python3", "psql"].filter((program) => spawnSync("which", [program]).status !== 0);
  if (lacking.length > 0) return { why: `there is no ${lacking.join(", ")}`, mendable: true };
  if (!has_postgres()) return { why: "there is no PostgreSQL in /usr/lib/postgresql", mendable: true };
  const [net, dir] = ["chatchat-probe", mkdtempSync(join(tmpdir(), "chatchat-probe-"))];
  const overlay = `mkdir ${dir}/up ${dir}/work && mount -t overlay overlay -o lowerdir=/etc,upperdir=${dir}/up,workdir=${dir}/work /etc`;
  const clear = () => {
    for (const link of ["chat-probe", net]) quietly("ip", "link", "del", link);
    quietly("ip", "netns", "del", net);
  };
  // Left by a run that was killed.
  clear();
  try {
    root("ip", "netns", "add", net);
    root("ip", "link", "add", net, "type", "bridge");
    root("ip", "link", "add", "chat-probe", "type", "veth", "peer", "name", "eth0", "netns", net);
    root("ip", "netns", "exec", net, "unshare", "--mount", "--pid", "--uts", "--fork", "--mount-proc", "sh", "-c", overlay);
    return undefined;
  } catch (error) {
    return { why: String(error.stderr ?? error.message).trim() || error.message, mendable: false };
  } finally {
    clear();
    rmSync(dir, { recursive: true, force: true });
  }
}

function has_postgres() {
  try {
    return readdirSync("/usr/lib/postgresql").some((version) => spawnSync("test", ["-x", `/usr/lib/postgresql/${version}/bin/postgres`]).status === 0);
  } catch {
    return false;
  }
}
