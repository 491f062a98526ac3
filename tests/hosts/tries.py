"""Acts that the lines of a unit forbid, each of which succeeds, or fails in another way, where its line is not applied."""

import ctypes
import errno
import mmap
import os
import signal
import socket
import stat
import time

import mounts
import syscalls

libc = ctypes.CDLL(None, use_errno=True)
READ_CAPABILITY, GET_NO_NEW_PRIVILEGES = 23, 39
CAPABILITIES = 38
X32 = 0x40000000
NAMES = "/proc/self/ns/uts"


class NotStopped(Exception):
    pass


def outside():
    """What a process sees before it is confined, for comparison."""
    return {"names": os.stat(NAMES).st_ino}


def holds(condition):
    if not condition:
        raise NotStopped


def refused(code, act, *args):
    """The act fails with this code, or the process is killed for it."""
    try:
        act(*args)
    except OSError as error:
        holds(error.errno == code)
    else:
        raise NotStopped


def system_call(name, *args):
    mounts.call("syscall", syscalls.number_of(name), *args)


def is_read_only(path):
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def is_hidden(path):
    return not os.path.exists(path) or stat.S_IMODE(os.stat(path).st_mode) == 0


def writes(value, _):
    for path in value.split():
        name = f"{path}/.tried-{os.getpid()}"
        os.close(os.open(name, os.O_CREAT | os.O_EXCL, 0o600))
        os.unlink(name)


def no_suid(_, __):
    # A file that a unit leaves writable may be nowhere: one without a name is a file too.
    file = os.memfd_create("tried")
    refused(errno.EPERM, os.fchmod, file, 0o4700)


def only_own_processes(_, __):
    seen = [name for name in os.listdir("/proc") if name.isdigit()]
    holds(str(os.getpid()) in seen and all(os.stat(f"/proc/{pid}").st_uid == os.getuid() for pid in seen))


def only_these_families(value, _):
    for name in value.split():
        socket.socket(getattr(socket, name), socket.SOCK_DGRAM).close()
    refused(errno.EAFNOSUPPORT, socket.socket, socket.AF_NETLINK, socket.SOCK_RAW)


def no_other_call(_, __):
    # It is in no group that a service needs. Whoever lives on was let through to the kernel.
    libc.acct(None)
    raise NotStopped


def read_only_system(value, _):
    strict = ["/", "/var", "/run"] if value == "strict" else []
    holds(all(is_read_only(path) for path in ["/usr", "/usr/local", "/etc", *strict]))


def empty(paths):
    return all(os.listdir(path) == [] for path in paths)


# What is tried of each line: it gets the line's value, and what was seen outside.
TRIES = {
    "NoNewPrivileges": lambda _, __: holds(libc.prctl(GET_NO_NEW_PRIVILEGES, 0, 0, 0, 0) == 1),
    "ProtectSystem": read_only_system,
    "ReadWritePaths": writes,
    "ProtectHome": lambda _, __: holds(all(is_hidden(path) for path in mounts.HOMES)),
    "PrivateTmp": lambda _, __: holds(empty(mounts.TMP)),
    "PrivateDevices": lambda _, __: holds(
        set(os.listdir("/dev")) <= {*mounts.DEVICES, *mounts.DEVICE_DIRECTORIES, *mounts.DEVICE_LINKS}
    ),
    # The kernel looks for the time, which is missing here, before it asks who sets it.
    "ProtectClock": lambda _, __: refused(errno.EPERM, system_call, "clock_settime", time.CLOCK_REALTIME, None),
    "ProtectControlGroups": lambda _, __: holds(is_read_only("/sys/fs/cgroup")),
    "ProtectHostname": lambda _, before: holds(os.stat(NAMES).st_ino != before["names"]),
    "ProtectKernelLogs": lambda _, __: holds(is_hidden("/dev/kmsg") and is_hidden("/proc/kmsg")),
    "ProtectKernelModules": lambda _, __: holds(is_hidden("/usr/lib/modules")),
    "ProtectKernelTunables": lambda _, __: holds(is_read_only("/proc/sys") and is_read_only("/sys")),
    "ProtectProc": only_own_processes,
    "CapabilityBoundingSet": lambda _, __: holds(
        all(libc.prctl(READ_CAPABILITY, nth, 0, 0, 0) == 0 for nth in range(CAPABILITIES))
    ),
    "LockPersonality": lambda _, __: refused(errno.EPERM, mounts.call, "personality", 0x0040000),
    "MemoryDenyWriteExecute": lambda _, __: refused(
        errno.EPERM, lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    ),
    "RestrictAddressFamilies": only_these_families,
    "RestrictNamespaces": lambda _, __: refused(errno.ENOSYS, system_call, "clone3", None, 0),
    # The kernel looks for the priority, which is missing here, before it asks who sets it.
    "RestrictRealtime": lambda _, __: refused(errno.EPERM, system_call, "sched_setscheduler", 0, os.SCHED_FIFO, None),
    "RestrictSUIDSGID": no_suid,
    "SystemCallArchitectures": lambda _, __: refused(errno.EPERM, mounts.call, "syscall", X32 | syscalls.number_of("getpid")),
    "SystemCallFilter": no_other_call,
    "UMask": lambda value, _: holds(os.umask(0o077) == int(value, 8)),
}


def is_stopped(act, value, before, first):
    """Whether an act is stopped, in a process of its own: what is forbidden may be its end."""
    child = os.fork()
    if child == 0:
        try:
            first()
            act(value, before)
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return status == 0 or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSYS)


def stopped(lines, before, first=lambda: None):
    """Those of these lines whose act is stopped in a process that does `first` before."""
    return [line for line, value in lines.items() if line in TRIES and is_stopped(TRIES[line], value, before, first)]
