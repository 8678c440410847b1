"""``turnout label``: options in, words out; the work is in :mod:`training.labelling.pipeline`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from training.labelling.agreement import Estimate
    from training.labelling.settings import LabelSettings
    from training.labelling.summary import Summary

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)
_SIMULATED = "answers are EMULATED: good for trying the program, not for judging models"


@click.command()
@click.option("--prompts", type=_FILE, help=".jsonl, .csv or .parquet: prompt or messages, grader, what it needs.")
@click.option(
    "--log", type=_FOLDER, help="In the place of a file: the prompts that 'turnout log export' found retained."
)
@click.option("--out", required=True, type=_FOLDER, help="Folder of the table. The same again goes on.")
@click.option("--max-usd", required=True, type=click.FloatRange(min=0), help="Of the folder's calls in all.")
@click.option("--url", metavar="URL", help="Of a gateway that runs.")
@click.option("--config", type=_FILE, help="Start a gateway from this TOML file for the time of the run.")
@click.option("--key-env", metavar="VAR", help="Environment variable that holds a key of the gateway.")
@click.option("--candidates", "globs", multiple=True, help="Glob of names; may be given again. Default: all.")
@click.option("--grader", help="Of rows that name none: exact, numeric, regex, json_schema, code, similarity, judge.")
@click.option("--judge", help="The candidate that judges.")
@click.option("--judge-reference", help="The candidate whose answers the judge compares with, where rows have none.")
@click.option(
    "--judge-checks", type=click.IntRange(min=0), default=50, show_default=True, help="Graded answers judged too."
)
@click.option(
    "--similarity", default="chrf", show_default=True, help="chrf, encoder:FOLDER or sentence-transformers:MODEL."
)
@click.option("--max-output-tokens", type=click.IntRange(min=1), default=1024, show_default=True, help="Of an answer.")
@click.option("--temperature", type=click.FloatRange(min=0), help="Default: not sent.")
@click.option("--concurrency", type=click.IntRange(1, 256), default=8, show_default=True, help="Calls at once.")
@click.option(
    "--tries", type=click.IntRange(1, 10), default=3, show_default=True, help="Of a call that fails for a while."
)
@click.option(
    "--timeout-s", type=click.FloatRange(0, min_open=True), default=300.0, show_default=True, help="Of a call."
)
@click.option(
    "--code-timeout-s", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, help="Of tested code."
)
@click.option("--name", default="", help="Of the data. Default: that of the folder.")
def label(
    prompts: Path | None,
    log: Path | None,
    out: Path,
    max_usd: float,
    url: str | None,
    config: Path | None,
    key_env: str | None,
    globs: tuple[str, ...],
    grader: str | None,
    judge: str | None,
    judge_reference: str | None,
    judge_checks: int,
    similarity: str,
    max_output_tokens: int,
    temperature: float | None,
    concurrency: int,
    tries: int,
    timeout_s: float,
    code_timeout_s: float,
    name: str,
) -> None:
    """Make a table for `turnout train`: call candidates on prompts and grade what they answer.

    What was answered is kept, so the same command again pays for nothing twice; --max-usd 0 only grades.
    """
    if (prompts is None) == (log is None):
        raise click.UsageError("give one of --prompts and --log")
    if (url is None) == (config is None):
        raise click.UsageError("give one of --url and --config")
    from rich.console import Console

    from training.command_errors import errors
    from training.labelling.settings import LabelSettings
    from training.settings import gateway_key

    console = Console()
    settings = LabelSettings(
        out=out,
        max_usd=max_usd,
        candidates=globs,
        grader=grader,
        judge=judge,
        judge_reference=judge_reference,
        n_judge_checks=judge_checks,
        similarity=similarity,
        max_output_tokens=max_output_tokens,
        temperature=temperature,
        n_at_once=concurrency,
        n_tries=tries,
        timeout_s=timeout_s,
        code_timeout_s=code_timeout_s,
        name=name,
    )
    try:
        with errors():
            summary = _run(settings, prompts, log, url, config, gateway_key(key_env), console)
    except KeyboardInterrupt:
        click.echo(f"interrupted; what was answered is in {out}: the same command again goes on", err=True)
        raise SystemExit(130) from None
    _show(summary, out, console)


def _run(
    settings: LabelSettings,
    prompts: Path | None,
    log: Path | None,
    url: str | None,
    config: Path | None,
    key: str | None,
    console: Console,
) -> Summary:
    import asyncio
    import os

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from training.labelling.confinement import Confinement, Limits
    from training.labelling.graders.registry import graders_of
    from training.labelling.own_gateway import own_gateway
    from training.labelling.pipeline import label as run
    from training.labelling.question_file import JUDGE, read_questions
    from training.labelling.retained_question import retained_questions

    confinement = Confinement(Limits(time_s=settings.code_timeout_s), os.cpu_count() or 1)
    graders = graders_of(settings.similarity, confinement)
    if prompts is not None:
        questions = read_questions(prompts, graders, settings.grader)
    else:
        assert log is not None
        questions = retained_questions(log, graders, settings.grader or JUDGE)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=console)
    bar = progress.add_task("label", total=None)
    started = own_gateway(config) if config is not None else nullcontext(str(url))
    with progress, started as root:
        return asyncio.run(
            run(
                questions,
                settings,
                graders,
                confinement,
                root,
                key,
                tell=lambda n: progress.update(bar, total=n),
                advance=lambda usd: progress.update(bar, advance=1, description=f"label, {usd:.4f} USD spent"),
            )
        )


def _show(summary: Summary, out: Path, console: Console) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("candidate", overflow="fold", min_width=20)
    for heading in ("labels", "quality", "95 % interval", "USD/1,000 calls", "cut off", "unobserved"):
        table.add_column(heading, justify="right")
    for row in summary.candidates:
        n_unobserved = sum(n for _, n in row.unobserved)
        table.add_row(
            escape(row.name),
            str(row.quality.n),
            f"{row.quality.value:.3f}" if row.quality.n else "unknown",
            f"{row.quality.low:.3f} to {row.quality.high:.3f}" if row.quality.n else "",
            "unknown" if row.cost_usd is None else f"{1000 * row.cost_usd:.3f}",
            str(row.n_truncated),
            str(n_unobserved),
        )
    if summary.is_simulated:
        console.print(f"[bold yellow]{_SIMULATED}[/bold yellow]")
    console.print(table)
    for row in summary.candidates:
        for why, n in row.unobserved[:3]:
            console.print(f"{escape(row.name)}: {n} unobserved: {escape(why)}", highlight=False)
    for note in _notes(summary):
        console.print(escape(note), highlight=False, soft_wrap=True)
    console.print(f"wrote {escape(str(out))}; turnout train --data {escape(str(out))} reads it", soft_wrap=True)


def _notes(summary: Summary) -> list[str]:
    notes = [
        f"{summary.n_asked} calls made, {summary.n_cached} answers were there; {summary.spent_usd:.6f} USD spent in all"
    ]
    if summary.is_budget_reached:
        notes.append("the budget is reached: a higher --max-usd goes on from here")
    if summary.overrun_usd > 0:
        notes.append(
            f"calls cost {summary.overrun_usd:.6f} USD more than their worst: a provider kept no limit on output"
        )
    if summary.protections:
        notes.append(f"programs ran with: {summary.protections}")
    judge = summary.judge
    if judge is not None:
        notes.append(f"judge {judge.name}: same verdict in both orders {_told(judge.consistency)}")
        if judge.preference_for_first.n:
            notes.append(f"  where not, the first place won {_told(judge.preference_for_first)}")
        notes.append(f"  Cohen's kappa with the other graders {_told(judge.kappa)}")
        if judge.n_unread:
            notes.append(f"  {judge.n_unread} answers it did not grade")
        if judge.is_candidate:
            notes.append("  it judges answers of its own too, which judges tend to like")
    return notes


def _told(figure: Estimate) -> str:
    if not figure.n or figure.value != figure.value:
        return f"unknown (n = {figure.n})"
    return f"{figure.value:.3f}, 95 % interval {figure.low:.3f} to {figure.high:.3f} (n = {figure.n})"
