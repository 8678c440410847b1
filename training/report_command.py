"""``turnout report``: an exported decision log, for people or as JSON. Entry point: :func:`report`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from training.command_errors import errors
from training.since import Since, read_since

if TYPE_CHECKING:
    from rich.table import Table

    from training.report import Estimate, Group, Report, Shadow

_UNKNOWN = "–"
_MOST_ROWS = 20


@click.command()
@click.option("--log", "folder", required=True, type=click.Path(path_type=Path), help="What 'turnout log export' made.")
@click.option("--since", callback=read_since, metavar="WHEN", help="Only requests from then on: 30d, or a UTC date.")
@click.option(
    "--by",
    "groupings",
    multiple=True,
    type=click.Choice(["candidate", "scenario", "key", "day"]),
    help="Only these tables; may be given again.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def report(folder: Path, since: Since | None, groupings: tuple[str, ...], as_json: bool) -> None:
    """Print spending, savings, shares, latency and quality by candidate, scenario, key and day."""
    with errors():
        from training.decision_log import DecisionLog
        from training.report import GROUPINGS
        from training.report import report as make

        since_unix_s = None if since is None else since.at(time.time())
        with DecisionLog(folder) as log:
            made = make(log, since_unix_s, groupings or tuple(GROUPINGS))
    if as_json:
        click.echo(json.dumps(asdict(made), indent=1, ensure_ascii=False))
        return
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    for line in lines_of(made):
        console.print(line, highlight=False, soft_wrap=True)
    for name, groups in made.by.items():
        console.print(table_of(name, groups[:_MOST_ROWS]))
        if len(groups) > _MOST_ROWS:
            console.print(f"… and {len(groups) - _MOST_ROWS} more; --json has them all", highlight=False)


def lines_of(made: Report) -> list[str]:
    """Return what is to be said of the whole."""
    whole = made.whole
    lines = [
        f"{whole.n:,} requests, {whole.n_routed:,} routed and answered, {whole.n_failed:,} failed, "
        f"{whole.n_explored:,} explored; spent {whole.spend_usd:,.4f} USD"
    ]
    if whole.n_of_caller or whole.n_replayed:
        lines.append(
            f"{whole.n_of_caller:,} ended by their caller (invalid, too little time, gone), {whole.n_replayed:,} "
            "replayed: none of these failed"
        )
    if whole.n_designated:
        lines.append(f"{whole.n_designated:,} named their candidate: they are in no share, quality or saving")
    if whole.n_emulated:
        lines.append(f"{whole.n_emulated:,} of them were answered by an EMULATOR: nobody spent that money")
    if whole.n_unknown_cost:
        lines.append(f"{whole.n_unknown_cost:,} answers have no known cost and are not in any sum")
    if whole.saving.value is not None and whole.reference_usd is not None:
        lines.append(
            f"saving against the reference candidate: {_percent(whole.saving)} of {whole.reference_usd:,.4f} USD, "
            f"over {whole.n_compared:,} requests"
        )
    if whole.prediction_ratio is not None:
        lines.append(
            f"where the reference itself answered it cost {whole.prediction_ratio:.2f} times what was predicted of it"
        )
    lines.extend(_shadow_line(shadow) for shadow in made.shadows)
    return lines


def table_of(name: str, groups: tuple[Group, ...]) -> Table:
    """Return the table of one grouping."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(name, no_wrap=True)
    for heading in _COLUMNS:
        table.add_column(heading, justify="right")
    for group in groups:
        table.add_row(Text(group.label), *(cell(group) for cell in _COLUMNS.values()))
    return table


def _number(value: float | None, form: str) -> str:
    return _UNKNOWN if value is None else format(value, form)


def _percent(estimate: Estimate) -> str:
    if estimate.value is None:
        return _UNKNOWN
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.1%}"
    return f"{estimate.value:.1%} ± {100 * (estimate.high - estimate.low) / 2:.1f}"


def _quality(group: Group) -> str:
    voted = group.voted_quality
    if voted.value is None:
        return _UNKNOWN
    around = "" if voted.low is None or voted.high is None else f" ± {(voted.high - voted.low) / 2:.3f}"
    return f"{voted.value:.3f}{around} ({group.n_voted:,})"


def _shadow_line(shadow: Shadow) -> str:
    return (
        f"shadow {shadow.bundle}: would choose the same in {_percent(shadow.agreement)} of {shadow.n:,} requests, "
        f"expected saving {_percent(shadow.saving)}"
    )


_COLUMNS: Mapping[str, Callable[[Group], str]] = {
    "requests": lambda group: f"{group.n:,}",
    "share": lambda group: _number(group.share, ".1%"),
    "failed": lambda group: f"{group.n_failed / group.n:.1%}",
    "spent USD": lambda group: f"{group.spend_usd:,.4f}",
    "saving": lambda group: _percent(group.saving),
    "p50 / p95 s": lambda group: f"{_number(group.p50_s, '.2f')} / {_number(group.p95_s, '.2f')}",
    "voted quality (n)": _quality,
    "predicted": lambda group: _number(group.predicted_of_voted, ".3f"),
}
