"""50 bundles swapped under load: does anybody notice?

``python benchmarks/hot_swaps.py`` starts on loopback the emulator (speed 0) and a gateway whose ``server.bundle`` is a
link, both processes of their own, and clients in a third. After a while without swaps the link is pointed to the other
of two bundles, again and again, as ``turnout sync`` does. The two are the shipped bundle under two versions, with
another threshold each, so that a record shows by itself which one decided. Asked is:

* no request fails;
* the bundle in an answer's header and in its record is one and the same of the two, and so is the threshold recorded;
* every swap is taken (the gateway logs each), and the log tells of none refused;
* latency while swapping beside that before, and resident memory after each tenth swap.

Prints a summary and writes ``benchmarks/results/hot_swaps.json``; exits 1 where one of the first three does not hold.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks" / "gateway")]

import click  # noqa: E402
from processes import environment, ours, started  # noqa: E402

from router.bundle import load, write  # noqa: E402

CANDIDATES = (
    ("gpt-4o-2024-05-13", 5.0, 15.0),
    ("gemini-1.5-pro", 1.25, 5.0),
    ("llama-3.1-70b-instruct", 0.88, 0.88),
    ("gemini-1.5-flash", 0.075, 0.3),
)
PRESET = "balanced"
#: Version to threshold: what its decisions are told by.
THRESHOLDS = {"a": 0.61, "b": 0.73}
WATCH_S = 0.1
#: What the writer may still hold when the last answer is there.
SETTLE_S = 2.0
TAKEN_WITHIN_S = 20.0
N_WORDS = 40


@click.group(invoke_without_command=True)
@click.option("--swaps", default=50, show_default=True)
@click.option("--every", "every_s", default=0.8, show_default=True, help="Seconds from one that is taken to the next.")
@click.option("--quiet", "quiet_s", default=20.0, show_default=True, help="Seconds of load before the first.")
@click.option("--connections", default=8, show_default=True)
@click.option("--pause", "pause_s", default=0.04, show_default=True, help="Seconds a client waits between requests.")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "benchmarks/results/hot_swaps.json")
@click.pass_context
def main(
    context: click.Context,
    swaps: int,
    every_s: float,
    quiet_s: float,
    connections: int,
    pause_s: float,
    out: Path,
) -> None:
    """Measure; the subcommand is the clients it starts."""
    if context.invoked_subcommand is not None:
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _make_versions(folder)
        _point(folder, "a")
        emulator = stack.enter_context(started(ours("emulator"), "/v1/models"))
        config = _write_config(folder, emulator.origin)
        serve = [sys.executable, "-c", "from router.cli import main; main()", "serve", "--config", str(config)]
        gateway = stack.enter_context(started([*serve, "--port", "0"], "/readyz", folder / "log"))
        command = [sys.executable, __file__, "clients", gateway.origin, str(connections), str(pause_s)]
        clients = subprocess.Popen(
            command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        stack.callback(clients.kill)
        assert clients.stdin is not None and clients.stdout is not None
        time.sleep(min(5.0, quiet_s))  # the first seconds warm everything up and count for nothing
        quiet_at = time.monotonic()
        time.sleep(quiet_s)
        memory_mb = [round(gateway.memory_mb("VmRSS"), 1)]
        began_at = time.monotonic()
        taken_s: list[float] = []
        for n in range(swaps):
            swapped_at = time.monotonic()
            _point(folder, "ba"[n % 2])
            while _n_taken(folder) <= n and time.monotonic() < swapped_at + TAKEN_WITHIN_S:
                time.sleep(0.02)
            taken_s.append(time.monotonic() - swapped_at)
            time.sleep(every_s)
            if (n + 1) % 10 == 0:
                memory_mb.append(round(gateway.memory_mb("VmRSS"), 1))
        ended_at = time.monotonic()
        clients.stdin.close()
        rows = [json.loads(line) for line in clients.stdout]
        clients.wait(30)
        time.sleep(SETTLE_S)
        records = _records(folder / "turnout.sqlite")
        n_taken, n_refused = _n_taken(folder), _count(folder, '"reload_')
    latencies_ms = {
        "before": [row["ms"] for row in rows if quiet_at <= row["at"] < began_at],
        "while_swapping": [row["ms"] for row in rows if began_at <= row["at"] < ended_at],
    }
    problems = list(_problems(rows, records))
    if n_taken != swaps or n_refused:
        problems.append(f"{n_taken} of {swaps} swaps were taken, {n_refused} refused")
    versions = [row["bundle"] for row in sorted(rows, key=lambda row: row["at"])]
    report: dict[str, Any] = {
        "python": platform.python_version(),
        "n_cpus": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "connections": connections,
        "n_swaps": swaps,
        "every_s": every_s,
        "watch_s": WATCH_S,
        "n_requests": len(rows),
        "n_failed": sum(row["status"] != 200 for row in rows),
        "n_by_bundle": {bundle: versions.count(bundle) for bundle in sorted(set(versions), key=str)},
        "n_changes_seen": sum(one != other for one, other in pairwise(versions)),
        "n_records": len(records),
        "taken_s": {"p50": round(median(taken_s), 2), "max": round(max(taken_s), 2)},
        "latency_ms": {phase: _cuts(ms) for phase, ms in latencies_ms.items()},
        "memory_mb_every_ten_swaps": memory_mb,
        "problems": problems,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    click.echo(
        f"{report['n_requests']:,} requests, {report['n_failed']} failed; {swaps} swaps, taken after "
        f"{report['taken_s']['p50']} s; load average {report['load_average']}; memory "
        f"{' '.join(map(str, memory_mb))} MB"
    )
    for phase, cuts in report["latency_ms"].items():
        click.echo(f"{phase:<16} " + "  ".join(f"{name} {value}" for name, value in cuts.items()))
    for problem in problems:
        click.echo(problem, err=True)
    sys.exit(1 if problems else 0)


def _n_taken(folder: Path) -> int:
    return _count(folder, '"reloaded"')


def _count(folder: Path, event: str) -> int:
    """Count a kind of event in the gateway's log."""
    return sum(event in line for line in (folder / "log").read_text().splitlines())


