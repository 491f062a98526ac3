"""System calls that the lines of a unit forbid: a filter for each line, as systemd 252 makes them, by libseccomp."""

import ctypes
import errno
import mmap
import shutil
import socket
import stat
import subprocess

ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000
# Attributes of a filter: what befalls calls of a foreign architecture, and whether loading it takes new privileges away.
BAD_ARCHITECTURE = 2
NO_NEW_PRIVILEGES = 3

CLONE_NEW = [0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x00000080]
SCHED_OTHER, SCHED_BATCH, SCHED_IDLE = 0, 3, 5
O_CREAT = 0o100
SHM_EXEC = 0o100000
CURRENT = 0xFFFFFFFF


class Comparison(ctypes.Structure):
    """`struct scmp_arg_cmp`."""

    _fields_ = [("argument", ctypes.c_uint), ("how", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def differs(argument, value):
    return Comparison(argument, 1, value, 0)


def is_below(argument, value):
    return Comparison(argument, 2, value, 0)


def equals(argument, value):
    return Comparison(argument, 4, value, 0)


def is_above(argument, value):
    return Comparison(argument, 6, value, 0)


def has(argument, bits):
    return Comparison(argument, 7, bits, bits)


def refusal(code):
    return 0x00050000 | code


def library():
    lib = ctypes.CDLL("libseccomp.so.2")
    lib.seccomp_init.restype = ctypes.c_void_p
    lib.seccomp_init.argtypes = [ctypes.c_uint32]
    lib.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    lib.seccomp_load.argtypes = [ctypes.c_void_p]
    lib.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(Comparison),
    ]
    return lib


def number_of(name):
    """Number of a call on this machine; negative if it has none."""
    return library().seccomp_syscall_resolve_name(name.encode())


class Filter:
    """Filter of system calls: what no rule names is let through, or else what `default` says befalls it."""

    def __init__(self, default=ALLOW, bad_architecture=ALLOW):
        self.lib = library()
        self.context = self.lib.seccomp_init(default)
        self.check(self.lib.seccomp_attr_set(self.context, BAD_ARCHITECTURE, bad_architecture))
        self.check(self.lib.seccomp_attr_set(self.context, NO_NEW_PRIVILEGES, 0))

    @staticmethod
    def check(code):
        if code < 0:
            raise OSError(-code, f"libseccomp: {errno.errorcode.get(-code)}")

    def rule(self, action, names, *comparisons):
        """A call of one of these names has this end if all comparisons hold. Calls that this machine lacks are left out."""
        for name in names.split():
            number = self.lib.seccomp_syscall_resolve_name(name.encode())
            if number < 0:
                continue
            array = (Comparison * len(comparisons))(*comparisons)
            self.check(self.lib.seccomp_rule_add_array(self.context, action, number, len(comparisons), array))

    def deny(self, names, *comparisons, code=errno.EPERM):
        self.rule(refusal(code), names, *comparisons)

    def load(self):
        self.check(self.lib.seccomp_load(self.context))


def denying(names):
    def make(_):
        one = Filter()
        one.deny(names)
        return one

    return make


def lock_personality(_):
    one = Filter()
    one.deny("personality", differs(0, ctypes.CDLL(None).personality(CURRENT)))
    return one


def no_code_that_is_written(_):
    one = Filter()
    one.deny("mmap mmap2", has(2, mmap.PROT_EXEC | mmap.PROT_WRITE))
    one.deny("mprotect pkey_mprotect", has(2, mmap.PROT_EXEC))
    one.deny("shmat", has(2, SHM_EXEC))
    return one


def address_families(value):
    families = sorted(getattr(socket, name) for name in value.split())
    one = Filter()
    for outside in [is_below(0, families[0]), is_above(0, families[-1])]:
        one.deny("socket", outside, code=errno.EAFNOSUPPORT)
    for family in set(range(families[0], families[-1])) - set(families):
        one.deny("socket", equals(0, family), code=errno.EAFNOSUPPORT)
    return one


def no_namespaces(_):
    one = Filter()
    # Its flags are in memory, where no filter sees them; without it programs turn to the older one.
    one.deny("clone3", code=errno.ENOSYS)
    one.deny("setns")
    for flag in CLONE_NEW:
        one.deny("clone unshare", has(0, flag))
    return one


def no_realtime(_):
    one = Filter()
    one.deny("sched_setscheduler", is_above(1, SCHED_IDLE))
    for policy in set(range(SCHED_IDLE)) - {SCHED_OTHER, SCHED_BATCH}:
        one.deny("sched_setscheduler", equals(1, policy))
    return one


def no_suid(_):
    one = Filter()
    for bit in [stat.S_ISUID, stat.S_ISGID]:
        one.deny("chmod fchmod mkdir mknod creat", has(1, bit))
        one.deny("fchmodat fchmodat2 mkdirat mknodat", has(2, bit))
        one.deny("open", has(1, O_CREAT), has(2, bit))
        one.deny("openat", has(2, O_CREAT), has(3, bit))
    one.deny("openat2", code=errno.ENOSYS)
    return one


def native_only(value):
    if value != "native":
        raise NotImplementedError(f"{value} is not known here")
    return Filter(bad_architecture=refusal(errno.EPERM))


def groups():
    """Words of each group of calls such as `@system-service`, as the systemd that is installed has it."""
    if not shutil.which("systemd-analyze"):
        raise NotImplementedError("there is no systemd-analyze, which knows the groups of calls")
    shown = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True).stdout
    found = {}
    for line in shown.splitlines():
        word = line.strip()
        if line.startswith("@"):
            found[word] = words = []
        elif word and not word.startswith("#"):
            words.append(word)
    return found


def names_in(word, known):
    """Names of the calls that a word stands for."""
    return [name for inner in known[word] for name in names_in(inner, known)] if word.startswith("@") else [word]


def only(value):
    if value.startswith("~"):
        raise NotImplementedError("lists of what is denied are not known here")
    one, known = Filter(default=KILL_PROCESS), groups()
    for word in ["@default", *value.split()]:
        one.rule(ALLOW, " ".join(names_in(word, known)))
    return one


# What makes the filter of a line from its value. The last one lets nobody load a further filter.
FILTERS = {
    "PrivateDevices": denying("ioperm iopl pciconfig_iobase pciconfig_read pciconfig_write"),
    "ProtectClock": denying("adjtimex clock_adjtime clock_adjtime64 clock_settime clock_settime64 settimeofday"),
    "ProtectHostname": denying("sethostname setdomainname"),
    "ProtectKernelLogs": denying("syslog"),
    "ProtectKernelModules": denying("init_module finit_module delete_module"),
    "ProtectKernelTunables": denying("_sysctl"),
    "LockPersonality": lock_personality,
    "MemoryDenyWriteExecute": no_code_that_is_written,
    "RestrictAddressFamilies": address_families,
    "RestrictNamespaces": no_namespaces,
    "RestrictRealtime": no_realtime,
    "RestrictSUIDSGID": no_suid,
    "SystemCallArchitectures": native_only,
    "SystemCallFilter": only,
}
