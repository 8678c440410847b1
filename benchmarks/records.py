"""What the decision log costs: bytes and CPU a request, memory of the writer, time of an export.

Run with ``python benchmarks/records.py [--records 1000000] [--keep DIR]``. Three parts, each in processes of its own:

``log``      A database of so many made-up records (and a vote on every twentieth) is written and exported: bytes a
             record, seconds and memory of a first export, of one where nothing changed and of one where a day did.
             ``--keep`` leaves database and log there, to time ``turnout report`` on.
``writer``   5,000 records a second into the store for a while: memory at the start and at the end, CPU, rows lost.
``requests`` CPU time a chat request of the same load: gateways with ``database = ""``, with records, with records and
             retained prompts, with records and an experiment (two arms alike). Rounds alternate; figures are medians
             over rounds, ratios those of the same round.

Prints a table and writes ``benchmarks/results/records.json``.
"""

from __future__ import annotations

import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "datasets"), str(HERE / "gateway")]

import click  # noqa: E402

ROOT = HERE.parent
CANDIDATES = (
    ("gpt-4o-2024-05-13", 5.0, 15.0),
    ("gemini-1.5-pro", 1.25, 5.0),
    ("llama-3.1-70b-instruct", 0.88, 0.88),
    ("gemini-1.5-flash", 0.075, 0.3),
    ("llama-3.1-8b-instruct", 0.18, 0.18),
    ("phi-3-mini", 0.1, 0.1),
)
N_KEYS, N_DAYS, N_DRAWN = 12, 30, 4_000
DAY_S = 86_400.0
PER_S = 5_000
_SETTLE_S = 1.5


def drawn(rng: random.Random) -> tuple[object, ...]:
    """Draw one record, but for its id and time: a request decided among six candidates, as the gateway records it."""
    from router.decision import Outlook
    from serving.recording import outlook_json
    from serving.records import RequestRecord

    names = sorted(name for name, _, _ in CANDIDATES)
    prices = {name: (input_usd, output_usd) for name, input_usd, output_usd in CANDIDATES}
    n_read = rng.randrange(20, 3_000)
    quality = [rng.betavariate(6, 2) for _ in names]
    written = [rng.uniform(50, 800) for _ in names]
    costs = [(n_read * prices[n][0] + w * prices[n][1]) / 1e6 for n, w in zip(names, written, strict=True)]
    outlook = Outlook(
        candidates=names,
        like=[None] * 6,
        excluded_by=[None if rng.random() < 0.95 else "deny" for _ in names],
        quality=quality,
        quality_low=[q * 0.9 for q in quality],
        quality_high=[min(1.0, q * 1.1) for q in quality],
        input_tokens=[float(n_read)] * 6,
        output_tokens=written,
        output_tokens_p90=written,
        cost_usd=costs,
        cost_usd_p90=costs,
    )
    at = rng.randrange(6)
    has_failed = rng.random() < 0.02
    record = RequestRecord(
        "",
        0.0,
        f"key-{rng.randrange(N_KEYS)}",
        "auto",
        503 if has_failed else 200,
        "overloaded" if has_failed else "ok",
        rng.random() < 0.5,
        candidate=names[at],
        deployment=f"{names[at]}@openai/{names[at]}",
        policy_kind="willingness_to_pay_usd",
        policy_value=0.0947,
        policy_name="balanced",
        binding="willingness_to_pay_usd",
        propensity=1.0 if rng.random() < 0.9 else 0.05,
        bundle="default@1",
        predicted_quality=quality[at],
        expected_cost_usd=costs[at],
        input_tokens=None if has_failed else n_read,
        output_tokens=None if has_failed else int(written[at] * rng.uniform(0.5, 1.5)),
        cost_usd=None if has_failed else costs[at] * rng.uniform(0.8, 1.2),
        first_byte_s=rng.expovariate(2.0),
        total_s=rng.expovariate(0.5),
        api=rng.choice(("chat", "messages", "responses")),
        upstream_dialect="chat",
        scenario=rng.choice((None, None, "support", "batch")),
        chosen=names[at],
        outlook=outlook_json(outlook),
        reference=CANDIDATES[0][0],
        reference_cost_usd=None if has_failed else costs[names.index(CANDIDATES[0][0])],
        policy_version="0f1e2d3c4b5a",
        is_emulated=False,
    )
    return tuple(record[2:])


def make(path: Path, n_records: int, seed: int = 1) -> None:
    """Write a database of so many records over the last days, evenly, and a vote on every twentieth."""
    from serving.storage.record_store import REQUESTS
    from serving.storage.votes import FEEDBACK
    from serving.storage.writer import connect

    rng = random.Random(seed)
    rests = [drawn(rng) for _ in range(N_DRAWN)]
    start_s = time.time() // DAY_S * DAY_S - (N_DAYS - 1) * DAY_S
    every_s = N_DAYS * DAY_S / n_records

    def rows(first: int, last: int) -> list[tuple[object, ...]]:
        times = [start_s + n * every_s for n in range(first, last)]
        return [
            (f"req_{int(at * 1000):011x}{rng.getrandbits(52):013x}", at, *rests[rng.randrange(N_DRAWN)]) for at in times
        ]

    with closing(connect(path)) as database:
        database.execute("PRAGMA synchronous = OFF")
        for first in range(0, n_records, 20_000):
            some = rows(first, min(first + 20_000, n_records))
            votes = [
                (row[0], row[2], "vote", "rating", round(rng.betavariate(5, 2), 2), None, None, float(str(row[1])) + 60)
                for row in some[::20]
            ]
            with database:
                database.executemany(REQUESTS.insert(1), some)
                database.executemany(FEEDBACK.insert(1), votes)


