"""The commands ``turnout retrain`` and ``turnout gates``: options in, the table of gates out.

Exit codes: 0 all gates passed, or nothing to do; 1 an error; 3 the challenger was refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from training.command_errors import errors
from training.since import Since, read_since

if TYPE_CHECKING:
    from training.gate_results import GateResult
    from training.retrain import Retrained
    from training.retrain_settings import Retraining
    from training.versions import Store

EXIT_REFUSED = 3
_POLL_S = 60.0
_PATH, _FOLDER = click.Path(path_type=Path), click.Path(file_okay=False, path_type=Path)
_Once = Callable[[Path, bool], bool]


@click.command()
@click.option("--champion", required=True, type=_PATH, help="The bundle that serves; a link to it will do.")
@click.option("--out", required=True, type=_PATH, help="models/NAME/VERSION; with --watch models/NAME.")
@click.option("--log", type=_PATH, help="What 'turnout log export' made.")
@click.option("--data", "tables", multiple=True, type=_PATH, help="Labelled table; may be given again.")
@click.option("--config", type=_PATH, help="TOML: that of 'turnout train', with [retrain], [feedback], [gates].")
@click.option("--encoder", type=click.Choice(["new", "champion"]), help="Over the configuration's.")
@click.option("--since", callback=read_since, metavar="WHEN", help="Only votes from then on: 30d, or a UTC date.")
@click.option("--min-new-labels", type=click.IntRange(min=0), help="Do nothing below so many new votes.")
@click.option("--strict", is_flag=True, help="No key above its share of the feedback, even where keys are few.")
@click.option("--overwrite", is_flag=True, help="Replace the bundle that is there.")
@click.option("--tracking-uri", help="MLflow store. Default: MLFLOW_TRACKING_URI, or a SQLite file in mlruns/.")
@click.option("--name", default="turnout", show_default=True, help="Of the registered model.")
@click.option("--directory", type=_FOLDER, help="Keep versions in this folder, without MLflow.")
@click.option("--no-tracking", is_flag=True, help="Register nowhere.")
@click.option("--watch", "is_watching", is_flag=True, help="Stay, and retrain when a trigger says so.")
@click.option("--when-new-labels", type=click.IntRange(min=1), help="Trigger of --watch.")
@click.option("--every", metavar="DURATION", help="Trigger of --watch, as in 24h.")
def retrain(
    champion: Path,
    out: Path,
    log: Path | None,
    tables: tuple[Path, ...],
    config: Path | None,
    encoder: str | None,
    since: Since | None,
    min_new_labels: int | None,
    strict: bool,
    overwrite: bool,
    tracking_uri: str | None,
    name: str,
    directory: Path | None,
    no_tracking: bool,
    is_watching: bool,
    when_new_labels: int | None,
    every: str | None,
) -> None:
    """Make a challenger from feedback and labels, and put it through the gates against the champion."""
    if log is None and not tables:
        raise click.UsageError("give --log, --data or both")
    if is_watching and (log is None or (when_new_labels is None and every is None)):
        raise click.UsageError("--watch needs --log and a trigger: --when-new-labels, --every or both")
    if not is_watching and (when_new_labels is not None or every is not None):
        raise click.UsageError("--when-new-labels and --every are triggers of --watch")
    with errors():
        from training.retrain_settings import read_retrain_settings
        from training.triggers import seconds_of

        settings = _over(read_retrain_settings(config), encoder, min_new_labels, strict)
        every_s = None if every is None else seconds_of(every)

        def once(target: Path, replacing: bool) -> bool:
            done = _run(champion, target, settings, tables, log, _since_unix_s(since), replacing)
            _show(done)
            if not no_tracking:
                click.echo(_registered(done, tracking_uri, directory, name))
            return done.is_passed

        if is_watching:
            assert log is not None
            _watch(champion, out, log, when_new_labels, every_s, once)
            return
        if log is not None and settings.retrain.min_new_labels:
            n_new = _n_new(log, champion)
            if n_new < settings.retrain.min_new_labels:
                click.echo(f"{n_new:,} new votes; {settings.retrain.min_new_labels:,} are wanted: nothing done")
                return
        passed = once(out, overwrite)
    if not passed:
        raise click.exceptions.Exit(EXIT_REFUSED)


@click.command()
@click.option("--champion", required=True, type=_PATH, help="The bundle that serves; a link to it will do.")
@click.option("--bundle", required=True, type=_PATH, help="The challenger. Its report is written anew beside it.")
@click.option("--log", type=_PATH, help="What 'turnout log export' made.")
@click.option("--data", "tables", multiple=True, type=_PATH, help="Labelled table; may be given again.")
@click.option("--config", type=_PATH, help="TOML: as of 'turnout retrain'.")
@click.option("--since", callback=read_since, metavar="WHEN", help="Only votes from then on: 30d, or a UTC date.")
@click.option("--tracking-uri", help="MLflow store. Default: MLFLOW_TRACKING_URI, or a SQLite file in mlruns/.")
@click.option("--name", default="turnout", show_default=True, help="Of the registered model.")
@click.option("--directory", type=_FOLDER, help="Keep versions in this folder, without MLflow.")
@click.option("--no-tracking", is_flag=True, help="Register nowhere.")
def gates(
    champion: Path,
    bundle: Path,
    log: Path | None,
    tables: tuple[Path, ...],
    config: Path | None,
    since: Since | None,
    tracking_uri: str | None,
    name: str,
    directory: Path | None,
    no_tracking: bool,
) -> None:
    """Put a bundle through the gates again, when the champion is another; nothing is trained.

    Give it the data of its own training: what it held out judges it.
    """
    if log is None and not tables:
        raise click.UsageError("give --log, --data or both")
    with errors():
        from training.retrain import judge_again
        from training.retrain_settings import read_retrain_settings

        settings = read_retrain_settings(config)
        since_unix_s = _since_unix_s(since)
        done = judge_again(
            champion, bundle, settings, tables=tables, log=log, since_unix_s=since_unix_s, tell=_tell_stage
        )
        _show(done)
        if not no_tracking:
            click.echo(_registered(done, tracking_uri, directory, name))
    if not done.is_passed:
        raise click.exceptions.Exit(EXIT_REFUSED)


def _since_unix_s(since: Since | None) -> float:
    return 0.0 if since is None else since.at(time.time())


def _tell_stage(stage: str) -> None:
    click.echo(f"{stage} …", err=True)


def _over(settings: Retraining, encoder: str | None, min_new_labels: int | None, strict: bool) -> Retraining:
    """Put options over the file's settings."""
    from dataclasses import replace

    chosen = settings.retrain
    chosen = chosen if encoder is None else replace(chosen, encoder=encoder)
    chosen = chosen if min_new_labels is None else replace(chosen, min_new_labels=min_new_labels)
    feedback = replace(settings.feedback, is_strict=settings.feedback.is_strict or strict)
    return replace(settings, retrain=chosen, feedback=feedback)


