"""Time one routing decision: text to features, predictors, policy, explanation; one thread, one prompt at a time.

Run with ``python benchmarks/decision.py [--bundle DIR]``; prints a table and writes
``benchmarks/results/decision.json``. Prompts are made here, from words, numbers and code, at a fixed number of
estimated tokens (four characters each); no two are the same, so nothing is remembered between them.
"""

from __future__ import annotations

import json
import os
import platform
import random
import resource
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import click
import numpy as np

_SENTENCES = (
    "the of and a to in is you that it he was for on are as with his they at be this have from or one had by word but "
    "not what all were we when your can said there use an each which she do how their if will up other about out many "
    "then them these so some her would make like him into time has look two more write go see number no way could "
    "people my than first water been call who oil its now find long down day did get come made may part function "
    "return value array matrix integral probability theorem protein contract statute enzyme voltage inflation"
)
WORDS = _SENTENCES.split()
SIZES_TOKENS = (16, 128, 512, 4_096, 25_000)


def prompt(n_tokens: int, rng: random.Random) -> str:
    """Make a text of about ``n_tokens`` tokens of four characters."""
    pieces: list[str] = []
    length = 0
    while length < 4 * n_tokens:
        piece = rng.choice(
            (rng.choice(WORDS), rng.choice(WORDS), rng.choice(WORDS), str(rng.randrange(10_000)), "(A)", "x_i =", "?\n")
        )
        pieces.append(piece)
        length += len(piece) + 1
    return " ".join(pieces)[: 4 * n_tokens]


@click.command()
@click.option("--bundle", "directory", type=click.Path(path_type=Path), default=Path("models/default"))
@click.option("--decisions", default=2_000, help="Per prompt size.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("benchmarks/results/decision.json"))
def main(directory: Path, decisions: int, out: Path) -> None:
    """Print p50 and p99 of a decision at several prompt sizes."""
    started = time.perf_counter()
    from router import Router

    imported = time.perf_counter()
    router = Router.load(directory)
    loaded = time.perf_counter()
    rng = random.Random(0)
    rows = []
    for n_tokens in SIZES_TOKENS:
        n = decisions if n_tokens <= 512 else max(decisions // 10, 50)
        prompts = [prompt(n_tokens, rng) for _ in range(n + 50)]
        for text in prompts[:50]:
            router.route(text)
        wall, cpu = [], []
        for text in prompts[50:]:
            cpu_before, before = time.thread_time(), time.perf_counter()
            router.route(text)
            wall.append(time.perf_counter() - before)
            cpu.append(time.thread_time() - cpu_before)
        rows.append(
            {
                "n_tokens": n_tokens,
                "n_decisions": n,
                "p50_ms": round(float(np.percentile(wall, 50)) * 1e3, 3),
                "p99_ms": round(float(np.percentile(wall, 99)) * 1e3, 3),
                "cpu_p50_ms": round(float(np.percentile(cpu, 50)) * 1e3, 3),
                "cpu_p99_ms": round(float(np.percentile(cpu, 99)) * 1e3, 3),
            }
        )
    report = {
        "bundle": router.bundle.manifest.id,
        "n_candidates": len(router.candidates),
        "import_s": round(imported - started, 3),
        "load_s": round(loaded - imported, 3),
        "max_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
        "decisions": rows,
    }
    click.echo(
        f"{report['bundle']}, {report['n_candidates']} candidates; import {report['import_s']} s, "
        f"load {report['load_s']} s, {report['max_rss_mb']} MB; load average {report['load_average']:.1f}"
    )
    click.echo(f"{'tokens':>8} {'p50 ms':>8} {'p99 ms':>8} {'cpu p50':>8} {'cpu p99':>8}")
    for row in rows:
        click.echo("{n_tokens:>8} {p50_ms:>8} {p99_ms:>8} {cpu_p50_ms:>8} {cpu_p99_ms:>8}".format(**row))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