def exported(database: Path, out: Path) -> dict[str, float]:
    """Export in a process of its own; return what it took."""
    done = subprocess.run(
        [sys.executable, __file__, "export", str(database), str(out)], stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout)


def reported(out: Path) -> list[float]:
    """Time ``turnout report`` thrice, start of the program included."""
    taken_s = []
    for _ in range(3):
        began = time.perf_counter()
        command = [sys.executable, "-c", "from router.cli import main; main()", "report", "--log", str(out)]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        taken_s.append(round(time.perf_counter() - began, 2))
    return taken_s


def log_part(folder: Path, n_records: int) -> dict[str, object]:
    """Measure writing and exporting a log."""
    from serving.records import RequestRecord
    from serving.storage.record_store import REQUESTS
    from serving.storage.writer import connect

    database, out = folder / "turnout.sqlite", folder / "log"
    began = time.perf_counter()
    make(database, n_records)
    made_s = time.perf_counter() - began
    first, nothing = exported(database, out), exported(database, out)
    rng = random.Random(2)
    with closing(connect(database)) as connection, connection:
        late = RequestRecord(f"req_{rng.getrandbits(90):024x}", time.time(), *drawn(rng))
        connection.execute(REQUESTS.insert(1), late)
    one_day = exported(database, out)
    n_bytes = sum(file.stat().st_size for file in out.rglob("*.parquet"))
    return {
        "n_records": n_records,
        "n_days": N_DAYS,
        "made_s": round(made_s, 1),
        "sqlite_bytes_per_record": round(database.stat().st_size / n_records),
        "parquet_bytes_per_record": round(n_bytes / n_records),
        "export": first,
        "export_unchanged": nothing,
        "export_one_day": one_day,
        "report_s": reported(out),
    }


