"""Run inside a process of its own, by ``python -I``: give up what a tested program must not do, then run it and tests.

What is limited: time and CPU seconds, memory, the size of each file, open files; with seccomp (Linux, x86-64 and
arm64) no sockets, no other programs, no processes, no signals to others, no debugging of others; with Landlock (Linux
from 5.13) no file outside its temporary folder is written, and none is read but Python's own, so neither is the
environment of another process. Without seccomp an ordinary user's process still cannot start others (RLIMIT_NPROC).

What it does not protect against: a program that wants to be graded right and rummages in its own interpreter for the
word that says so; faults of the kernel; many small files that fill the disk until time is up; and where seccomp or
Landlock are missing, what they would have stopped. It is a fence for honest mistakes and clumsy malice, no prison:
run untrusted candidates in a machine you can lose.

It is a file on its own, imports nothing of ours and is never imported by ours. In: one JSON object on standard input.
Out: one JSON object in the file it names.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import struct
import sys

#: Name -> number on x86-64 and on arm64; None where there is no such call.
_DENIED: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198),
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "io_uring_setup": (425, 425),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "mount": (165, 40),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "setns": (308, 268),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "reboot": (169, 142),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
}
#: Allowed where the first argument is this process, or 0, which means it.
_OWN_ONLY = {"kill": (62, 129), "tgkill": (234, 131), "prlimit64": (302, 261)}
_CLONE, _CLONE3 = (56, 220), (435, 435)
_CLONE_THREAD = 0x10000
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7), "arm64": (1, 0xC00000B7)}
_EPERM, _ENOSYS = 1, 38
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_LOAD, _EQUAL, _AT_LEAST, _HAS_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
#: Rights by the version of Landlock that brought them: 13 at first, then linking across folders, then truncation.
_RIGHTS_V1, _REFER, _TRUNCATE = (1 << 13) - 1, 1 << 13, 1 << 14
_READ = 1 << 2 | 1 << 3
_READ_FILE, _WRITE_FILE = 1 << 2, 1 << 1


def _rlimits(limits: dict[str, int], may_have_processes: bool) -> None:
    wanted = {
        resource.RLIMIT_CPU: limits["cpu_s"],
        resource.RLIMIT_AS: limits["memory_bytes"],
        resource.RLIMIT_FSIZE: limits["file_bytes"],
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    if not may_have_processes:
        wanted[resource.RLIMIT_NPROC] = 1
    for which, most in wanted.items():
        hard = resource.getrlimit(which)[1]
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        try:
            resource.setrlimit(which, (most, most))
        except (OSError, ValueError):
            if which != resource.RLIMIT_AS:  # macOS has no such limit
                raise


def _seccomp(libc: ctypes.CDLL) -> bool:
    """Deny system calls; return whether the kernel agreed."""
    column, architecture = _MACHINES.get(platform.machine(), (0, 0))
    if sys.platform != "linux" or not architecture:
        return False
    rows: list[tuple[int, int, int, int]] = []

    def row(code: int, value: int, if_true: int = 0, if_false: int = 0) -> None:
        rows.append((code, if_true, if_false, value))

    row(_LOAD, 4)
    row(_EQUAL, architecture, 1, 0)
    row(_RETURN, _ERRNO | _EPERM)
    row(_LOAD, 0)
    if column == 0:
        row(_AT_LEAST, 0x40000000, 0, 1)  # the second table of calls, x32
        row(_RETURN, _ERRNO | _EPERM)
    row(_EQUAL, _CLONE3[column], 0, 1)
    row(_RETURN, _ERRNO | _ENOSYS)  # the C library then uses clone, whose flags can be looked at
    for numbers in _DENIED.values():
        number = numbers[column]
        if number is not None:
            row(_EQUAL, number, 0, 1)
            row(_RETURN, _ERRNO | _EPERM)
    row(_EQUAL, _CLONE[column], 0, 4)
    row(_LOAD, 16)
    row(_HAS_BITS, _CLONE_THREAD, 0, 1)
    row(_RETURN, _ALLOW)
    row(_RETURN, _ERRNO | _EPERM)
    for numbers in _OWN_ONLY.values():
        row(_EQUAL, numbers[column], 0, 5)
        row(_LOAD, 16)
        row(_EQUAL, 0, 2, 0)
        row(_EQUAL, os.getpid(), 1, 0)
        row(_RETURN, _ERRNO | _EPERM)
        row(_RETURN, _ALLOW)
    row(_RETURN, _ALLOW)
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in rows))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(rows), ctypes.addressof(code)))
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program) == 0)


def _landlock(libc: ctypes.CDLL, folder: str) -> bool:
    """Deny files but those of Python and of one folder; return whether the kernel agreed."""
    if sys.platform != "linux":
        return False
    version = libc.syscall(_LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return False
    rights = _RIGHTS_V1 | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    ruleset = libc.syscall(_LANDLOCK_CREATE, struct.pack("Q", rights), 8, 0)
    if ruleset < 0:
        return False
    readable = {sys.prefix, sys.base_prefix, sys.exec_prefix, "/usr", "/lib", "/lib64", "/etc/localtime"}
    rules = dict.fromkeys(sorted(readable), _READ)
    rules |= {"/dev/null": _READ_FILE | _WRITE_FILE, "/dev/urandom": _READ_FILE, folder: rights}
    for path, allowed in rules.items():
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        if not os.path.isdir(path):
            allowed &= _READ_FILE | _WRITE_FILE
        if libc.syscall(_LANDLOCK_ADD, ruleset, 1, struct.pack("=Qi", allowed, descriptor), 0):
            return False
        os.close(descriptor)
    is_done = bool(libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0) == 0)
    os.close(ruleset)
    return is_done


def _run(program: str, tests: list[str]) -> tuple[int, str]:
    """Return how many tests passed, and why it ended before the last."""
    names: dict[str, object] = {"__name__": "answer"}
    try:
        exec(compile(program, "answer", "exec"), names)
    except BaseException as error:
        return 0, f"the program: {type(error).__name__}"
    n_passed, why = 0, ""
    for i, test in enumerate(tests, start=1):
        try:
            exec(compile(test, "tests", "exec"), names)
        except BaseException as error:
            why = why or f"test {i} of {len(tests)}: {type(error).__name__}"
        else:
            n_passed += 1
    return n_passed, why


def _main() -> None:
    order = json.loads(sys.stdin.buffer.read())
    libc = ctypes.CDLL(None, use_errno=True)
    # Opened before anything is given up, and not by a name the program could guess.
    out = os.open(order["out"], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    folder = order["folder"]
    os.chdir(folder)
    if sys.platform == "linux":
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    is_fenced = _landlock(libc, folder)
    is_alone = _seccomp(libc)
    _rlimits(order["limits"], is_alone)
    # Nothing limits the processes of root but seccomp, nor its files but Landlock.
    if os.getuid() == 0 and not (is_fenced and is_alone):
        found = {"word": order["word"], "refused": True}
    else:
        n_passed, why = _run(order["program"], order["tests"])
        found = {"word": order["word"], "n_passed": n_passed, "why": why, "is_fenced": is_fenced, "is_alone": is_alone}
    os.write(out, json.dumps(found).encode())
    os._exit(0)


if __name__ == "__main__":
    _main()
