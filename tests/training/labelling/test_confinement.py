"""Programs that try to get out, in the limited process that grades code."""

from __future__ import annotations

import os
import sys

import pytest

from training.labelling.confinement import Confinement, Ended, Limits

CONFINEMENT = Confinement(Limits(time_s=5.0, memory_bytes=256 * 2**20))
PASSED = Ended(1, "")
linux = pytest.mark.skipif(sys.platform != "linux", reason="seccomp and Landlock are Linux's")


def run(program: str, *tests: str, within_s: float | None = None) -> Ended:
    return CONFINEMENT.run(program, tests or ("pass",), within_s)


def test_a_program_runs_then_its_tests_and_each_counts():
    assert run("def f(x): return x + 1", "assert f(1) == 2", "assert f(1) == 3", "assert f(0) == 1") == Ended(
        2, "test 2 of 3: AssertionError"
    )


def test_honest_programs_are_let_be():
    modules = "json, re, math, collections, itertools, heapq, functools, random, datetime, decimal, asyncio, threading"
    assert (
        run(f"import {modules}\nasyncio.run(asyncio.sleep(0))\nt = threading.Thread(target=print); t.start()") == PASSED
    )
    assert run("open('own.txt', 'w').write('a'); assert open('own.txt').read() == 'a'") == PASSED


def test_an_endless_loop_ends_in_time():
    assert run("while True: pass", within_s=0.6) == Ended(0, "out of time")


def test_memory_is_bounded():
    assert run("x = []\nwhile True: x.append('a' * 1_000_000)") == Ended(0, "the program: MemoryError")


def test_files_are_bounded():
    assert run("open('x', 'wb').write(b'a' * 100_000_000)").n_passed == 0


def test_an_end_before_the_tests_is_no_pass():
    assert run("import os; os._exit(0)") == Ended(0, "ended before its tests did")
    assert run("raise SystemExit(0)") == Ended(0, "the program: SystemExit")
    assert run("import ctypes; ctypes.string_at(0)").n_passed == 0


def test_nothing_of_our_environment_is_there(monkeypatch):
    monkeypatch.setenv("SECRET_OF_OURS", "x")
    assert run("import os, sys; assert 'SECRET_OF_OURS' not in os.environ; assert not sys.stdin.read()") == PASSED


@linux
@pytest.mark.parametrize(
    "program",
    [
        "import os\nwhile True: os.fork()",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.execv('/bin/true', ['true'])",
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import os; os.kill(os.getppid(), 9)",
        "import os; os.kill(-1, 9)",
        "open('/etc/passwd').read()",
        "import os; open(f'/proc/{os.getppid()}/environ', 'rb').read()",
        "import os; os.chmod('/etc/hosts', 0o600)",
        "import os; os.truncate('/etc/hosts', 0)",
    ],
)
def test_the_kernel_refuses(program):
    if run("pass") == PASSED and "NOT" in CONFINEMENT.protections:
        pytest.skip(f"this kernel holds less: {CONFINEMENT.protections}")
    assert run(program) == Ended(0, "the program: PermissionError")


@linux
def test_nothing_is_written_outside(tmp_path):
    run("pass")
    if "NOT no files" in CONFINEMENT.protections:
        pytest.skip("no Landlock")
    outside = tmp_path / "outside"
    assert run(f"open({str(outside)!r}, 'w')").n_passed == 0
    assert not outside.exists()


def test_threads_are_bounded_by_memory():
    many = "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,), daemon=True).start()"
    assert run(many).why in ("the program: RuntimeError", "the program: MemoryError", "ended before its tests did")


@linux
def test_what_held_is_told():
    run("pass")
    assert "no network, no processes" in CONFINEMENT.protections
    assert os.getuid() != 0 or "NOT" not in CONFINEMENT.protections
