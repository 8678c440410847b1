"""The commands about versions: ``turnout promote``, ``turnout rollback`` and ``turnout sync``.

``promote`` and ``rollback`` work on MLflow's registry or, with ``--directory``, on a plain folder.
Exit codes of ``promote``: 0 done, 1 not done, 3 refused by the gates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from training.command_errors import errors

if TYPE_CHECKING:
    from training.gate_results import Verdict
    from training.versions import Store

EXIT_REFUSED = 3


def _store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--name", default="turnout", show_default=True, help="Of the registered model."),
        click.option(
            "--directory",
            type=click.Path(file_okay=False, path_type=Path),
            help="A folder of versions, without MLflow.",
        ),
        click.option("--tracking-uri", help="MLflow store. Default: MLFLOW_TRACKING_URI, or a SQLite file in mlruns/."),
        click.option("--by", help="Who answers for it. Default: the user logged in."),
    ):
        command = option(command)
    return command


@click.command()
@click.option("--version", "number", help="A version's number; in a directory its NAME@VERSION.")
@click.option("--challenger", is_flag=True, help="The version that waits; also the default.")
@click.option(
    "--bundle",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Register this bundle first: the first champion, or one made elsewhere.",
)
@click.option(
    "--gates",
    "gates_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What judged --bundle: gates.json of its report. Without it no gate was judged.",
)
@click.option("--auto", "is_auto", is_flag=True, help="Do not ask: promote if every gate passed.")
@click.option("--yes", "is_approved", is_flag=True, help="Do not ask: whoever --by names has approved it.")
@click.option("--force", metavar="REASON", help="Why what the gates found, or did not, shall not count; is kept.")
@_store_options
def promote(
    number: str | None,
    challenger: bool,
    bundle: Path | None,
    gates_file: Path | None,
    is_auto: bool,
    is_approved: bool,
    force: str | None,
    by: str | None,
    tracking_uri: str | None,
    directory: Path | None,
    name: str,
) -> None:
    """Make a version the champion, after its gates and a person have agreed."""
    if sum((number is not None, challenger, bundle is not None)) > 1:
        raise click.UsageError("give one of --version, --challenger and --bundle")
    if gates_file is not None and bundle is None:
        raise click.UsageError("--gates needs --bundle: a version in a store has its own")
    if is_auto and (force or is_approved):
        raise click.UsageError("--auto asks only the gates; give it without --force and --yes")
    if is_approved and by is None:
        raise click.UsageError("--yes needs --by: who has approved it")
    from training.promotion import objection
    from training.promotion import promote as run
    from training.versions import CHALLENGER

    with errors():
        store = _store(tracking_uri, directory, name)
        wanted = number or CHALLENGER
        if bundle is not None:
            told = _judged(bundle, gates_file)
            rows = [asdict(gate) for gate in told.gates]
            wanted = store.register(bundle, rows, opponent=told.opponent, as_challenger=False).version
        version = store.version(wanted)
        verdict, former = store.verdict(version), store.aliases().get("champion")
        _show(verdict, f"{version.identity.bundle}, version {version.number} of {store.where}")
        problem = objection(store, version)
        if problem and not force:
            click.echo(f"refused: {problem}. To promote it all the same: --force REASON", err=True)
            raise click.exceptions.Exit(EXIT_REFUSED)
        who = by or ("auto" if is_auto else _user())
        if not (is_auto or is_approved):
            instead = f" in the place of version {former}" if former else ""
            against = f", although {problem}" if problem else ""
            click.confirm(f"Promote {version.identity.bundle} to champion{instead}{against}?", abort=True)
        change = run(store, version.number, approved_by=who, is_auto=is_auto, force=force)
    before = f"; before: version {change.former}" if change.former else ""
    click.echo(f"champion is {change.bundle} (version {change.version}), by {change.by}{before}")


@click.command()
@click.option("--reason", help="Why; is kept.")
@_store_options
def rollback(reason: str | None, by: str | None, tracking_uri: str | None, directory: Path | None, name: str) -> None:
    """Make the previous champion champion again. It asks nothing, and goes back once."""
    from training.promotion import rollback as run

    with errors():
        change = run(_store(tracking_uri, directory, name), by=by or _user(), reason=reason)
    click.echo(f"champion is {change.bundle} (version {change.version}) again; withdrawn: version {change.former}")


@click.command()
@click.option("--tracking-uri", help="MLflow store. Default: MLFLOW_TRACKING_URI, or a SQLite file in mlruns/.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="What gateways follow.")
@click.option(
    "--every", "every_s", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True, help="Seconds."
)
@click.option(
    "--keep", "n_kept", type=click.IntRange(min=0), default=10, show_default=True, help="Versions besides those linked."
)
@click.option("--once", is_flag=True, help="Look once; exit code 1 when something went wrong.")
@click.option("--name", default="turnout", show_default=True, help="Of the registered model.")
def sync(tracking_uri: str | None, out: Path, every_s: float, n_kept: int, once: bool, name: str) -> None:
    """Keep OUT/champion and OUT/challenger what MLflow's aliases say; serving watches OUT, never MLflow."""
    import signal
    import threading

    from training.sync import Sync

    with errors():
        following = Sync(_store(tracking_uri, None, name), out, click.echo, n_kept=n_kept)
        if once:
            raise click.exceptions.Exit(0 if following.look() else 1)
        is_over = threading.Event()
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = [signal.signal(number, lambda *_: is_over.set()) for number in numbers]
        try:
            following.run(every_s, is_over.wait)
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


def _store(tracking_uri: str | None, directory: Path | None, name: str) -> Store:
    if directory is None:
        from training.registry import MlflowStore

        return MlflowStore(tracking_uri, name)
    if tracking_uri is not None:
        raise click.UsageError("give --tracking-uri or --directory, not both")
    from training.directory_store import DirectoryStore

    return DirectoryStore(directory)


def _judged(bundle: Path, gates_file: Path | None) -> Verdict:
    """Return the gates of a file, which must be about this very bundle."""
    from training.gate_results import Verdict, read_gates
    from training.versions import identity_of

    if gates_file is None:
        return Verdict()
    identity = identity_of(bundle)
    return read_gates(gates_file.read_bytes(), identity.bundle, identity.manifest_sha256)


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError) as exc:
        raise click.UsageError("this system does not say who you are: give --by") from exc


def _show(verdict: Verdict, title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    against = f", judged against {verdict.opponent.bundle}" if verdict.opponent else ""
    table = Table(title=f"{title}{against}")
    for heading in ("gate", "", "measured", "bound", "reason"):
        table.add_column(heading, justify="right" if heading in ("measured", "bound") else "left")
    for gate in verdict.gates:
        shown = (gate.measured, gate.bound)
        numbers = ("" if number is None else f"{number:.4g}" for number in shown)
        mark = "[green]passed[/green]" if gate.is_passed else "[bold red]FAILED[/bold red]"
        table.add_row(gate.name, mark, *numbers, gate.reason)
    if not verdict.gates:
        table.add_row("none judged", "", "", "", "")
    Console().print(table)