def _run(
    champion: Path,
    out: Path,
    settings: Retraining,
    tables: Sequence[Path],
    log: Path | None,
    since_unix_s: float,
    overwrite: bool,
) -> Retrained:
    from training.retrain import retrain as run

    return run(
        champion,
        out,
        settings,
        tables=tables,
        log=log,
        since_unix_s=since_unix_s,
        overwrite=overwrite,
        tell=_tell_stage,
    )


def _n_new(log: Path, champion: Path) -> int:
    from router.bundle import load
    from training.retrain import n_new_votes

    return n_new_votes(log, load(champion))


def _watch(champion: Path, out: Path, log: Path, new_votes: int | None, every_s: float | None, once: _Once) -> None:
    from router.errors import RouterError
    from routing_data import DataError
    from training.errors import TrainingError
    from training.triggers import Triggers, watch

    def count() -> int:
        try:
            return _n_new(log, champion)
        except (RouterError, TrainingError, OSError) as exc:  # an export or a swap under way; the next look may do
            click.echo(f"cannot look: {exc}", err=True)
            return 0

    def run(why: str) -> None:
        click.echo(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC: {why}")
        try:
            once(out / f"{datetime.now(UTC):%Y.%m.%d-%H%M%S}", False)
        except (RouterError, DataError, TrainingError, OSError) as exc:  # the champion serves on; so does the watch
            click.echo(f"no challenger: {exc}", err=True)

    triggers = Triggers(new_votes, every_s)
    watch(triggers, count, run, now=time.monotonic, sleep=time.sleep, poll_s=_POLL_S)


def _registered(done: Retrained, tracking_uri: str | None, directory: Path | None, name: str) -> str:
    """Put the challenger into a store; what took minutes is not lost where that fails."""
    from training.errors import TrainingError
    from training.gate_results import GATES_FILE

    try:
        return _register(done, tracking_uri, directory, name)
    except TrainingError as exc:
        bundle, gates_file = done.trained.directory, done.report / GATES_FILE
        raise TrainingError(
            f"{exc}. The challenger is written: 'turnout promote --bundle {bundle} --gates {gates_file}' registers and "
            "promotes it"
        ) from exc


def _register(done: Retrained, tracking_uri: str | None, directory: Path | None, name: str) -> str:
    """Put the challenger into a store; return what to tell."""
    from training.promotion import objection

    rows: list[Mapping[str, object]] = [asdict(gate) for gate in done.verdict.gates]
    bundle, opponent = done.trained.directory, done.verdict.opponent
    store: Store
    if directory is not None:
        from training.directory_store import DirectoryStore

        store = DirectoryStore(directory)
        kept = store.register(bundle, rows, opponent=opponent)
        told = f"kept as {kept.version} in {directory}"
    else:
        from training.registry import MlflowStore

        store = MlflowStore(tracking_uri, name)
        kept = store.register(bundle, rows, done.metrics, done.report, opponent=opponent)
        told = f"registered as version {kept.version} of {name}, MLflow run {kept.run_id}"
    problem = objection(store, store.version(kept.version)) if done.is_passed else None
    return told + (f"; it cannot be promoted as it is: {problem}" if problem else "")


def _show(done: Retrained) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if done.trained.report["simulated"]:
        console.print("[bold yellow]outcomes are SIMULATED: good for trying the program, not for judging models[/]")
    used = done.counts
    console.print(
        f"{used.get('n_labelled', 0):,} labelled prompts, {used.get('n_votes_used', 0):,} of "
        f"{used.get('n_votes', 0):,} votes on {used.get('n_logged', 0):,} prompts",
        highlight=False,
    )
    table = Table(title=f"{done.trained.manifest.id} against {done.trained.report['champion']}")
    for heading, justify in (("gate", "left"), ("", "left"), ("measured", "right"), ("bound", "right"), ("", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for gate in _shown(done.verdict.gates):
        mark = "[green]passed[/]" if gate.is_passed else "[bold red]REFUSED[/]"
        measured, bound = ("–" if value is None else f"{value:.4g}" for value in (gate.measured, gate.bound))
        table.add_row(gate.name, mark, measured, bound, gate.reason)
    console.print(table)
    failed = [gate.name for gate in done.verdict.failed]
    verdict = f"refused by {', '.join(failed)}" if failed else f"all {len(done.verdict.gates)} gates passed"
    console.print(f"{verdict}; the report is in {done.report}", highlight=False)


def _shown(gates: Sequence[GateResult]) -> list[GateResult]:
    """Put refusals first, and of passed gates that ask the same of many slices or candidates the nearest alone."""
    from dataclasses import replace

    shown = [gate for gate in gates if not gate.is_passed]
    for family, words in (("loss in ", "slices"), ("loss of ", "candidates")):
        passed = [gate for gate in gates if gate.is_passed and gate.name.startswith(family)]
        if passed:
            nearest = max(passed, key=lambda gate: float("-inf") if gate.measured is None else gate.measured)
            words = f"nearest of {len(passed)} {words}: {nearest.reason}" if len(passed) > 1 else nearest.reason
            shown.append(replace(nearest, reason=words))
    others = [g for g in gates if g.is_passed and not g.name.startswith(("loss in ", "loss of "))]
    return [*shown, *others]
