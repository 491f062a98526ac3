"""Mounts of a unit of systemd: what a service sees of its machine's files, and what of them it may write."""

import ctypes
import os
import re
import stat

RDONLY, NOSUID, NODEV, NOEXEC, BIND, MOVE, REC, PRIVATE = 1, 2, 4, 8, 4096, 8192, 16384, 1 << 18
DETACH = 2
NEW_MOUNTS = 0x00020000
# `mount_setattr(2)`, and its words.
MOUNT_SETATTR = 442
AT_FDCWD, AT_RECURSIVE, ATTR_RDONLY = -100, 0x8000, 1

# Place in which new mounts are made before they are where they belong. Each service has its own.
STAGING = "/run/chatchat-confine"
NO_DIRECTORY, NO_FILE = f"{STAGING}/directory", f"{STAGING}/file"
# Trees of the kernel, which ProtectSystem=strict leaves as they are.
OF_THE_KERNEL = ["/dev", "/proc", "/sys"]
HOMES = ["/home", "/root", "/run/user"]
TMP = ["/tmp", "/var/tmp"]
DEVICES = ["null", "zero", "full", "random", "urandom", "tty"]
DEVICE_DIRECTORIES = ["pts", "shm", "mqueue", "hugepages"]
DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
TUNABLES = ["acpi", "fs", "irq", "latency_stats", "mtrr", "scsi", "sys", "sysrq-trigger", "timer_stats"]

libc = ctypes.CDLL(None, use_errno=True)


def call(name, *args):
    """Calls a function of the C library; throws its error."""
    if getattr(libc, name)(*args) == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def mount(source, target, kind=None, flags=0, data=None):
    words = [word.encode() if word is not None else None for word in (source, target, kind, data)]
    call("mount", words[0], words[1], words[2], ctypes.c_ulong(flags), words[3])


def make_read_only(path, recursive=False):
    attributes = (ctypes.c_uint64 * 4)(ATTR_RDONLY, 0, 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    call("syscall", MOUNT_SETATTR, AT_FDCWD, path.encode(), flags, ctypes.byref(attributes), ctypes.sizeof(attributes))


def read_only(path):
    if os.path.exists(path):
        mount(path, path, flags=BIND | REC)
        make_read_only(path, recursive=True)


def hide(path):
    """Puts something that nobody may open in the place of a file or directory."""
    if not os.path.exists(path):
        return
    is_directory = stat.S_ISDIR(os.stat(path).st_mode)
    mount(NO_DIRECTORY if is_directory else NO_FILE, path, flags=BIND)
    make_read_only(path)


def mount_points():
    with open("/proc/self/mountinfo") as file:
        return [re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), line.split()[4]) for line in file]


def is_in(path, trees):
    return any(path == tree or path.startswith(f"{tree}/") for tree in trees)


def begin():
    """From now on mounts are this process's own."""
    call("unshare", NEW_MOUNTS)
    mount(None, "/", flags=REC | PRIVATE)
    os.makedirs(STAGING, exist_ok=True)
    mount("tmpfs", STAGING, "tmpfs", NOSUID, "mode=755")
    os.mkdir(NO_DIRECTORY, 0o000)
    os.close(os.open(NO_FILE, os.O_CREAT, 0o000))


def end():
    call("umount2", STAGING.encode(), DETACH)


def protect_proc(value, _):
    mount("proc", "/proc", "proc", NOSUID | NODEV | NOEXEC, f"hidepid={value}")


def private_devices(_, __):
    dev = f"{STAGING}/dev"
    os.mkdir(dev)
    mount("tmpfs", dev, "tmpfs", NOSUID | NOEXEC, "mode=755")
    for name in DEVICES:
        if os.path.exists(f"/dev/{name}"):
            os.close(os.open(f"{dev}/{name}", os.O_CREAT, 0o666))
            mount(f"/dev/{name}", f"{dev}/{name}", flags=BIND)
    for name in DEVICE_DIRECTORIES:
        if os.path.isdir(f"/dev/{name}"):
            os.mkdir(f"{dev}/{name}")
            mount(f"/dev/{name}", f"{dev}/{name}", flags=BIND | REC)
    for name, target in DEVICE_LINKS.items():
        os.symlink(target, f"{dev}/{name}")
    mount(dev, "/dev", flags=MOVE)


def private_tmp(_, __):
    for path in TMP:
        mount("tmpfs", path, "tmpfs", NOSUID | NODEV, "mode=1777")


def protect_home(value, _):
    if value not in ("yes", "true"):
        raise NotImplementedError(f"{value} is not known here")
    for path in HOMES:
        hide(path)


def protect_kernel_tunables(_, __):
    for name in TUNABLES:
        read_only(f"/proc/{name}")
    read_only("/sys")
    for name in ["kallsyms", "kcore"]:
        hide(f"/proc/{name}")


def protect_kernel_logs(_, __):
    for path in ["/dev/kmsg", "/proc/kmsg"]:
        hide(path)


def protect_kernel_modules(_, __):
    hide("/usr/lib/modules")


def protect_control_groups(_, __):
    read_only("/sys/fs/cgroup")


def writable(value, _):
    # One that is missing ends the service, as with systemd.
    for path in value.split():
        mount(path, path, flags=BIND | REC)


def protect_system(value, settings):
    if value in ("full", "yes", "true"):
        for path in ["/usr", "/boot", "/efi", *(["/etc"] if value == "full" else [])]:
            read_only(path)
        return
    if value != "strict":
        raise NotImplementedError(f"{value} is not known here")
    own = TMP if "PrivateTmp" in settings else []
    for path in mount_points():
        if is_in(path, [*OF_THE_KERNEL, *own, *settings.get("ReadWritePaths", "").split()]):
            continue
        try:
            make_read_only(path)
        except OSError:
            # One that is hidden by another mount is out of reach. Whether the rest holds is tried.
            if os.path.ismount(path):
                raise


# What each line does before the service has its user, in this order.
MOUNTS = {
    "ProtectProc": protect_proc,
    "PrivateDevices": private_devices,
    "PrivateTmp": private_tmp,
    "ProtectHome": protect_home,
    "ProtectKernelTunables": protect_kernel_tunables,
    "ProtectKernelLogs": protect_kernel_logs,
    "ProtectKernelModules": protect_kernel_modules,
    "ProtectControlGroups": protect_control_groups,
    "ReadWritePaths": writable,
    "ProtectSystem": protect_system,
}
