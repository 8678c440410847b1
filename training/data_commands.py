"""``turnout data``: check, describe, fetch and make routing data from the command line.

It formats what ``routing_data`` finds and decides nothing itself. pandas and the rest are imported
inside the commands, so that ``turnout --help`` stays quick.

Entry point: ``data``, the click group.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from routing_data import Description, OutcomeTable

T = TypeVar("T")

_SIMULATED = "outcomes are SIMULATED"
_PATHS = click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))


@click.group()
def data() -> None:
    """Check, describe, fetch and make routing data."""


@data.command()
@_PATHS
def validate(paths: tuple[Path, ...]) -> None:
    """Check tables; list everything that is wrong and exit with 1 if anything is."""
    import routing_data

    n_problems = 0
    for path in paths:
        problems = routing_data.validate(path)
        n_problems += sum(1 + problem.n_more for problem in problems)
        for problem in problems:
            click.echo(str(problem), err=True)
        if not problems:
            table = routing_data.read(path)
            note = f"; {_SIMULATED}" if table.simulated else ""
            click.echo(f"{path}: valid, {len(table.prompt_ids)} prompts x {len(table.candidates)} candidates{note}")
    if n_problems:
        raise click.ClickException(f"{n_problems} problem{'s' if n_problems > 1 else ''} found")


@data.command()
@_PATHS
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def describe(paths: tuple[Path, ...], as_json: bool) -> None:
    """Show candidates, prices, mean quality and cost, hull and oracle; several tables are merged."""
    from dataclasses import asdict

    from rich.console import Console

    import routing_data

    def described() -> Description:
        tables = [routing_data.read(path) for path in paths]
        return routing_data.describe(tables[0] if len(tables) == 1 else routing_data.merge(tables))

    description = _or_exit(described)
    if as_json:
        click.echo(json.dumps(asdict(description), indent=2))
    else:
        _show(description, Console())


@data.command()
@click.argument("source")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write.")
@click.option("--cache", type=click.Path(path_type=Path, file_okay=False), help="Where downloads are kept.")
@click.option("--timeout-s", type=click.FloatRange(min=0, min_open=True), default=30.0, show_default=True)
def fetch(source: str, out: Path, cache: Path | None, timeout_s: float) -> None:
    """Download a public SOURCE (routerbench, zeroeval), verify it and write it as a folder."""
    import routing_data

    def fetched() -> OutcomeTable:
        table = routing_data.fetch(source, cache, timeout_s)
        routing_data.write(table, out)
        return table

    table = _or_exit(fetched)
    licence = table.sources[0].licence or "not stated: measure with it, ship nothing trained on it"
    click.echo(f"{out}: {len(table.prompt_ids)} prompts x {len(table.candidates)} candidates; licence {licence}")


@data.command()
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write.")
@click.option("--seed", type=int, help="Another seed is another sample; default: that of the committed one.")
@click.option("--n-prompts", type=click.IntRange(min=1), help="Default: as many as the committed one.")
def sample(out: Path, seed: int | None, n_prompts: int | None) -> None:
    """Make the sample: prompts from templates, outcomes simulated from a known law."""
    from routing_data.sample import N_PROMPTS, SEED, write_sample

    place = write_sample(out, SEED if seed is None else seed, n_prompts or N_PROMPTS)
    click.echo(f"{place}: {n_prompts or N_PROMPTS} prompts; {_SIMULATED}")


def _or_exit(work: Callable[[], T]) -> T:
    from routing_data import DataError

    try:
        return work()
    except (DataError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _show(description: Description, console: Console) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    if description.simulated:
        console.print(f"[bold]{_SIMULATED}[/bold]: they say nothing about any real LLM.")
    console.print(
        f"{description.n_prompts} prompts in {description.n_groups} groups, "
        f"{len(description.candidates)} candidates, {description.share_observed:.1%} observed"
    )
    for source in description.sources:
        licence = source.licence or "not stated"
        console.print(f"  {escape(source.name)}: {source.n_prompts} prompts, licence {escape(licence)}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("candidate", overflow="fold", min_width=20)
    for heading in ("observed", "quality", "USD/call", "tokens", "USD/M in, out", "hull"):
        table.add_column(heading, justify="right")
    for one in sorted(description.candidates, key=lambda c: (c.cost_usd is None, -(c.cost_usd or 0.0))):
        table.add_row(
            escape(one.name),
            str(one.n_observed),
            _number(one.quality, ".4f"),
            _number(one.cost_usd, ".3g"),
            _number(one.output_tokens, ".0f"),
            "unknown" if one.prices is None else " / ".join(format(price, ".3g") for price in one.prices),
            "yes" if one.on_hull else "",
        )
    console.print(table)
    for label, point in (("best single", description.best_single), ("oracle", description.oracle)):
        if point is not None:
            name = f" {escape(point.name)}" if point.name != label else ""
            cost = _number(point.cost_usd, ".3g")
            console.print(f"{label}{name}: quality {point.quality:.4f} at {cost} USD per call")
    console.print(f"hull: {' - '.join(escape(point.name) for point in description.hull) or 'no costs known'}")
    tasks = ", ".join(f"{escape(task)} {count}" for task, count in description.tasks[:20])
    more = f" and {len(description.tasks) - 20} more" if len(description.tasks) > 20 else ""
    console.print(f"tasks: {tasks}{more}")


def _number(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)
