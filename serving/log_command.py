"""``turnout log``: the decision log as files for notebooks and reports, and how much there is of it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click


@click.group()
def log() -> None:
    """Take the decision log out of a gateway's database."""


def _place(config: Path | None, database: Path | None) -> Path:
    """Return the database that was named, or that of a config."""
    from serving.errors import GatewayError
    from serving.settings import load

    if database is not None:
        return database
    try:
        found = load(config).database_path()
    except GatewayError as error:
        raise click.ClickException(str(error)) from error
    if found is None:
        raise click.ClickException("server.database is empty, so no request is recorded: name a file there")
    return found


_CONFIG = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Whose server.database it is; without one, the demo config's.",
)
_DATABASE = click.option(
    "--database", type=click.Path(dir_okay=False, path_type=Path), help="The file itself, in the place of --config."
)


@log.command()
@_CONFIG
@_DATABASE
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="The folder of the log.")
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), help="First day (UTC) to look at; default: all.")
@click.option("--without-content", is_flag=True, help="Leave the texts of prompts out.")
def export(
    config: Path | None, database: Path | None, out: Path, since: datetime | None, without_content: bool
) -> None:
    """Write the log as Parquet, by UTC day; of a log that is there, only the days that have changed.

    The gateway may run meanwhile.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from serving.errors import GatewayError
    from serving.log_export import export as write

    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise click.ClickException("writing Parquet needs pyarrow: pip install 'turnout[training]'") from error
    place = _place(config, database)
    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} rows"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        try:
            done = write(
                place,
                out,
                since=None if since is None else since.date(),
                with_content=not without_content,
                wrote=lambda n_rows: progress.advance(task, n_rows),
            )
        except GatewayError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            raise click.ClickException(f"{out} cannot be written to: {error.strerror}") from error
    said = f"{out}: {done.n_rows:,} rows of {done.n_days} days written, {done.n_unchanged} days unchanged"
    click.echo(said + (f", prompts of {done.n_removed} days removed" if done.n_removed else ""))


@log.command()
@_CONFIG
@_DATABASE
def status(config: Path | None, database: Path | None) -> None:
    """Show how many rows the database holds, of which days and at which retention."""
    from rich.console import Console

    from serving.errors import GatewayError
    from serving.log_status import status_of, table_of

    try:
        found = status_of(_place(config, database))
    except GatewayError as error:
        raise click.ClickException(str(error)) from error
    Console().print(table_of(found))
