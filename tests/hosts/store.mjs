// The servers of PostgreSQL on the hosts: which is the primary, how far standbys are, and how one comes to lag.

import { sleep, until } from "../browser/cluster.mjs";

const query = (sql) => `su postgres -s /bin/sh -c "psql -Atc '${sql}' postgres"`;
const DATA = "/var/lib/chatchat-db/data";

export const IS_STANDBY = query("SELECT pg_is_in_recovery()");
// Whether a server that is stopped ended well, and where: any that runs on it leaves another end.
export const LAST_WRITE = `$(ls -d /usr/lib/postgresql/*/bin | tail -1)/pg_controldata -D ${DATA} | grep -E '^(Database cluster state|Latest checkpoint location|Time of latest checkpoint)'`;
const FOLLOWERS = query("SELECT count(*) FROM pg_stat_replication WHERE state = \\$\\$streaming\\$\\$");
const RECEIVER = query("SELECT pid, status FROM pg_stat_wal_receiver");
const REPLAYED = query("SELECT pg_last_wal_replay_lsn() - pg_lsn(\\$\\$0/0\\$\\$)");

// Time in which a standby lags, so that it lacks posts that were acknowledged.
const LAGS_MS = 1_500;
// Time after which a number that is the same stands still, and until it does.
const STILL_MS = 500;
const STANDS_MS = 15_000;
// Time until the other standby follows, of which it needs some to give the old primary up.
export const FOLLOWS_MS = 10_000;

export async function primary_of(hosts) {
  for (const host of hosts) {
    const is = await host.run(IS_STANDBY, 5000).catch(() => "");
    if (is.trim() === "f") return host;
  }
  return undefined;
}

// Process that receives at a standby, once it does.
async function receiver(host) {
  const pid = async () => (await host.run(RECEIVER, 5000)).match(/^(\d+)\|streaming$/m)?.[1];
  return until(`standby at ${host.name} that receives`, pid, 30_000);
}

// Takes the primary away when one standby lacks what the other has, and has the server of the other start again, so that
// it does not remember any more how much it received. Gives how much it surely has.
export async function lose_primary(take_away, behind, ahead) {
  const [pid] = await Promise.all([receiver(behind), receiver(ahead)]);
  await behind.run(`kill -STOP ${pid}`);
  await sleep(LAGS_MS);
  await take_away();
  // It ends before it reads what came meanwhile.
  await behind.run(`kill -TERM ${pid} && kill -CONT ${pid}`);
  const had = Number(await ahead.run(REPLAYED));
  ahead.expect_end("chatchat-db", -9);
  await ahead.run(`kill -9 $(head -1 ${DATA}/postmaster.pid)`);
  return had;
}

// What `ask` gives at a standby, once it stands still.
export async function stands_at(host, ask) {
  let [last, now] = [undefined, undefined];
  const stands = async () => {
    await sleep(STILL_MS);
    [last, now] = [now, await ask(host)];
    return last === now;
  };
  await until(`number at ${host.name} that stands still`, stands, STANDS_MS);
  return Number(now);
}

export async function await_follower(host) {
  await until(`a standby of ${host.name}`, async () => (await host.run(FOLLOWERS, 5000)).trim() !== "0", FOLLOWS_MS);
}

// Each worker has a user of its own at PostgreSQL, and the login in a file that only it can read.
export async function own_users(hosts, fail) {
  const asks = "SELECT count(*) FROM pg_roles WHERE rolcanlogin AND rolname LIKE 'chatchat\\_%'";
  const users = Number(await (await primary_of(hosts)).run(`su postgres -s /bin/sh -c "psql -At postgres" <<< "${asks}"`));
  if (users !== 2 * hosts.length) fail(`${users} users of workers at PostgreSQL`);
  for (const host of hosts) {
    const modes = await host.run("stat -c %a:%U /var/lib/chatchat/worker-*/store.login");
    if (modes.trim() !== "600:chatchat\n600:chatchat") fail(`store.login at ${host.name}: ${modes}`);
  }
}
