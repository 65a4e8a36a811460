"""The system-call filter of a session: a deny-list, assembled with ctypes alone.

Runs inside the sandbox (Python ≥ 3.9, standard library only; shipped with ``zygote.py``).
Not the only wall: it is stacked on namespaces and dropped privileges, and closes what those
leave open (other socket families, io_uring, IPC objects that would outlive a reset).
Each guard has a name, so that a test can lift exactly one and show that it mattered.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2

_ALLOW = 0x7FFF0000
_KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000

# Classic BPF: load a word of struct seccomp_data, compare, jump, return.
_LOAD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_OFFSET_NR, _OFFSET_ARCH, _OFFSET_ARGS = 0, 4, 16

_X32_BIT = 0x40000000
_CLONE_NEW = 0x7E020080  # NEWNS CGROUP UTS IPC USER PID NET TIME
_MAP_HUGETLB, _MFD_HUGETLB = 0x40000, 4

# name -> (x86_64, aarch64); None where the architecture has no such call.
_CALLS: dict[str, tuple[int | None, int]] = {
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "unshare": (272, 97),
    "setns": (308, 268),
    "clone": (56, 220),
    "clone3": (435, 435),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "userfaultfd": (323, 282),
    "memfd_secret": (447, 447),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "acct": (163, 89),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "iopl": (172, 0xFFFFFFFF),
    "ioperm": (173, 0xFFFFFFFF),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "fanotify_init": (300, 262),
    "lookup_dcookie": (212, 18),
    "vhangup": (153, 58),
    "ioctl": (16, 29),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "prlimit64": (302, 261),
    "setpriority": (141, 140),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "ioprio_set": (251, 30),
    "io_setup": (206, 0),
    "inotify_init": (253, 0xFFFFFFFF),
    "inotify_init1": (294, 26),
    "sync": (162, 81),
    "syncfs": (306, 267),
    "mmap": (9, 222),
    "memfd_create": (319, 279),
}

GUARDS: dict[str, tuple[str, ...]] = {
    "mount": (
        *("mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "fsopen"),
        *("fsconfig", "fsmount", "fspick", "mount_setattr", "open_tree_attr"),
    ),
    "namespaces": ("unshare", "setns"),
    "bpf": ("bpf",),
    "perf": ("perf_event_open",),
    "ptrace": (
        *("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise"),
        *("pidfd_getfd", "kcmp"),
    ),
    "kexec": ("kexec_load", "kexec_file_load"),
    "modules": ("init_module", "finit_module", "delete_module"),
    "keyring": ("add_key", "request_key", "keyctl"),
    "userfaultfd": ("userfaultfd", "memfd_secret"),
    "io_uring": ("io_uring_setup", "io_uring_enter", "io_uring_register"),
    "handles": ("name_to_handle_at", "open_by_handle_at"),
    "sysv_ipc": ("shmget", "msgget", "semget"),
    "mqueue": ("mq_open",),
    "admin": (
        *("acct", "swapon", "swapoff", "reboot", "syslog", "quotactl", "quotactl_fd", "iopl"),
        *("ioperm", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "sethostname"),
        *("setdomainname", "fanotify_init", "lookup_dcookie", "vhangup"),
        *("migrate_pages", "move_pages"),
    ),
    # The first process keeps its priority over a reset: a note to the next episode.
    "io_priority": ("ioprio_set",),
    # All of a host's processes share one stock of these.
    "aio": ("io_setup",),
    # On a file that the host shares read-only it would tell who else opens it.
    "inotify": ("inotify_init", "inotify_init1"),
    # It flushes the host's disks, and cannot be killed meanwhile.
    "sync": ("sync", "syncfs"),
}
"""Guard name → the calls it refuses with ``EPERM``, whatever their arguments.

