from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving import lines, logs
from serving.lines import LineWriter


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def writer_to(descriptor: int, n_queue: int = 100) -> LineWriter[str]:
    writer = LineWriter[str](descriptor, lambda entry: entry, lambda n: f"{n} dropped", n_queue=n_queue)
    writer.open()
    return writer


def test_closing_writes_every_line_in_order(pipe: tuple[int, int]) -> None:
    writer = writer_to(pipe[1])
    for n in range(50):
        writer.add(f"line {n}")
    writer.close()
    writer.close()
    assert os.read(pipe[0], 10_000).decode().splitlines() == [f"line {n}" for n in range(50)]


def test_a_full_queue_drops_counts_and_says_so(pipe: tuple[int, int]) -> None:
    writer = LineWriter[str](pipe[1], lambda entry: entry, lambda n: f"{n} dropped", n_queue=3)
    for n in range(5):
        writer.add(f"line {n}")
    writer.open()
    writer.close()
    assert os.read(pipe[0], 10_000).decode().splitlines() == ["line 0", "line 1", "line 2", "2 dropped"]


def test_a_reader_that_stalls_holds_up_neither_adding_nor_the_end(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "CLOSE_WITHIN_S", 0.3)
    writer = writer_to(pipe[1])
    long = "x" * 100_000  # a pipe holds 64 KiB
    for _ in range(10):
        writer.add(long)
    writer.close()
    assert any(thread.name == "log" for thread in threading.enumerate())  # still stuck, and nobody waits for it
    n_bytes = 0
    while n_bytes < 10 * 100_001:
        n_bytes += len(os.read(pipe[0], 100_000))
    writer.close()


def test_a_reader_that_has_gone_ends_nothing() -> None:
    reading, writing = os.pipe()
    writer = writer_to(writing)
    os.close(reading)
    writer.add("to nobody")
    writer.close()
    os.close(writing)


def test_in_the_background_ours_and_foreign_lines_are_written_whole_at_the_end(
    capfd: pytest.CaptureFixture[str],
) -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    try:
        logs.configure()
        with logs.in_background():
            logs.event("request", lambda: {"id": "dec-1", "prompt": "secret"})
            logging.getLogger("asyncio").error("Task exception: %s", "secret")
            logs.event("bad_name", {"settings": "\udcff.toml"})
        logs.event("after")
    finally:
        root.handlers, root.level = before[0], before[1]
    ours, foreign, surrogate, after = (json.loads(line) for line in capfd.readouterr().err.splitlines())
    assert (ours["id"], ours["withheld"]) == ("dec-1", ["prompt"])
    assert foreign["logger"] == "asyncio" and foreign["at"].startswith("test_lines.py:")
    assert surrogate["withheld"] == ["settings"]
    assert after["event"] == "after"
    assert "secret" not in repr((ours, foreign))


def test_an_exception_in_the_process_loses_no_line() -> None:
    program = (
        "from serving import logs\n"
        "logs.configure()\n"
        "with logs.in_background():\n"
        "    for n in range(200): logs.event('request', {'status': n})\n"
        "    raise SystemExit(3)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(logs.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert [json.loads(line)["status"] for line in done.stderr.splitlines()] == list(range(200))
