"""How often does ``turnout drift`` see what is not there, and how soon what is? On simulated logs, looked at daily.

Run with ``python benchmarks/drift.py [--logs 25]``. For each size of a change, so many logs of 14 days are made on the
project's own sample (SIMULATED; what is predicted is the truth, so that nothing but the change is off), with the change
after half of the requests, and looked at after every second day, as cron would. Printed and written to
``benchmarks/results/drift.json``: in how many logs anything was shown that is not so, with a 95 % Clopper–Pearson
interval; in how many the change was shown of the candidate, how many days after it, and how far off its date was.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from scipy.stats import beta

from routing_data.sample import generate
from training.decision_log import DecisionLog
from training.drift import QUALITY, QUALITY_BY_TASK, drift_of
from training.foreseen import foreseen
from training.simulated_log import simulate
from training.simulated_world import Shift

N_DAYS, CANDIDATE = 14, "sample-medium"
CHANGES = (0.0, -0.1, -0.2, -0.3)


@click.command()
@click.option("--logs", default=25, show_default=True, help="For each size of the change.")
@click.option("--requests", default=16_000, show_default=True, help="Of a log; votes are on three in five.")
@click.option("--results", type=click.Path(path_type=Path), default=Path(__file__).parent / "results")
def main(logs: int, requests: int, results: Path) -> None:
    """Simulate, look, count."""
    sample = generate()
    truth = sample.truth.pivot(index="prompt_id", columns="candidate", values="probability")
    predicted = truth.loc[list(sample.table.prompt_ids)].to_numpy()
    rows = []
    for change in CHANGES:
        found = [one_log(sample, predicted, requests, change, seed) for seed in range(logs)]
        n_false = sum(is_false for is_false, _, _ in found)
        after = [days for _, days, _ in found if days is not None]
        low, high = interval(n_false, logs)
        rows.append(
            {
                "change": change,
                "logs": logs,
                "false_share": n_false / logs,
                "false_low": low,
                "false_high": high,
                "found_share": len(after) / logs,
                "days_after": float(np.median(after)) if after else None,
                "days_off": float(np.mean([off for _, _, off in found if off is not None])) if after else None,
            }
        )
        click.echo(json.dumps(rows[-1]))
    results.mkdir(parents=True, exist_ok=True)
    document = {"simulated": True, "n_requests": requests, "n_days": N_DAYS, "candidate": CANDIDATE, "rows": rows}
    (results / "drift.json").write_text(json.dumps(document, indent=1) + "\n")


def one_log(sample, predicted, n_requests: int, change: float, seed: int) -> tuple[bool, int | None, float | None]:
    """Return whether anything false was shown, days from the change to its finding, and how far off its date was."""
    shifts = [Shift(CANDIDATE, quality=change)] if change else []
    with tempfile.TemporaryDirectory() as folder:
        made = simulate(
            Path(folder), sample, n_requests=n_requests, n_days=N_DAYS, predicted=predicted, seed=seed, shifts=shifts
        )
        with DecisionLog(made.path) as log:
            seen = foreseen(log)
    is_false, days, off = False, None, None
    for day in range(3, N_DAYS, 2):
        shown = drift_of(replace(seen, rows=seen.rows[seen.rows["period"] <= day])).shown
        is_after = bool(change) and day >= N_DAYS // 2
        for row in shown:
            is_true = is_after and row.candidate == CANDIDATE and row.measure in (QUALITY, QUALITY_BY_TASK)
            is_false = is_false or not is_true
            if is_true and row.measure is QUALITY and row.is_changed and days is None:
                days = day - N_DAYS // 2 + 1
                off = abs(row.change.period - N_DAYS / 2)
    return is_false, days, off


def interval(n: int, of: int) -> tuple[float, float]:
    """Return the 95 % Clopper–Pearson interval of a share."""
    low = 0.0 if n == 0 else float(beta.ppf(0.025, n, of - n + 1))
    return low, 1.0 if n == of else float(beta.ppf(0.975, n + 1, of - n))


if __name__ == "__main__":
    main()
