"""``turnout drift``: has anything changed since the bundle began to serve? Entry point: :func:`drift`.

Exit codes: 0 looked; 1 an error; 3 drift is shown and ``--fail`` was given.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import click

from training.command_errors import errors
from training.since import Since, read_since

if TYPE_CHECKING:
    from rich.table import Table

    from training.drift import Drift, Finding

EXIT_SHOWN = 3
_UNKNOWN = "–"
_PATH = click.Path(path_type=Path)


@click.command()
@click.option("--log", "folder", required=True, type=_PATH, help="What 'turnout log export' made.")
@click.option("--since", callback=read_since, metavar="WHEN", help="Only requests from then on: 30d, or a UTC date.")
@click.option("--bundle", metavar="NAME@VERSION", help="Whose requests. Default: that of the newest.")
@click.option("--period", default="1d", show_default=True, metavar="DURATION", help="A change is dated to so much.")
@click.option("--config", type=_PATH, help="TOML of 'turnout retrain'; its [feedback] says what votes count for.")
@click.option("--all", "is_all", is_flag=True, help="Print every row, not only candidates and what is shown.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--fail", "is_failing", is_flag=True, help="Exit with 3 where drift is shown.")
def drift(
    folder: Path,
    since: Since | None,
    bundle: str | None,
    period: str,
    config: Path | None,
    is_all: bool,
    as_json: bool,
    is_failing: bool,
) -> None:
    """Look for drift in votes, costs, lengths and prompts, and say what to do about it."""
    with errors():
        from training.decision_log import DecisionLog
        from training.drift import drift_of
        from training.foreseen import foreseen
        from training.retrain_settings import read_retrain_settings
        from training.triggers import seconds_of

        settings = read_retrain_settings(config).feedback
        since_unix_s = None if since is None else since.at(time.time())
        with DecisionLog(folder) as log:
            seen = foreseen(
                log, bundle=bundle, since_unix_s=since_unix_s, period_s=seconds_of(period), settings=settings
            )
            found = drift_of(seen, log)
    if as_json:
        click.echo(json.dumps(document_of(found, str(folder)), indent=1, ensure_ascii=False))
    else:
        _show(found, str(folder), is_all)
    if is_failing and found.is_shown:
        raise click.exceptions.Exit(EXIT_SHOWN)


def document_of(found: Drift, folder: str) -> dict[str, object]:
    """Return everything, for JSON: what is unknown or unbounded is null."""
    from training.drift import advice

    rows = [
        {
            "measure": row.measure.name,
            "candidate": row.candidate,
            "task": row.task,
            "n": row.n,
            "level": _finite(asdict(row.level)),
            "expected": row.measure.expected,
            "tolerance": row.measure.tolerance,
            "is_off": row.is_off,
            "is_changed": row.is_changed,
            "change": None
            if row.change is None or row.since is None
            else {
                "since": row.since.isoformat(),
                "before": row.change.before,
                "after": row.change.after,
                "difference": _finite(asdict(row.change.difference)),
            },
        }
        for row in found.findings
    ]
    return {
        "bundle": found.seen.bundle,
        "unit": "key" if found.seen.is_by_key else "request",
        "alpha": found.alpha,
        "is_shown": found.is_shown,
        "advice": advice(found, folder),
        "prompts_apart": None if found.apart is None else asdict(found.apart),
        "findings": rows,
    }


def lines_of(found: Drift) -> list[str]:
    """Return what was looked at, and how sure it is."""
    seen = found.seen
    last = datetime.fromtimestamp(float(seen.rows["time_unix_s"].iloc[-1]), UTC)
    unit = "keys are independent, their requests are not" if seen.is_by_key else "requests are taken to be independent"
    lines = [
        f"{len(seen.rows):,} requests decided by {seen.bundle}, {seen.begins(0):%Y-%m-%d} to {last:%Y-%m-%d}, "
        f"{len(seen.voted):,} with votes; {unit}",
        f"Bounds hold for all rows and at every look together with probability {1 - found.alpha:.0%}.",
    ]
    if found.apart is not None:
        apart = found.apart
        lines.append(
            f"Early and late prompts ({apart.n_before:,} and {apart.n_after:,}) are told apart with AUC "
            f"{apart.auc:.3f} ({apart.low:.3f} to {apart.high:.3f}, of this look); .5 is not at all."
        )
    return lines


def table_of(findings: tuple[Finding, ...]) -> Table:
    """Return the findings as a table."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("what", "of"):
        table.add_column(heading, no_wrap=True)
    for heading in _COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in findings:
        of = " · ".join(name for name in (row.candidate, row.task) if name) or "all requests"
        words = ", ".join(word for word, is_so in (("off", row.is_off), ("CHANGED", row.is_changed)) if is_so)
        table.add_row(row.measure.name, Text(of), *(Text(cell(row)) for cell in _COLUMNS.values()), Text(words, "bold"))
    return table


def _show(found: Drift, folder: str, is_all: bool) -> None:
    from rich.console import Console

    from training.drift import advice

    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    for line in lines_of(found):
        console.print(line, highlight=False, soft_wrap=True)
    shown = set(found.shown)
    console.print(table_of(tuple(row for row in found.findings if is_all or row in shown or row.task is None)))
    for sentence in advice(found, folder):
        console.print(f"→ {sentence}", highlight=False, soft_wrap=True)


def _level(row: Finding) -> str:
    sign = "+" if row.measure.origin else ""
    said = format(row.level.value, f"{sign}.3f") if isfinite(row.level.value) else _UNKNOWN
    return said if not row.level.is_said else f"{said} [{row.level.low:{sign}.3f}, {row.level.high:{sign}.3f}]"


def _change(row: Finding) -> str:
    if row.change is None:
        return _UNKNOWN
    step = row.change.difference
    return f"{step.value:+.3f} [{step.low:+.3f}, {step.high:+.3f}]"


def _moment(when: datetime) -> str:
    return f"{when:%Y-%m-%d}" if (when.hour, when.minute) == (0, 0) else f"{when:%Y-%m-%d %H:%M}"


_COLUMNS: Mapping[str, Callable[[Finding], str]] = {
    "requests": lambda row: f"{row.n:,}",
    "in all": _level,
    "plainest step": _change,
    "since": lambda row: _UNKNOWN if row.since is None or not row.is_changed else _moment(row.since),
}


def _finite(bounds: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if isfinite(value) else None for name, value in bounds.items()}