Six more guards look at arguments: ``namespaces`` (clone flags), ``clone3``, ``tty``,
``sockets``, ``peers`` and ``huge_pages``. Lifting ``vsock``, ``netlink``, ``packet``, ``alg`` or ``inet``
opens that one socket family.
"""

FAMILIES: dict[str, tuple[int, ...]] = {
    "inet": (int(socket.AF_INET), int(socket.AF_INET6)),
    "netlink": (16,),
    "packet": (17,),
    "alg": (38,),
    "vsock": (40,),
}
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


class _Assembler:
    """Collects instructions; jumps are short and forward, counted by hand at each rule."""

    def __init__(self, machine: str) -> None:
        self.column = 0 if machine == "x86_64" else 1
        self.code: list[tuple[int, int, int, int]] = []

    def emit(self, op: int, k: int, jt: int = 0, jf: int = 0) -> None:
        self.code.append((op, jt, jf, k & 0xFFFFFFFF))

    def number(self, call: str) -> int | None:
        number = _CALLS[call][self.column]
        return None if number == 0xFFFFFFFF else number

    def refuse(self, call: str, code: int = errno.EPERM) -> None:
        number = self.number(call)
        if number is not None:
            self.emit(_JEQ, number, 0, 1)
            self.emit(_RET, _ERRNO | code)

    def when(self, call: str, argument: int, tests: list[tuple[int, int, int, int]]) -> None:
        """For ``call``: load the low half of an argument, run ``tests``, then load the number again."""
        number = self.number(call)
        if number is None:
            return
        self.emit(_JEQ, number, 0, len(tests) + 2)
        self.emit(_LOAD, _OFFSET_ARGS + 8 * argument)
        self.code.extend(tests)
        self.emit(_LOAD, _OFFSET_NR)


def _deny_if(op: int, k: int, code: int = errno.EPERM) -> list[tuple[int, int, int, int]]:
    return [(op, 0, 1, k), (_RET, 0, 0, _ERRNO | code)]


def _deny_unless_in(allowed: list[int], code: int) -> list[tuple[int, int, int, int]]:
    """Skip to past the refusal when the loaded word is one of ``allowed``."""
    tests = [(_JEQ, len(allowed) - index, 0, k) for index, k in enumerate(allowed)]
    return [*tests, (_RET, 0, 0, _ERRNO | code)]


def assemble(
    machine: str, lift: frozenset[str] = frozenset(), *, inet: bool = True
) -> list[tuple[int, int, int, int]]:
    """Return the filter as ``(code, jt, jf, k)`` instructions for ``x86_64`` or ``aarch64``.

    Args:
        machine: As ``platform.machine()`` says it.
        lift: Names of guards to leave out (tests only).
        inet: Whether internet sockets may be made (their namespace decides where they lead).
    """
    if machine not in _ARCHITECTURES:
        raise ValueError(f"No system-call filter for {machine!r}; known: {list(_ARCHITECTURES)}.")
    out = _Assembler(machine)
    out.emit(_LOAD, _OFFSET_ARCH)
    out.emit(_JEQ, _ARCHITECTURES[machine], 1, 0)
    out.emit(_RET, _ALLOW if "arch" in lift else _KILL_PROCESS)
    out.emit(_LOAD, _OFFSET_NR)
    if machine == "x86_64" and "arch" not in lift:
        out.emit(_JGE, _X32_BIT, 0, 1)
        out.emit(_RET, _ERRNO | errno.EPERM)
    for guard, calls in GUARDS.items():
        if guard not in lift:
            for call in calls:
                out.refuse(call)
    if "namespaces" not in lift:
        out.when("clone", 0, _deny_if(_JSET, _CLONE_NEW))
    if "clone3" not in lift:
        # Its flags lie in memory, out of a filter's sight; libc falls back to clone.
        out.refuse("clone3", errno.ENOSYS)
    if "tty" not in lift:
        out.when("ioctl", 1, _deny_if(_JEQ, 0x5412) + _deny_if(_JEQ, 0x541C))
    if "peers" not in lift:
        # The first process has the session's user: its limits and priority must not be touched.
        out.when("prlimit64", 0, _deny_unless_in([0], errno.EPERM))
        out.when("setpriority", 0, _deny_unless_in([0], errno.EPERM))
        out.when("setpriority", 1, _deny_unless_in([0], errno.EPERM))
        for call in ("sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr"):
            out.when(call, 0, _deny_if(_JEQ, 1))
    if "huge_pages" not in lift:
        # The host's reserve of them is in no memory cap of ours.
        out.when("mmap", 3, _deny_if(_JSET, _MAP_HUGETLB, errno.ENOMEM))
        out.when("memfd_create", 1, _deny_if(_JSET, _MFD_HUGETLB, errno.ENOMEM))
    if "sockets" not in lift:
        allowed = [int(socket.AF_UNIX)]
        for family, numbers in FAMILIES.items():
            if family in lift or (family == "inet" and inet):
                allowed.extend(numbers)
        out.when("socket", 0, _deny_unless_in(allowed, errno.EAFNOSUPPORT))
        out.when("socketpair", 0, _deny_unless_in(allowed, errno.EAFNOSUPPORT))
    out.emit(_RET, _ALLOW)
    return out.code


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


def install(lift: frozenset[str] = frozenset(), *, inet: bool = True) -> None:
    """Put the filter on the calling thread for good; it passes to every child.

    Raises:
        OSError: The kernel refused the filter.
        ValueError: This architecture has no table.
    """
    instructions = assemble(platform.machine(), lift, inet=inet)
    packed = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
    buffer = ctypes.create_string_buffer(packed, len(packed))
    program = _Program(len(instructions), ctypes.cast(buffer, ctypes.c_void_p).value)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS) refused")
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"the kernel refused the system-call filter: {os.strerror(code)}")
