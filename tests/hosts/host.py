"""First process of a host in a namespace: stands in for sshd and systemd, as far as docs/operate.md uses them.

  host.py run NAME         is the first process: takes commands over TCP, and runs the services that it is asked to
  host.py ask HOST JSON    gives that process a command as it takes them, from the machine around the hosts
  host.py ssh HOST CMD     runs a command on another host, with this one's stdin; root on north alone may
  host.py systemctl ARGS   asks the first process for services: enable, disable (both with --now), start, stop, restart
  host.py try UNIT         tries what the hardening of a unit forbids, as its service would, and prints what came of it
  host.py postgres         is the server that Debian's package starts, as far as another one meets it
"""

import json
import os
import pwd
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True

from confine import become  # noqa: E402

PORT = 22
SYSTEMCTL = "/run/chatchat-systemctl.sock"
UNITS = "/etc/systemd/system"
CONFINE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "confine.py")
# What was applied of the hardening of each unit.
HARDENING = "/run/chatchat-hardening"
# Host whose root can log in to all.
TRUSTED = "north"
# Unit of Debian's package, which starts at boot as long as it is wanted. Its file is not among UNITS.
PACKAGED = "postgresql"
PACKAGED_UNIT = f"[Service]\nExecStart={sys.executable} {shlex.quote(os.path.abspath(__file__))} postgres\n"
PACKAGED_IS_WANTED = f"{UNITS}/multi-user.target.wants/{PACKAGED}.service"
# Each end of a service, one a line as JSON: its unit, its exit code, and whether it was asked to end. A host that is
# killed keeps it.
ENDS = "/var/log/ends"
# What a block says, and its text.
SAID = "/run/chatchat-said"
BLOCK = "/run/chatchat-block"
# Time that a block may take, less than who asked for it waits.
BLOCK_S = 100


def unit_text(unit):
    if unit == PACKAGED:
        return PACKAGED_UNIT
    name, _, instance = unit.partition("@")
    with open(f"{UNITS}/{name}@.service" if instance else f"{UNITS}/{name}.service") as file:
        return file.read().replace("%i", instance)


def settings_of(unit):
    """Lines of [Service], each with its one value."""
    section = re.search(r"^\[Service\]\n(.*?)(?=^\[|\Z)", unit_text(unit), re.MULTILINE | re.DOTALL)[1]
    lines = re.findall(r"^(\w+)=(.*)$", section, re.MULTILINE)
    if len(dict(lines)) < len(lines):
        raise ValueError(f"{unit} has a line twice, of which one would be left out here")
    return dict(lines)


def confined(what, settings, said):
    """Command that becomes the service of a unit."""
    return [sys.executable, "-S", CONFINE, what, json.dumps(settings), said]


