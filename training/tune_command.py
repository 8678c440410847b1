"""``turnout tune``: from a decision log to a proposal, an experiment, its read-out and its promotion.

Options in, words out; the work is in :mod:`training.tune`, :mod:`training.readout` and
:mod:`training.experiment_client`. Everything heavy is imported inside the command.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from training.command_errors import errors
from training.since import Since, read_since

if TYPE_CHECKING:
    from rich.table import Table

    from training.ope import Estimate
    from training.quality_source import QualitySource
    from training.readout import Readout
    from training.replay import Replay
    from training.tune import Stop, Tuning, Wish

_ROWS = 9
_LEAST_AGREEMENT = 0.95
_PATH = click.Path(path_type=Path)
_PROPOSED, _CONTROL = "proposed", "control"
_GUARDS: tuple[Mapping[str, object], ...] = (
    {"metric": "failures", "worse_by": 0.02},
    {"metric": "quality", "worse_by": 0.05},
)


@click.command()
@click.option("--log", "log_path", type=_PATH, help="What 'turnout log export' made.")
@click.option("--quality", type=click.FloatRange(0, 1), help="Wanted: this mean quality at the least cost.")
@click.option("--usd-per-1000", type=click.FloatRange(0, min_open=True), help="Wanted: the best quality for this.")
@click.option("--on", default="auto", show_default=True, help="Which requests: auto, auto:PRESET or scenario:NAME.")
@click.option(
    "--kind",
    type=click.Choice(["threshold", "willingness_to_pay_usd"]),
    default="threshold",
    show_default=True,
    help="Of setting.",
)
@click.option(
    "--by",
    type=click.Choice(["feedback", "labels", "predictions"]),
    help="Where quality comes from. Default: labels with --data, else feedback.",
)
@click.option("--data", multiple=True, type=_PATH, help="Labelled table for --by labels; may be given again.")
@click.option("--bundle", "bundle_path", type=_PATH, help="Folder of the logged bundle, for --by labels.")
@click.option("--since", callback=read_since, metavar="WHEN", help="Only requests from then on: 30d, or a UTC date.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--start", metavar="NAME", help="Begin an experiment of this name: control against the proposal.")
@click.option(
    "--unit",
    type=click.Choice(["key", "user", "conversation"]),
    default="key",
    show_default=True,
    help="What stays with its arm.",
)
@click.option("--share", type=click.FloatRange(0, 1, True, True), default=0.5, show_default=True, help="Proposal's.")
@click.option("--read", "read_name", metavar="NAME", help="Read an experiment out of the log.")
@click.option("--plot", type=_PATH, help="With --read: the confidence sequences as PNG. Default: NAME.png.")
@click.option("--promote", "promote_name", metavar="NAME", help="Give everything to one arm of an experiment.")
@click.option("--arm", help="With --promote.")
@click.option("--yes", is_flag=True, help="Ask nothing.")
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, metavar="URL", help="Of the gateway.")
@click.option("--key-env", metavar="VAR", help="Environment variable that holds a key with admin = true.")
def tune(
    log_path: Path | None,
    quality: float | None,
    usd_per_1000: float | None,
    on: str,
    kind: str,
    by: str | None,
    data: tuple[Path, ...],
    bundle_path: Path | None,
    since: Since | None,
    as_json: bool,
    start: str | None,
    unit: str,
    share: float,
    read_name: str | None,
    plot: Path | None,
    promote_name: str | None,
    arm: str | None,
    yes: bool,
    url: str,
    key_env: str | None,
) -> None:
    """Propose a setting from the log, try it in an experiment, read that out, promote it.

    Four steps, each a call: --quality Q or --usd-per-1000 B proposes, and with --start NAME begins an experiment;
    --read NAME reads it out; --promote NAME --arm ARM ends it.
    """
    wishes = (quality is not None) + (usd_per_1000 is not None)
    if wishes + (read_name is not None) + (promote_name is not None) != 1:
        raise click.UsageError("give one of --quality, --usd-per-1000, --read and --promote")
    if promote_name is None and log_path is None:
        raise click.UsageError("give --log, the folder that 'turnout log export' wrote")
    if start is not None and not wishes:
        raise click.UsageError("--start goes with --quality or --usd-per-1000")
    with errors():
        if promote_name is not None:
            _promote(promote_name, arm, yes, url, key_env)
        elif read_name is not None:
            assert log_path is not None
            _read(log_path, read_name, plot, as_json)
        else:
            from training.tune import Wish

            assert log_path is not None
            replay = _replay(log_path, on, since)
            source = _source(replay, log_path, by or ("labels" if data else "feedback"), data, bundle_path)
            found = _propose(replay, source, Wish(quality, usd_per_1000), kind, unit, as_json)
            if start is not None:
                _start(start, found.proposal, on, unit, share, yes, url, key_env)


def _replay(log_path: Path, on: str, since: Since | None) -> Replay:
    from training.decision_log import DecisionLog
    from training.replay import read_replay

    with DecisionLog(log_path) as log:
        return read_replay(log, on=on, since_unix_s=None if since is None else since.at(time.time()))


def _source(replay: Replay, log_path: Path, by: str, data: tuple[Path, ...], bundle_path: Path | None) -> QualitySource:
    from training.decision_log import DecisionLog
    from training.quality_source import Feedback, Labels, Predicted

    if by == "predictions":
        return Predicted(replay)
    if by == "feedback":
        with DecisionLog(log_path) as log:
            return Feedback(replay, log.feedback(["request_id", "score", "source"]))
    if not data or bundle_path is None:
        raise click.UsageError("--by labels needs --data and --bundle")
    from router.bundle import load
    from training.errors import NotEnoughData
    from training.measure import rows_of, usable
    from training.pipeline import load as load_tables

    bundle = load(bundle_path)
    if bundle.manifest.id != replay.bundle:
        raise NotEnoughData(f"{bundle_path} is {bundle.manifest.id}, and the log was decided by {replay.bundle}")
    table, _, _ = usable(bundle, load_tables(data))
    return Labels(rows_of(bundle, table), replay.candidates)


def _propose(replay: Replay, source: QualitySource, wish: Wish, kind: str, unit: str, as_json: bool) -> Tuning:
    from rich.console import Console

    from training.tune import tune as propose
    from training.tune import units_to_show

    found = propose(replay, source, wish, kind)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
        return found
    console = Console()
    console.print(f"{found.n_requests:,} requests replayed, {found.n_left_out:,} left out; quality: {found.source}")
    if found.agreement is not None and found.agreement < _LEAST_AGREEMENT:
        console.print(
            f"[yellow]the logged policy, replayed, gives {found.agreement:.0%} of the logged choices: limits of "
            "requests, anchors and latencies are not replayed[/yellow]"
        )
    console.print(_stops(found))
    best = found.proposal
    console.print(
        f"proposal: [bold]{best.policy.kind} = {best.policy.value:g}[/bold]; {best.changed_share:.0%} of the decisions "
        f"change; USD per 1,000 requests {_usd(best.cost_usd)}, that is {_usd(best.cost_change_usd, signed=True)} "
        f"against what was decided; the best of {len(found.stops)} stops, so a little flattered: try it with --start"
    )
    if needed := units_to_show(replay, best, unit):
        least = f"{needed:,} keys" if unit == "key" else f"at least {needed:,} {unit}s"
        console.print(f"an experiment shows that change of cost with about {least} in both arms together")
    return found


def _stops(found: Tuning) -> Table:
    table = _table("stops near the proposal, with 95 % intervals", "stop", "USD per 1,000", "", "quality", "changed")
    at = found.stops.index(found.proposal)
    near = range(max(0, at - _ROWS // 2), min(len(found.stops), at + _ROWS // 2 + 1))
    for i in near:
        stop = found.stops[i]
        name = f"[bold]{stop.policy.value:g}[/bold]" if i == at else f"{stop.policy.value:g}"
        table.add_row(
            name,
            _usd(stop.cost_usd),
            f"{stop.cost_change_usd.value / found.cost_usd.value:+.0%}" if found.cost_usd.value else "",
            "no overlap" if stop.quality is None else _share(stop.quality),
            f"{stop.changed_share:.0%}",
        )
    return table


def _table(title: str, *headings: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left", no_wrap=True)
    return table


def _usd(estimate: Estimate, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{1000 * estimate.value:{sign}.3g} ({1000 * estimate.low:.3g} to {1000 * estimate.high:.3g})"


def _share(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def _start(name: str, best: Stop, on: str, unit: str, share: float, yes: bool, url: str, key_env: str | None) -> None:
    definition = definition_of(name, best, on, unit, share)
    if not yes:
        click.confirm(f"begin {name} on {on}, {share:.0%} of the {unit}s by the proposal?", abort=True)
    said = _client(url, key_env).create(definition)
    click.echo(f"{said.get('name', name)} runs; 'turnout experiment status {name}' says how it goes")


def definition_of(name: str, best: Stop, on: str, unit: str, share: float) -> dict[str, Any]:
    """Write the experiment that tries a proposal, as ``POST /v1/experiments`` takes it."""
    return {
        "name": name,
        "on": on,
        "unit": unit,
        "metric": "cost_usd",
        "arms": [
            {"name": _CONTROL, "share": round(1 - share, 6)},
            {"name": _PROPOSED, "share": round(share, 6), best.policy.kind: best.policy.value},
        ],
        "guards": [dict(guard) for guard in _GUARDS],
    }


def _read(log_path: Path, name: str, plot: Path | None, as_json: bool) -> None:
    from rich.console import Console

    from training.decision_log import DecisionLog
    from training.readout import read_out
    from training.readout_plot import plotted

    with DecisionLog(log_path) as log:
        found = read_out(log, name)
    path = plot or Path(f"{name}.png")
    path.write_bytes(plotted(found))
    if as_json:
        click.echo(json.dumps(_last_look(found), indent=2))
        return
    console = Console()
    units = ", ".join(f"{arm} {n:,}" for arm, n in found.n_units_of.items())
    console.print(f"{name}: units {units}; differences to {found.control}")
    ratio = found.sample_ratio
    if ratio is not None and ratio.p_value < _SUSPICIOUS:
        console.print(
            f"[bold red]units did not come to the arms in the shares meant (p = {ratio.p_value:.2g}): trust none of "
            "these figures[/bold red]"
        )
    console.print(_differences(found))
    console.print(f"{path}: the sequences over time")


_SUSPICIOUS = 0.001


def _last_look(found: Readout) -> dict[str, Any]:
    rows = []
    for trace in found.traces:
        row: dict[str, Any] = {"arm": trace.arm, "metric": trace.metric, "says": trace.says}
        for prefix, part in (("", trace.difference), ("relative_", trace.relative)):
            for field in ("value", "low", "high"):
                number = float(getattr(part, field)[-1])
                row[prefix + field] = number if abs(number) < float("inf") else None
        rows.append(row)
    ratio = None if found.sample_ratio is None else found.sample_ratio.p_value
    return {
        "experiment": found.name,
        "control": found.control,
        "alpha": found.alpha,
        "n_units": dict(found.n_units_of),
        "sample_ratio_p_value": ratio,
        "differences": rows,
    }


def _differences(found: Readout) -> Table:
    from training.readout import RELATIVE

    title = f"{1 - found.alpha:.0%} confidence sequences: they hold at every look"
    table = _table(title, "metric", "arm", "difference", "says")
    for row in _last_look(found)["differences"]:
        is_relative = row["metric"] in RELATIVE
        shown = [row[("relative_" if is_relative else "") + field] for field in ("value", "low", "high")]
        form = "{:+.1%} ({:.1%} to {:.1%})" if is_relative else "{:+.3f} ({:.3f} to {:.3f})"
        table.add_row(row["metric"], row["arm"], "" if None in shown else form.format(*shown), row["says"])
    return table


def _promote(name: str, arm: str | None, yes: bool, url: str, key_env: str | None) -> None:
    if arm is None:
        raise click.UsageError("--promote needs --arm")
    if not yes:
        click.confirm(f"give everything that {name} acts on to {arm}?", abort=True)
    said = _client(url, key_env).promote(name, arm)
    click.echo(f"{name}: {arm} gets everything from now on")
    if lines := said.get("permanent"):
        click.echo(f"to make it permanent, write\n{lines}")


def _client(url: str, key_env: str | None) -> Any:
    from training.experiment_client import Experiments
    from training.settings import gateway_key

    return Experiments(url, gateway_key(key_env))
