"""``turnout chaos``: the suite, on a scratch gateway of its own; the user's own gateway is never touched.

Heavy imports stand inside the function, so that ``turnout --help`` stays quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from serving.chaos.suite import Finding


@click.command()
@click.option("--only", multiple=True, metavar="NAME", help="Only this check; repeatable.")
@click.option("--list", "is_list", is_flag=True, help="Print the checks and what they ask, and end.")
@click.option("--quick", is_flag=True, help="Smaller counts and fewer checks, within a minute.")
@click.option("--soak-minutes", type=click.FloatRange(min=0), default=0.0, help="Run the soak alone, for so long.")
@click.option("--seed", type=int, help="Of everything drawn by lot; printed, so that a run can be had again.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write everything here too.")
@click.option(
    "--bound",
    multiple=True,
    metavar="CHECK.FIGURE=LIMIT",
    help="Another limit in the place of the suite's own, for a machine that is slow or a team that is strict.",
)
def chaos(
    only: tuple[str, ...],
    is_list: bool,
    quick: bool,
    soak_minutes: float,
    seed: int | None,
    json_file: Path | None,
    bound: tuple[str, ...],
) -> None:
    """Show what the gateway does when providers fail: a scratch gateway before emulated providers that misbehave.

    Ends with status 1 where something asked does not hold.
    """
    import asyncio
    import random
    import signal

    import orjson
    import uvloop
    from rich.console import Console

    from serving import logs
    from serving.chaos.report import document_of, facts, line_of, table_of
    from serving.chaos.suite import chosen, run, with_limits
    from serving.chaos.verdict import bound_of
    from serving.errors import GatewayError

    try:
        limits = {(check, figure): limit for check, figure, limit in map(bound_of, bound)}
        checks = with_limits(chosen(only, is_quick=quick, is_soak=soak_minutes > 0), limits)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if any(check.is_soak for check in checks) and not soak_minutes:
        raise click.UsageError("the soak needs --soak-minutes")
    if json_file is not None and not json_file.resolve().parent.is_dir():
        raise click.UsageError(f"--json {json_file}: there is no such folder")
    if is_list:
        for check in checks:
            click.echo(f"{check.name}: {check.about}")
            for asked in check.bounds:
                click.echo(f"    {asked.asked()}")
        return
    logs.configure()
    seed = random.SystemRandom().randrange(2**31) if seed is None else seed
    about = facts(seed, is_quick=quick)
    for name, value in about.items():
        click.echo(f"{name.replace('_', ' ')}: {value}")

    def tell(finding: Finding) -> None:
        click.echo(line_of(finding))

    async def carried_through() -> list[Finding]:
        task = asyncio.current_task()
        assert task is not None
        # Told to end, it ends what it started first.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await run(checks, is_quick=quick, seed=seed, soak_s=60 * soak_minutes, tell=tell)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            findings = runner.run(carried_through())
    except asyncio.CancelledError:
        raise click.Abort from None
    except GatewayError as error:
        raise click.ClickException(str(error)) from error
    console = Console(width=None if Console().is_terminal else 160)
    console.print(table_of(findings))
    if json_file is not None:
        document = document_of(findings, about)
        json_file.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    if not all(finding.is_met for finding in findings):
        raise SystemExit(1)
