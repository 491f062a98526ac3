"""First process of a host in a namespace: stands in for sshd and systemd, as far as docs/operate.md uses them.

  host.py run NAME         is the first process: takes commands over TCP, and runs the services that it is asked to
  host.py ssh HOST CMD     runs a command on another host, with this one's stdin
  host.py systemctl ARGS   asks the first process for services: enable --now, disable --now, start, stop, restart
"""

import json
import os
import pwd
import re
import resource
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time

PORT = 22
SYSTEMCTL = "/run/chatchat-systemctl.sock"
UNITS = "/etc/systemd/system"


class Service:
    """One unit, started again when it ends unless it was stopped."""

    def __init__(self, unit):
        name, _, instance = unit.removesuffix(".service").partition("@")
        path = f"{UNITS}/{name}@.service" if instance else f"{UNITS}/{name}.service"
        with open(path) as file:
            text = file.read().replace("%i", instance)
        self.unit = unit
        self.settings = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
        self.wanted = threading.Event()
        self.process = None
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
        return subprocess.Popen(
            shlex.split(self.settings["ExecStart"]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=env,
            preexec_fn=lambda: self.become(user),
        )

    def become(self, user):
        """Takes the limits of the unit, while root still may and as far as this machine lets it, then its user."""
        if files := self.settings.get("LimitNOFILE"):
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            most = int(files) if hard == resource.RLIM_INFINITY else min(int(files), hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)

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
            self.started.clear()
            restart = self.settings.get("Restart", "no")
            if restart == "no" or (restart == "on-failure" and code == 0):
                self.wanted.clear()
            time.sleep(float(self.settings.get("RestartSec", "0.1")))

    def stop(self):
        self.wanted.clear()
        self.started.clear()
        with self.lock:
            process = self.process
        if process is None or process.poll() is not None:
            return
        process.send_signal(getattr(signal, self.settings.get("KillSignal", "SIGTERM")))
        try:
            process.wait(float(self.settings.get("TimeoutStopSec", "90")))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def serve(listener, handle):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=handle, args=(connection,), daemon=True).start()


def on_command(connection):
    """One command: a line of JSON, then its stdin; the answer is its output, then its exit code in a last line."""
    with connection, connection.makefile("rb") as asked:
        command = json.loads(asked.readline())
        process = subprocess.Popen(
            ["bash", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sys.stderr,
            cwd="/",
            start_new_session=True,
        )
        out, _ = process.communicate(asked.read())
        connection.sendall(out + f"\n{process.returncode}".encode())


def on_systemctl(services):
    lock = threading.Lock()

    def handle(connection):
        with connection, connection.makefile("rb") as asked, lock:
            verb, *units = [arg for arg in json.loads(asked.readline()) if not arg.startswith("--")]
            started = True
            for unit in units:
                if verb in ("enable", "start", "restart"):
                    service = services.get(unit) or services.setdefault(unit, Service(unit))
                if verb in ("stop", "disable", "restart") and unit in services:
                    services[unit].stop()
                if verb not in ("stop", "disable"):
                    services[unit].wanted.set()
                    started &= services[unit].started.wait(90)
            connection.sendall(b"done" if started else b"late")

    return handle


def run(name):
    socket.sethostname(name)
    if os.path.exists(SYSTEMCTL):
        os.unlink(SYSTEMCTL)
    asked = socket.socket(socket.AF_UNIX)
    asked.bind(SYSTEMCTL)
    asked.listen()
    threading.Thread(target=serve, args=(asked, on_systemctl({})), daemon=True).start()
    listener = socket.create_server(("", PORT))
    print("up", flush=True)
    serve(listener, on_command)


def ssh(host, command):
    with socket.create_connection((host, PORT)) as connection:
        connection.sendall(json.dumps(command).encode() + b"\n" + ("" if sys.stdin.isatty() else sys.stdin.read()).encode())
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
        return 0 if connection.recv(16) == b"done" else 1


if __name__ == "__main__":
    what, *args = sys.argv[1:]
    if what == "run":
        run(args[0])
    sys.exit(ssh(args[0], " ".join(args[1:])) if what == "ssh" else systemctl(args))