def writer_part(folder: Path, for_s: float) -> dict[str, float]:
    """Measure the writer under a steady load, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "write", str(folder / "writer.sqlite"), str(for_s)],
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


#: Name of a gateway -> its database, and TOML of its own.
_GATEWAYS = {
    "off": ("", ""),
    "records": ("records.sqlite", ""),
    "content": ("content.sqlite", '[log]\nretention = "content"\n'),
    "experiment": ("experiment.sqlite", ""),
}


def request_part(folder: Path, bundle: Path, n_requests: int, rounds: int, n_tokens: int) -> dict[str, object]:
    """Measure CPU time a request of gateways that differ in what they keep."""
    from load import Load, send
    from processes import Server, ours, started

    from serving.keys import new_key

    secret, sha256 = new_key()
    cpu_ms: dict[str, list[float]] = {name: [] for name in _GATEWAYS}
    with ExitStack() as stack:
        emulator = stack.enter_context(started(ours("emulator"), "/v1/models"))
        servers: dict[str, Server] = {}
        for name, (database, more) in _GATEWAYS.items():
            config = folder / f"{name}.toml"
            config.write_text(
                _config(bundle, str(folder / database) if database else "", emulator.origin, sha256) + more
            )
            serve = [sys.executable, "-c", "from router.cli import main; main()", "serve", "--config", str(config)]
            servers[name] = stack.enter_context(started([*serve, "--port", "0"], "/readyz", folder / f"{name}.log"))
        arms = [{"name": name, "share": 0.5} for name in ("control", "same")]
        experiment = {"name": "aa", "on": "auto", "unit": "conversation", "arms": arms}
        _post(f"{servers['experiment'].origin}/v1/experiments", experiment, secret)

        def measured(name: str, round_: int, n: int) -> float:
            server = servers[name]
            load = Load(server.origin, "chat", "auto", True, False, n_tokens, n, 8, seed=1_000 + round_)
            before_s = server.cpu_s()
            send(server, load, secret)
            time.sleep(_SETTLE_S)  # the records of the last second are still being written
            return (server.cpu_s() - before_s) / n * 1e3

        for round_ in range(-1, rounds):
            for name in _GATEWAYS if round_ % 2 == 0 else reversed(_GATEWAYS):
                taken_ms = measured(name, round_, n_requests if round_ >= 0 else 100)
                if round_ >= 0:
                    cpu_ms[name].append(taken_ms)
                    click.echo(f"{round_ + 1}/{rounds} {name:<12} {taken_ms:.3f} ms", err=True)
    return {
        "n_requests": n_requests,
        "rounds": rounds,
        "n_tokens": n_tokens,
        "cpu_ms": {name: round(median(taken), 3) for name, taken in cpu_ms.items()},
        "ratio_to_off": {
            name: round(median(one / off for one, off in zip(taken, cpu_ms["off"], strict=True)), 3)
            for name, taken in cpu_ms.items()
        },
    }


def _config(bundle: Path, database: str, emulator: str, sha256: str) -> str:
    lines = [
        f'[server]\nbundle = "{bundle}"\ndatabase = "{database}"\n',
        f'[[providers]]\nname = "emulator"\nbase_url = "{emulator}/v1"\n',
        f'[[keys]]\nname = "benchmark"\nsha256 = "{sha256}"\nadmin = true\n',
    ]
    for name, input_usd, output_usd in CANDIDATES:
        lines.append(
            f'[[candidates]]\nname = "{name}"\ninput_usd_per_mtok = {input_usd}\noutput_usd_per_mtok = {output_usd}\n'
            f'context_window_tokens = 128000\ndeployments = [{{ provider = "emulator", model = "{name}" }}]\n'
        )
    return "\n".join(lines) + "\n"


def _post(url: str, body: object, secret: str) -> None:
    headers = {"content-type": "application/json", "authorization": f"Bearer {secret}"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    opener.open(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=10).read()


@click.group(invoke_without_command=True)
@click.option("--records", default=1_000_000, show_default=True)
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Leave the database and the log here.")
@click.option("--writer-s", default=60.0, show_default=True, help="How long the writer is kept busy.")
@click.option("--requests", default=2_000, show_default=True, help="Per gateway and round.")
@click.option("--rounds", default=7, show_default=True)
@click.option("--tokens", default=128, show_default=True, help="Of a question.")
@click.option("--bundle", type=click.Path(path_type=Path), default=ROOT / "models" / "default", show_default=True)
@click.option("--only", type=click.Choice(["log", "writer", "requests"]), help="This part alone.")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "benchmarks/results/records.json")
@click.pass_context
def main(
    context: click.Context,
    records: int,
    keep: Path | None,
    writer_s: float,
    requests: int,
    rounds: int,
    tokens: int,
    bundle: Path,
    only: str | None,
    out: Path,
) -> None:
    """Measure; the subcommands are the processes it starts."""
    if context.invoked_subcommand is not None:
        return
    report: dict[str, object] = {
        "python": platform.python_version(),
        "n_cpus": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if only in (None, "log"):
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
            report["log"] = log_part(keep or folder, records)
        if only in (None, "writer"):
            report["writer"] = writer_part(folder, writer_s)
        if only in (None, "requests"):
            report["requests"] = request_part(folder, bundle.resolve(), requests, rounds, tokens)
    out.parent.mkdir(parents=True, exist_ok=True)
    if only is not None and out.is_file():
        report = {**json.loads(out.read_text()), **report}
    out.write_text(json.dumps(report, indent=1) + "\n")
    click.echo(json.dumps(report, indent=1))


@main.command(hidden=True)
@click.argument("database", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def export(database: Path, out: Path) -> None:
    """Export, and say what it took."""
    began = time.perf_counter()
    from serving.log_export import export as write

    done = write(database, out)
    taken = {
        "wall_s": round(time.perf_counter() - began, 2),
        "cpu_s": round(time.process_time(), 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "n_rows": done.n_rows,
        "n_days": done.n_days,
    }
    click.echo(json.dumps(taken))


@main.command(hidden=True)
@click.argument("database", type=click.Path(path_type=Path))
@click.argument("for_s", type=float)
def write(database: Path, for_s: float) -> None:
    """Add records at a steady rate, and say how the writer did."""
    from serving.records import RequestRecord
    from serving.storage.record_store import SqliteRecordStore

    rng = random.Random(3)
    rests = [drawn(rng) for _ in range(N_DRAWN)]
    store = SqliteRecordStore(database)
    store.open()
    n_waiting = n_added = 0
    began, before_cpu_s = time.perf_counter(), time.process_time()
    early_mb = 0.0
    while (elapsed_s := time.perf_counter() - began) < for_s:
        while n_added < elapsed_s * PER_S:
            record = RequestRecord(f"req_{n_added:024x}", time.time(), *rests[n_added % N_DRAWN])  # type: ignore[arg-type]
            store.add(record)
            n_added += 1
        n_waiting = max(n_waiting, store.status().n_waiting)
        if not early_mb and elapsed_s > min(5.0, for_s / 2):
            early_mb = _memory_mb()
        time.sleep(0.002)
    late_mb = _memory_mb()
    store.close()
    status = store.status()
    said = {
        "records_per_s": PER_S,
        "for_s": for_s,
        "n_written": status.n_written,
        "n_dropped": status.n_dropped,
        "most_waiting": n_waiting,
        "memory_after_5_s_mb": round(early_mb, 1),
        "memory_at_end_mb": round(late_mb, 1),
        "cpu_us_per_record": round((time.process_time() - before_cpu_s) / n_added * 1e6, 1),
    }
    click.echo(json.dumps(said))


def _memory_mb() -> float:
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
