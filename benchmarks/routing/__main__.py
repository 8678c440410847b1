"""Run every router on the same rows, splits, costs and embeddings: ``python benchmarks/routing --data DIR``.

DIR holds one folder per data set, or is itself one. Each (set, router, seed) is kept in the cache, so that a further
run computes only what is missing; ``--only NAME`` computes a router anew. Writes ``RESULTS.md`` beside this file,
``routing_peers.json`` and figures in ``benchmarks/results``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path))
@click.option("--seeds", default=5, show_default=True)
@click.option(
    "--sets", default="", help="Comma-separated; 'mix-without-' names all left-out benchmarks. All by default."
)
@click.option("--routers", default="", help="Separated by semicolons; all by default.")
@click.option("--only", multiple=True, help="Compute this router anew.")
@click.option("--tier", multiple=True, help="A further Turnout tier: NAME=SETTINGS.toml.")
@click.option("--model", type=click.Path(path_type=Path), help="Folder of a sentence-transformers model.")
@click.option("--cache", type=click.Path(path_type=Path), default=Path(tempfile.gettempdir()) / "turnout-routing")
@click.option("--results", type=click.Path(path_type=Path), default=HERE.parent / "results", show_default=False)
@click.option("--report", type=click.Path(path_type=Path), default=HERE / "RESULTS.md", show_default=False)
@click.option("--resamples", default=100, show_default=True)
def main(data, seeds, sets, routers, only, tier, model, cache, results, report, resamples) -> None:
    """Run what is missing and write the results."""
    from threadpoolctl import threadpool_limits

    from training.settings import Settings, read_settings

    if not data.is_dir():
        sys.exit(
            f"{data} is not there. The tables of the benchmark are not part of the project; on this machine it can be "
            "tried on the sample: make benchmark-routing DATA=datasets/samples/checkable"
        )
    from cells import ROUTERS, Bench
    from embeddings import find_model
    from report import write
    from tables import problems_of

    tiers = {"Turnout, default tier": Settings()}
    tiers |= {name: read_settings(path) for name, _, path in (entry.partition("=") for entry in tier)}
    model = find_model(model)
    features = "lexical" if model is None else "MiniLM"
    if model is None:
        click.echo("no torch or no MiniLM (--model): the peers read Turnout's lexical features instead")
    named = [name for name in (*tiers, *ROUTERS) if not routers or name in routers.split(";") or name in only]
    asked = ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    folder = cache / "cells"
    folder.mkdir(parents=True, exist_ok=True)
    with threadpool_limits(limits=1):
        for problem in problems_of(data, seeds, tuple(filter(None, sets.split(",")))):
            bench = Bench(problem, model, cache, tiers, resamples)
            for router in named:
                path = folder / f"{problem.name}~{router.replace('/', '-')}~{problem.seed}.json"
                if path.exists() and router not in only:
                    continue
                started = time.perf_counter()
                cell = {"set": problem.name, "router": router, "seed": problem.seed}
                cell |= {"commit": commit, "features": features}
                cell |= bench.run(router)
                cell["seconds"] = time.perf_counter() - started
                path.write_text(json.dumps(cell))
                naiq = cell["metrics"]["naiq"]["value"]
                click.echo(f"{problem.name} seed {problem.seed} {router}: nAIQ {naiq:.3f}, {cell['seconds']:.0f} s")
    write([json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))], results, report)


if __name__ == "__main__":
    main()