def _problems(rows: list[dict[str, Any]], records: dict[str, tuple[str, float]]) -> list[str]:
    """Say what does not hold, each with its count."""
    threshold = {f"default@{version}": value for version, value in THRESHOLDS.items()}
    checks: tuple[tuple[str, Callable[[dict[str, Any]], bool]], ...] = (
        ("answers that are not 200", lambda row: row["status"] != 200),
        ("answers that name no version, or another", lambda row: row["bundle"] not in threshold),
        ("answers without a record", lambda row: row["id"] not in records),
        (
            "records that name another version than the answer",
            lambda row: row["id"] in records and records[row["id"]][0] != row["bundle"],
        ),
        (
            "records whose threshold is another version's",
            lambda row: row["id"] in records and records[row["id"]][1] != threshold.get(records[row["id"]][0]),
        ),
    )
    return [f"{n} {words}" for words, fails in checks if (n := sum(map(fails, rows)))]


@main.command(hidden=True)
@click.argument("origin")
@click.argument("n_connections", type=int)
@click.argument("pause_s", type=float)
def clients(origin: str, n_connections: int, pause_s: float) -> None:
    """Ask until standard input ends; print a line for each answer."""
    import uvloop

    uvloop.run(_ask(origin, n_connections, pause_s))


async def _ask(origin: str, n_connections: int, pause_s: float) -> None:
    import aiohttp

    is_over = asyncio.Event()
    asyncio.get_running_loop().run_in_executor(None, sys.stdin.read).add_done_callback(lambda _: is_over.set())
    rng = random.Random(0)
    lines: list[str] = []

    async def work(session: aiohttp.ClientSession) -> None:
        while not is_over.is_set():
            # Always another question: one that was asked before is answered from memory.
            text = " ".join(f"w{rng.randrange(10**6)}" for _ in range(N_WORDS))
            body = {"model": "auto", "messages": [{"role": "user", "content": text}]}
            row: dict[str, Any] = {"at": time.monotonic(), "status": 0, "id": None, "bundle": None}
            began = time.perf_counter()
            try:
                async with session.post(f"{origin}/v1/chat/completions", json=body) as response:
                    await response.read()
                    row |= {
                        "status": response.status,
                        "id": response.headers.get("x-turnout-decision-id"),
                        "bundle": response.headers.get("x-turnout-bundle"),
                    }
            except aiohttp.ClientError as error:
                row["error"] = type(error).__name__
            row["ms"] = (time.perf_counter() - began) * 1e3
            lines.append(json.dumps(row))
            await asyncio.sleep(pause_s)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=n_connections)) as session:
        await asyncio.gather(*(work(session) for _ in range(n_connections)))
    sys.stdout.write("\n".join(lines) + "\n")


def _make_versions(folder: Path) -> None:
    """Write the shipped bundle under two versions, each with its own threshold."""
    shipped = ROOT / "models" / "default"
    manifest = load(shipped).manifest
    files = {name: (shipped / name).read_bytes() for name in manifest.files}
    for version, threshold in THRESHOLDS.items():
        presets = {**manifest.presets, PRESET: replace(manifest.presets[PRESET], kind="threshold", value=threshold)}
        made = replace(manifest, name="default", version=version, presets=presets, certificate=None)
        write(folder / "versions" / f"default@{version}", made, files)


def _point(folder: Path, version: str) -> None:
    fresh = folder / ".champion"
    fresh.symlink_to(Path("versions") / f"default@{version}")
    os.replace(fresh, folder / "champion")


def _write_config(folder: Path, emulator: str) -> Path:
    lines = [
        f'[server]\nbundle = "champion"\ndatabase = "turnout.sqlite"\nwatch_bundle_s = {WATCH_S}\n',
        f'[routing]\ndefault = "{PRESET}"\n',
        f'[[providers]]\nname = "emulator"\nbase_url = "{emulator}/v1"\napis = ["chat"]\n',
    ]
    for name, input_usd, output_usd in CANDIDATES:
        lines.append(
            f'[[candidates]]\nname = "{name}"\ninput_usd_per_mtok = {input_usd}\noutput_usd_per_mtok = {output_usd}\n'
            f'context_window_tokens = 128000\ndeployments = [{{ provider = "emulator", model = "{name}" }}]\n'
        )
    path = folder / "turnout.toml"
    path.write_text("\n".join(lines))
    return path


def _records(database: Path) -> dict[str, tuple[str, float]]:
    """Return id to the bundle and the threshold of the decision."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        return {i: (b, v) for i, b, v in connection.execute("SELECT id, bundle, policy_value FROM request")}
    finally:
        connection.close()


def _cuts(ms: list[float]) -> dict[str, float]:
    cuts = quantiles(ms, n=1000)
    return {
        "n": len(ms),
        "p50": round(cuts[499], 2),
        "p99": round(cuts[989], 2),
        "p999": round(cuts[998], 2),
        "max": round(max(ms), 2),
    }


if __name__ == "__main__":
    main()
