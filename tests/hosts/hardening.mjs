// The hardening of the guide's units, as far as it can be had without systemd: what of it was applied, that each line
// stops what it forbids, and that the processes which serve are inside.

// Units of a host, by the name of their process.
const UNITS = { postgres: "chatchat-db", "chatchat-master": "chatchat-master", "chatchat-worker": "chatchat-worker@worker-1" };
const PROCESSES = 4;
// Allows something, and forbids nothing.
const ALLOWS = ["ReadWritePaths"];

// For each process of a host the lines whose work can be seen at it from outside.
const SEEN = `for pid in $(pidof chatchat-master chatchat-worker) $(head -1 /var/lib/chatchat-db/data/postmaster.pid); do
  seen=$(cat /proc/$pid/comm)
  has() { grep -q "$1" /proc/$pid/status && seen="$seen $2" || true; }
  has '^NoNewPrivs:.1$' NoNewPrivileges
  has '^CapBnd:.0*$' CapabilityBoundingSet
  has '^Seccomp:.2$' SystemCallFilter
  if nsenter -t $pid -m touch /usr/local/.seen 2> /dev/null; then rm /usr/local/.seen; else seen="$seen ProtectSystem"; fi
  [ -n "$(nsenter -t $pid -m ls -A /root)" ] || seen="$seen ProtectHome"
  echo "$seen"
done`;
const CAN_BE_SEEN = ["NoNewPrivileges", "CapabilityBoundingSet", "SystemCallFilter", "ProtectSystem", "ProtectHome"];

// Lines of a unit that were applied at its last start, and why others were not.
async function said_of(host, unit) {
  const said = Object.entries(JSON.parse(await host.run(`cat /run/chatchat-hardening/${unit}`)));
  return { applied: said.filter(([, why]) => why === null).map(([line]) => line), not: said.filter(([, why]) => why !== null) };
}

// Gives lines for the report; `fail` is told what does not hold.
export async function hardening_of(hosts, fail) {
  const report = [];
  for (const unit of Object.values(UNITS)) {
    const { applied, not } = await said_of(hosts[0], unit);
    const { not_stopped, stopped_anyway } = JSON.parse(await hosts[0].try_hardening(unit));
    if (not_stopped.length > 0) fail(`${unit}: what these lines forbid is not stopped: ${not_stopped.join(", ")}`);
    const mute = applied.filter((line) => stopped_anyway.includes(line) && !ALLOWS.includes(line));
    report.push(
      `hardening of ${unit}: applied ${applied.join(" ") || "nothing"}` +
        `; not applied ${not.map(([line, why]) => `${line} (${why})`).join(", ") || "none"}` +
        (mute.length > 0 ? `; each was tried, which says nothing of ${mute.join(", ")} on this machine` : "; each was tried"),
    );
  }
  for (const host of hosts) {
    const processes = (await host.run(SEEN)).trim().split("\n");
    if (processes.length !== PROCESSES) fail(`${host.name}: processes ${processes}`);
    for (const [name, ...seen] of processes.map((line) => line.split(" "))) {
      const { applied } = await said_of(host, UNITS[name]);
      const outside = CAN_BE_SEEN.filter((line) => applied.includes(line) && !seen.includes(line));
      if (outside.length > 0) fail(`${name} at ${host.name} runs without ${outside.join(", ")}`);
    }
  }
  report.push(`hardening: ${PROCESSES * hosts.length} processes on ${hosts.length} hosts run inside`);
  return report;
}
