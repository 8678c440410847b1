"""The commands that need nothing but the router: ``turnout route`` and ``turnout bundle``."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import click

from router.decision import Decision
from router.domain import Constraints, Policy
from router.errors import RouterError


def _default_bundle() -> Path:
    """Find the shipped bundle: below the current folder, else beside the installed source."""
    here = Path("models/default")
    return here if here.is_dir() else Path(__file__).resolve().parent.parent / "models" / "default"


@click.command()
@click.argument("prompt")
@click.option("--bundle", "directory", type=click.Path(path_type=Path), help="Default: models/default.")
@click.option("--preset", help="quality, balanced, price, latency, or one the bundle defines. Default: balanced.")
@click.option("--threshold", type=float, help="Cheapest candidate predicted to reach this quality, in [0, 1].")
@click.option("--willingness-to-pay-usd", type=float, help="USD that one whole unit of quality is worth.")
@click.option("--quality-per-usd", type=float, help="Most quality per USD above this floor, in [0, 1].")
@click.option("--max-cost-usd", type=float, help="Upper bound on the expected cost of the call.")
@click.option("--allow", multiple=True, help="Glob on candidate names; may be given again.")
@click.option("--deny", multiple=True, help="Glob on candidate names; may be given again; wins over --allow.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole decision as JSON.")
def route(
    prompt: str,
    directory: Path | None,
    preset: str | None,
    threshold: float | None,
    willingness_to_pay_usd: float | None,
    quality_per_usd: float | None,
    max_cost_usd: float | None,
    allow: tuple[str, ...],
    deny: tuple[str, ...],
    as_json: bool,
) -> None:
    """Decide who should answer PROMPT ('-' reads standard input), at the bundle's reference prices."""
    from router.routing import Router

    dials = {
        "threshold": threshold,
        "willingness_to_pay_usd": willingness_to_pay_usd,
        "quality_per_usd": quality_per_usd,
    }
    given = [Policy(kind, value) for kind, value in dials.items() if value is not None]
    if len(given) + (preset is not None) > 1:
        raise click.UsageError("give at most one of --preset, --threshold, --willingness-to-pay-usd, --quality-per-usd")
    text = sys.stdin.read() if prompt == "-" else prompt
    if not text.strip():
        raise click.UsageError("PROMPT must hold some text, got only white space")
    try:
        router = Router.load(directory or _default_bundle())
        decision = router.route(text, given[0] if given else preset, Constraints(allow, deny, max_cost_usd))
    except RouterError as exc:
        raise click.ClickException(str(exc)) from exc
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(decision.explain()), ensure_ascii=False, indent=2))
    else:
        show(decision)


@click.group()
def bundle() -> None:
    """Look at bundles."""


@bundle.command()
@click.argument("directory", type=click.Path(path_type=Path))
def verify(directory: Path) -> None:
    """Check every hash and dimension of the bundle in DIRECTORY and run its self-test."""
    from router.bundle import load

    try:
        manifest = load(directory).manifest
    except RouterError as exc:
        raise click.ClickException(f"{type(exc).__name__}: {exc}") from exc
    n_bytes = sum(entry.n_bytes for entry in manifest.files.values())
    click.echo(
        f"{manifest.id}: {len(manifest.candidates)} candidates, {manifest.encoder_tier} encoder, "
        f"{len(manifest.files)} files, {n_bytes / 1e6:.1f} MB; every hash matches, the self-test passes"
    )


def show(decision: Decision) -> None:
    """Print a decision as a table for a person."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    policy = decision.policy
    name = f"{policy.name} = " if policy.name else ""
    console.print(f"[bold]{decision.candidate}[/bold]: {decision.reason}", highlight=False)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("candidate", no_wrap=True)
    for heading in ("quality", "90 %", "cost", "p90"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    rank = {candidate: i for i, candidate in enumerate(decision.ranking)}
    for f in sorted(decision.forecasts, key=lambda f: rank.get(f.candidate, len(rank))):
        is_choice = f.candidate == decision.candidate
        known_interval = f.quality_low is not None and f.quality_high is not None
        table.add_row(
            f"{f.candidate} (like {f.like})" if f.like else f.candidate,
            _number(f.quality, ".3f"),
            f"{f.quality_low:.2f}–{f.quality_high:.2f}" if known_interval else "?",
            _number(f.cost_usd, ".3f", 1_000),
            _number(f.cost_usd_p90, ".3f", 1_000),
            "chosen" if is_choice else f.excluded_by or ("dominated" if f.is_dominated else ""),
            style="bold" if is_choice else None,
        )
    console.print(table)
    console.print(
        f"cost in USD per 1,000 such calls; {name}{policy.kind} {policy.value:g}; bundle {decision.bundle}",
        highlight=False,
    )
    for other in decision.counterfactuals:
        if other.candidate != decision.candidate and other.cost_change is not None:
            console.print(
                f"  at threshold {other.threshold:.3f}: {other.candidate}, {other.cost_change:+.0%} cost",
                highlight=False,
            )


def _number(value: float | None, form: str, times: float = 1) -> str:
    return "?" if value is None else format(times * value, form)
