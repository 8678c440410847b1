"""``turnout feedback``: votes from files.

Entry point: :func:`feedback`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from serving.feedback_import import Outcome

#: Lines that are shown of those that do not stand.
_N_SHOWN = 20


@click.group()
def feedback() -> None:
    """Give feedback on answers."""


@feedback.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Straight into the database of this config, while its gateway runs or not.",
)
@click.option("--url", metavar="URL", help="Through this running gateway instead.")
@click.option(
    "--key-env", metavar="VAR", help="Environment variable that holds a key of that gateway, where it asks for one."
)
def import_(file: Path, config: Path | None, url: str | None, key_env: str | None) -> None:
    """Import votes out of FILE: CSV, JSON lines or Parquet.

    Columns: request_id; one of rating, thumbs, correct, and grader with score; perhaps tags, time (unix seconds or ISO
    8601), and key, the name of the key that votes (without one: whoever made the request). The same rules hold as for
    POST /v1/feedback. Run it again after an interruption: a vote that stands changes nothing.
    """
    if (config is None) is (url is None):
        raise click.UsageError("give --config FILE or --url URL, one of them")
    if key_env is not None and url is None:
        raise click.UsageError("--key-env goes with --url")
    from contextlib import ExitStack

    from serving.errors import GatewayError
    from serving.feedback import STANDING, STATUSES
    from serving.feedback_import import IntoDatabase, Summary, Target, ThroughGateway, imported
    from serving.settings import client_key, load
    from serving.vote_file import rows_of

    summary = Summary()
    n_shown = 0

    def told(outcomes: Sequence[Outcome]) -> None:
        nonlocal n_shown
        summary.add(outcomes)
        for outcome in outcomes:
            if outcome.status not in STANDING:
                n_shown += 1
                if n_shown <= _N_SHOWN:
                    click.echo(f"line {outcome.line}: {outcome.status}: {outcome.why}", err=True)

    why = ""
    with ExitStack() as stack:
        try:
            if url is not None:
                import httpx

                headers = {"authorization": f"Bearer {client_key(key_env)}"} if key_env else {}
                try:
                    client = httpx.Client(base_url=url, headers=headers, timeout=60.0, trust_env=False)
                except httpx.InvalidURL as error:
                    message = f"--url {url}: {error}; expected one such as http://127.0.0.1:8080"
                    raise click.ClickException(message) from error
                target: Target = ThroughGateway(stack.enter_context(client))
            else:
                target = IntoDatabase(load(config))
            imported(rows_of(file), target, told)
        except GatewayError as error:
            why = str(error)
        except KeyboardInterrupt:
            why = "interrupted"
    if n_shown > _N_SHOWN:
        click.echo(f"and {n_shown - _N_SHOWN} more", err=True)
    if why and not summary.n_rows:
        raise click.ClickException(why)
    parts = [f"{summary.counts[status]} {status}" for status in STATUSES if summary.counts[status]]
    click.echo(f"{summary.n_rows} rows: {', '.join(parts) or 'nothing to keep'}")
    if why:
        raise click.ClickException(f"{why}; what is counted above is kept, and the same command goes on")
    if summary.counts["refused"]:
        raise SystemExit(1)
