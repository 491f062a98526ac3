"""Makes this process the service of a unit, with its limits, its user and its hardening, as systemd would; then runs its program.

  confine.py run SETTINGS SAID    runs the program of the unit; SETTINGS are its lines as JSON, and the file SAID is told for
                                  each line of hardening null, or why it was not applied
  confine.py try SETTINGS SAID    tries instead what these lines forbid, and prints as JSON which lines did not stop it, and
                                  of which that says nothing, as this machine stops it without them too
"""

import ctypes
import json
import os
import pwd
import resource
import shlex
import sys

sys.dont_write_bytecode = True

import mounts  # noqa: E402
import syscalls  # noqa: E402
import tries  # noqa: E402

# Lines that are no hardening, which host.py and this program obey.
ORDINARY = ["Type", "User", "ExecStart", "Restart", "RestartSec", "TimeoutStopSec", "KillMode", "KillSignal", "LimitNOFILE"]
OFF = ["no", "false", "off", "0"]
NEW_NAMES = 0x04000000
DROP_CAPABILITY, SET_NO_NEW_PRIVILEGES = 24, 38
# Exit codes of systemd for a program or a directory that is not there.
NO_PROGRAM, NO_NAMESPACE = 203, 226


def become(user):
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def new_names(_):
    mounts.call("unshare", NEW_NAMES)


def drop_capabilities(value):
    if value:
        raise NotImplementedError("only an empty one is known here")
    for capability in range(64):
        try:
            mounts.call("prctl", DROP_CAPABILITY, capability, 0, 0, 0)
        except OSError:
            # There are no more.
            return


def no_new_privileges(_):
    mounts.call("prctl", SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)


AS_ROOT = {
    "ProtectHostname": new_names,
    "CapabilityBoundingSet": drop_capabilities,
    "UMask": lambda value: os.umask(int(value, 8)),
}
AS_USER = {"NoNewPrivileges": no_new_privileges}


def hardening_of(settings):
    return {line: value for line, value in settings.items() if line not in ORDINARY and value not in OFF}


def confine(settings):
    """Takes what the unit leaves of root's powers away; returns for each line of hardening why it was not applied, or None."""
    lines = hardening_of(settings)
    known = [mounts.MOUNTS, syscalls.FILTERS, AS_ROOT, AS_USER]
    said = {line: None if any(line in these for these in known) else "not known here" for line in lines}

    def attempt(line, act, *args):
        if said[line] is None:
            try:
                return act(*args)
            except (OSError, NotImplementedError) as error:
                said[line] = str(error)

    def each(of, *more):
        for line in of:
            if line in lines:
                attempt(line, of[line], lines[line], *more)

    user = pwd.getpwnam(settings.get("User", "root"))
    # Made while all tools are in reach, loaded at the end.
    filters = {line: attempt(line, make, lines[line]) for line, make in syscalls.FILTERS.items() if line in lines}
    if files := settings.get("LimitNOFILE"):
        # As far as this machine lets it.
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        most = int(files) if hard == resource.RLIM_INFINITY else min(int(files), hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for path in lines.get("ReadWritePaths", "").split():
        if not os.path.exists(path):
            print(f"ReadWritePaths: there is no {path}", file=sys.stderr, flush=True)
            sys.exit(NO_NAMESPACE)
    if any(line in lines for line in mounts.MOUNTS):
        mounts.begin()
        each(mounts.MOUNTS, lines)
        mounts.end()
    each(AS_ROOT)
    become(user)
    each(AS_USER)
    for line, one in filters.items():
        if one:
            # Whoever is not root may load filters only without new privileges; systemd adds it too.
            no_new_privileges(None)
            attempt(line, one.load)
    return said


def main(what, settings, said_path):
    settings = json.loads(settings)
    lines, before = hardening_of(settings), tries.outside()
    user = pwd.getpwnam(settings.get("User", "root"))
    stopped_anyway = tries.stopped(lines, before, lambda: become(user)) if what == "try" else []
    said = open(said_path, "w")
    outcome = confine(settings)
    json.dump(outcome, said)
    said.flush()
    if what == "try":
        applied = {line: value for line, value in lines.items() if outcome[line] is None}
        stopped = tries.stopped(applied, before)
        print(json.dumps({"stopped_anyway": stopped_anyway, "not_stopped": [line for line in applied if line not in stopped]}), flush=True)
        return 0
    program, *args = shlex.split(settings["ExecStart"])
    try:
        os.execve(program, [program, *args], os.environ)
    except OSError as error:
        print(f"{program}: {error}", file=sys.stderr, flush=True)
        return NO_PROGRAM


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