class Service:
    """One unit, started again when it ends unless it was stopped."""

    def __init__(self, unit):
        self.unit = unit
        self.settings = settings_of(unit)
        self.wanted = threading.Event()
        self.process = None
        # The process that was asked to end last.
        self.asked = None
        self.started = threading.Event()
        self.lock = threading.Lock()
        self.notify = self.listen() if self.settings.get("Type") == "notify" else None
        threading.Thread(target=self.keep, daemon=True).start()

    def spawn(self):
        user = pwd.getpwnam(self.settings.get("User", "root"))
        log = open(f"/var/log/{self.unit}.log", "ab")
        env = {"PATH": os.environ["PATH"], "HOME": user.pw_dir}
        if self.notify:
            env["NOTIFY_SOCKET"] = self.notify
        else:
            self.started.set()
        os.makedirs(HARDENING, exist_ok=True)
        return subprocess.Popen(
            confined("run", self.settings, f"{HARDENING}/{self.unit}"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=env,
        )

    def listen(self):
        """Returns the path of a socket on which the service says that it has started, or ends."""
        path = f"/run/{self.unit}.notify"
        said = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        said.bind(path)
        os.chmod(path, 0o666)

        def hear():
            while True:
                if b"READY=1" in said.recv(4096):
                    self.started.set()

        threading.Thread(target=hear, daemon=True).start()
        return path

    def keep(self):
        while True:
            self.wanted.wait()
            with self.lock:
                self.process = self.spawn()
            code = self.process.wait()
            self.note_end(code)
            self.started.clear()
            restart = self.settings.get("Restart", "no")
            if restart == "no" or (restart == "on-failure" and code == 0):
                self.wanted.clear()
            time.sleep(float(self.settings.get("RestartSec", "0.1")))

    def note_end(self, code):
        # The stand-in may be asked before it listens to signals.
        if self.unit == PACKAGED:
            return
        with open(ENDS, "a") as file:
            file.write(json.dumps({"unit": self.unit, "code": code, "asked": self.asked is self.process}) + "\n")

    def stop(self):
        """Returns whether it ended in time; else it is killed."""
        self.wanted.clear()
        self.started.clear()
        with self.lock:
            process = self.process
        if process is None or process.poll() is not None:
            return True
        self.asked = process
        process.send_signal(getattr(signal, self.settings.get("KillSignal", "SIGTERM")))
        try:
            process.wait(float(self.settings.get("TimeoutStopSec", "90")))
            return True
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return False


class Shell:
    """Shell of root, into which a person pastes block after block: what one leaves in it counts for the next."""

    def __init__(self):
        self.process = None
        self.lock = threading.Lock()

    def start(self):
        self.process = subprocess.Popen(
            ["bash"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sys.stderr,
            cwd="/root",
            umask=0o022,
            start_new_session=True,
        )
        # With `set -e` a command that fails would end the shell, and with it what is left in it.
        self.tell("set -E; trap 'return $? 2> /dev/null' ERR")

    def tell(self, line):
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def run(self, block):
        """Runs a block until its end, or until its first command that fails; returns its output and its exit code."""
        with self.lock:
            if self.process is None:
                self.start()
            with open(BLOCK, "w") as file:
                file.write(block)
            self.tell(f". {BLOCK} < /dev/null > {SAID}\necho $?")
            in_time, _, _ = select.select([self.process.stdout], [], [], BLOCK_S)
            if not in_time:
                os.killpg(self.process.pid, signal.SIGKILL)
            code = self.process.stdout.readline().decode().strip() if in_time else ""
            if not code:
                code = self.process.wait()
                self.process = None
            with open(SAID, "rb") as file:
                return file.read(), code


def serve(listener, handle):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=handle, args=(connection,), daemon=True).start()


def on_command(shell):
    def handle(connection):
        """One command: a line of JSON, then its stdin; the answer is its output, then its exit code in a last line.

        A string is run by a shell of its own, as by sshd; a block that is to be pasted, by the one that stays.
        """
        with connection, connection.makefile("rb") as asked:
            command = json.loads(asked.readline())
            if isinstance(command, dict):
                out, code = shell.run(command["paste"])
            else:
                process = subprocess.Popen(
                    ["bash", "-c", command],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=sys.stderr,
                    cwd="/",
                    start_new_session=True,
                )
                out, _ = process.communicate(asked.read())
                code = process.returncode
            connection.sendall(out + f"\n{code}".encode())

    return handle


def on_systemctl(services):
    lock = threading.Lock()

    def act(verb, now, unit):
        service = services.get(unit) or services.setdefault(unit, Service(unit))
        if verb == "disable" and unit == PACKAGED and os.path.lexists(PACKAGED_IS_WANTED):
            os.unlink(PACKAGED_IS_WANTED)
        in_time = not (now and verb in ("stop", "disable", "restart")) or service.stop()
        if not now or verb in ("stop", "disable"):
            return in_time
        service.wanted.set()
        return service.started.wait(90) and in_time

    def handle(connection):
        with connection, connection.makefile("rb") as asked, lock:
            words = json.loads(asked.readline())
            verb, *units = [word.removesuffix(".service") for word in words if not word.startswith("--")]
            now = verb not in ("enable", "disable") or "--now" in words
            try:
                said = "done" if all([act(verb, now, unit) for unit in units]) else "not stopped or started in time"
            except FileNotFoundError as error:
                said = f"no unit {error.filename}"
            except ValueError as error:
                said = str(error)
            connection.sendall(said.encode())

    return handle


def run(name):
    socket.sethostname(name)
    if os.path.exists(SYSTEMCTL):
        os.unlink(SYSTEMCTL)
    asked = socket.socket(socket.AF_UNIX)
    asked.bind(SYSTEMCTL)
    asked.listen()
    services = {}
    if os.path.lexists(PACKAGED_IS_WANTED):
        services[PACKAGED] = Service(PACKAGED)
        services[PACKAGED].wanted.set()
        services[PACKAGED].started.wait(10)
    threading.Thread(target=serve, args=(asked, on_systemctl(services)), daemon=True).start()
    listener = socket.create_server(("", PORT))
    print("up", flush=True)
    serve(listener, on_command(Shell()))


def postgres():
    """Holds the port and the socket of a server, as its user, and hangs up on whoever comes."""
    become(pwd.getpwnam("postgres"))
    path = "/var/run/postgresql/.s.PGSQL.5432"
    tcp = socket.create_server(("127.0.0.1", 5432))
    with open(f"{path}.lock", "w") as lock:
        lock.write(f"{os.getpid()}\n/var/lib/postgresql/main\n{int(time.time())}\n5432\n/var/run/postgresql\n")
    local = socket.socket(socket.AF_UNIX)
    local.bind(path)
    local.listen()

    def end(*_):
        os.unlink(path)
        os.unlink(f"{path}.lock")
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    threading.Thread(target=serve, args=(tcp, socket.socket.close), daemon=True).start()
    serve(local, socket.socket.close)


def ssh(host, command):
    if (os.getuid(), socket.gethostname()) != (0, TRUSTED):
        print(f"{host}: Permission denied (publickey).", file=sys.stderr)
        return 255

    def stdin():
        # As with sshd, the far command has begun by then: a file that both ends name is empty.
        time.sleep(0.05)
        return b"" if sys.stdin.isatty() else sys.stdin.buffer.read()

    return ask(host, json.dumps(command), stdin)


def ask(host, line, stdin=lambda: b""):
    with socket.create_connection((host, PORT)) as connection:
        connection.sendall(line.encode() + b"\n")
        connection.sendall(stdin())
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    out, _, code = answer.rpartition(b"\n")
    sys.stdout.buffer.write(out)
    sys.stdout.flush()
    return int(code or 255)


def systemctl(args):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(SYSTEMCTL)
        connection.sendall(json.dumps(args).encode() + b"\n")
        said = connection.makefile().read()
    if said != "done":
        print(f"systemctl {shlex.join(args)}: {said or 'no answer'}", file=sys.stderr)
    return 0 if said == "done" else 1


if __name__ == "__main__":
    what, *args = sys.argv[1:]
    if what == "run":
        run(args[0])
    if what == "postgres":
        postgres()
    if what == "ask":
        sys.exit(ask(*args))
    if what == "try":
        sys.exit(subprocess.run(confined("try", settings_of(args[0]), os.devnull), cwd="/").returncode)
    sys.exit(ssh(args[0], " ".join(args[1:])) if what == "ssh" else systemctl(args))
