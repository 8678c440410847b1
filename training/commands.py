"""The commands of training: ``turnout train``, ``onboard``, ``predict``, ``evaluate`` and ``encoder``.

Options in, words out; the work is in the modules named by each import. Everything heavy is imported inside the
commands, so that ``turnout --help`` stays quick.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from training.command_errors import errors

if TYPE_CHECKING:
    from rich.console import Console

_SIMULATED = "outcomes are SIMULATED: good for trying the program, not for judging models"
_DATA = click.option(
    "--data",
    "paths",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="Folder or file of outcomes; may be given again.",
)
_BUNDLE = click.option("--bundle", "directory", required=True, type=click.Path(path_type=Path), help="Bundle folder.")

#: name in the report -> how it reads in the table
_ROWS: tuple[tuple[str, str], ...] = (
    ("naiq", "nAIQ"),
    ("naiq_at_validation_points", "nAIQ, points from validation"),
    ("gap_closed", "gap closed (G)"),
    ("save_95", "saving at 95 % of best single"),
    ("save_95_quality", "  quality reached / best single"),
    ("save_99", "saving at 99 %"),
    ("save_99_quality", "  quality reached / best single"),
    ("save_100", "saving at 100 %"),
    ("save_100_quality", "  quality reached / best single"),
    ("regret", "regret to oracle (random = 1)"),
    ("apgr", "APGR"),
    ("cpt_50", "CPT(50)"),
    ("cpt_80", "CPT(80)"),
    ("auc_macro", "AUC, macro"),
    ("brier_macro", "Brier, macro"),
    ("brier_skill_macro", "Brier skill, macro"),
    ("ece_macro", "ECE, macro"),
    ("ece_macro_floor", "  of a perfectly calibrated predictor here"),
    ("ece_largest_slice", "ECE, worst task slice (n ≥ 300)"),
    ("ece_largest_slice_floor", "  of a perfectly calibrated predictor there"),
    ("cost_error_mean", "cost error, mean |relative|"),
    ("p90_coverage_mean", "coverage of the 90 % token quantile"),
)


@click.command()
@_DATA
@click.option("--out", required=True, type=click.Path(path_type=Path), help="models/NAME/VERSION.")
@click.option("--config", type=click.Path(path_type=Path), help="TOML; every key has a default.")
@click.option("--seed", type=click.IntRange(min=0), help="Over the configuration's.")
@click.option("--candidates", "globs", multiple=True, help="Glob of candidates to keep; may be given again.")
@click.option("--overwrite", is_flag=True, help="Replace the bundle that is there.")
@click.option("--tracking-uri", help="MLflow store. Default: a SQLite file in mlruns/.")
@click.option("--no-tracking", is_flag=True, help="Do not record the run.")
def train(
    paths: tuple[Path, ...],
    out: Path,
    config: Path | None,
    seed: int | None,
    globs: tuple[str, ...],
    overwrite: bool,
    tracking_uri: str | None,
    no_tracking: bool,
) -> None:
    """Train a bundle on labelled prompts and measure it on rows held out."""
    from dataclasses import replace

    from rich.console import Console

    with errors():
        from training.pipeline import train as run
        from training.registry import record
        from training.run_plots import write_plots
        from training.settings import read_settings

        settings = read_settings(config)
        if seed is not None:
            settings = replace(settings, seed=seed)
        if globs:
            settings = replace(settings, candidates=globs)
        console = Console()
        with _Progress(console) as progress:
            trained = run(paths, out, settings, overwrite=overwrite, tell=progress.tell, advance=progress.advance)
        _show(console, trained.report, f"{trained.manifest.id} on {trained.report['n_prompts']:,} test prompts")
        console.print(f"wrote {out}", highlight=False)
        if not no_tracking:
            with TemporaryDirectory(prefix="turnout-") as plots:
                write_plots(trained, paths, settings.candidates, Path(plots))
                run_id = record(trained, settings, tracking_uri, Path(plots))
            console.print(f"recorded as MLflow run {run_id}", highlight=False)


@click.command()
@click.argument("directory", metavar="BUNDLE", type=click.Path(path_type=Path))
@_DATA
@click.option("--at-most", type=click.FloatRange(0, 1, True, True), help="Share that may fall below the best single.")
@click.option("--keep", type=click.FloatRange(0, 2, True, True), help="Share of the best single's mean quality.")
@click.option("--quality-at-least", type=click.FloatRange(0, 1, True, True), help="Mean quality.")
@click.option("--confidence", type=click.FloatRange(0, 1, True, True), default=0.9, show_default=True)
def certify(
    directory: Path,
    paths: tuple[Path, ...],
    at_most: float | None,
    keep: float | None,
    quality_at_least: float | None,
    confidence: float,
) -> None:
    """Give BUNDLE a preset with a promise, proven on labelled prompts that taught it nothing."""
    asked = {"fall_below": at_most, "keep": keep, "quality": quality_at_least}
    goals = {kind: level for kind, level in asked.items() if level is not None}
    if len(goals) != 1:
        raise click.UsageError("give one of --at-most, --keep and --quality-at-least")
    with errors():
        from training.certify import Goal
        from training.pipeline import load as load_tables
        from training.promise import promise

        ((kind, level),) = goals.items()
        certificate, rows = promise(directory, load_tables(paths), Goal(kind, level, confidence))
    click.echo(f"preset {certificate.preset}: {certificate.sentence()} (rows: {rows})")
    if certificate.abstained:
        needed = certificate.labels_needed
        enough = "no number of labels would do" if needed is None else f"about {needed:,} labelled prompts would do"
        click.echo(f"nothing bolder than always {certificate.anchor} could be certified; {enough}")
        return
    saving = certificate.saving
    click.echo(
        f"saving {saving['value']:.1%} ({saving['low']:.1%} to {saving['high']:.1%}) against {certificate.anchor}"
    )
    if certificate.bound is not None and kind == "fall_below":
        click.echo(f"measured {certificate.measured:.2%}, at most {certificate.bound:.2%} at this confidence")


@click.command()
@click.argument("directory", metavar="BUNDLE", type=click.Path(path_type=Path))
@_DATA
@click.option("--candidate", required=True, help="The new candidate's name in the data.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="models/NAME/VERSION of the new bundle.")
@click.option("--prices", metavar="IN/OUT", help="USD per million tokens. Default: what the data's costs imply.")
@click.option("--overwrite", is_flag=True, help="Replace the bundle that is there.")
def onboard(
    directory: Path, paths: tuple[Path, ...], candidate: str, out: Path, prices: str | None, overwrite: bool
) -> None:
    """Add a candidate to BUNDLE from a few labelled prompts (32 to 64 do), without training the rest again."""
    with errors():
        from training.onboard import onboard as run
        from training.predict import price_of

        price = None if prices is None else price_of(prices)
        done = run(directory, paths, candidate, out, price=price, overwrite=overwrite)
    click.echo(
        f"{candidate}: {done.n_labels:,} labels, mean {done.mean_label:.3f}; predicted there {done.mean_quality:.3f}, "
        f"90 % interval of a prompt {done.mean_low:.3f} to {done.mean_high:.3f}"
    )
    for note in done.notes:
        click.echo(f"note: {note}")
    click.echo(f"wrote {out} ({done.manifest.id}, {len(done.manifest.candidates)} candidates)")


@click.command()
@_BUNDLE
@click.option("--prompts", required=True, type=click.Path(path_type=Path), help=".parquet, .csv or .jsonl.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="predictions.parquet")
@click.option("--prices", type=click.Path(path_type=Path), help="TOML; default: the bundle's reference prices.")
def predict(directory: Path, prompts: Path, out: Path, prices: Path | None) -> None:
    """Predict quality, output tokens and cost of every prompt for every candidate."""
    with errors():
        from router.bundle import load
        from training.predict import predict as run
        from training.predict import read_prices, read_prompts

        bundle = load(directory)
        names = [column.name for column in bundle.manifest.candidates]
        charged = None if prices is None else read_prices(prices, names)
        frame = run(bundle, read_prompts(prompts), charged)
        out.parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(out, index=False)
    click.echo(f"{out}: {len(frame):,} rows, {len(frame) // len(names):,} prompts x {len(names)} candidates")


@click.command()
@_BUNDLE
@_DATA
@click.option(
    "--rows",
    type=click.Choice(["held-out", "all"]),
    default="held-out",
    help="Of data the bundle was trained on: only the rows held out, or all.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the whole report as JSON.")
def evaluate(directory: Path, paths: tuple[Path, ...], rows: str, as_json: bool) -> None:
    """Measure a bundle on labelled prompts, each measure with a bootstrap interval."""
    with errors():
        from rich.console import Console

        from router.bundle import load
        from training.measure import measure
        from training.pipeline import finite
        from training.pipeline import load as load_tables

        report = measure(load(directory), load_tables(paths), held_out=rows == "held-out")
    if as_json:
        click.echo(json.dumps(finite(report), ensure_ascii=False, indent=1))
        return
    _show(Console(), report, f"{report['bundle']} on {report['n_prompts']:,} prompts ({report['rows']})")


@click.group()
def encoder() -> None:
    """Make encoders."""


@encoder.command("export")
@click.argument("model")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for encoder.onnx and tokenizer.json."
)
@click.option("--int8", is_flag=True, help="Quantise weights to eight bits, one scale per channel.")
def export_encoder(model: str, out: Path, int8: bool) -> None:
    """Export the sentence-transformers MODEL (folder or name) to ONNX and check it against the original."""
    with errors():
        from training.encoder import export

        fidelity = export(model, out, int8=int8)
    click.echo(f"{out}: cosine with the original {fidelity.mean:.4f} on average, {fidelity.least:.4f} at least")


@encoder.command("words")
@click.argument("model")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File, training/words.npz.")
def make_words(model: str, out: Path) -> None:
    """Make the lexical tier's table of word vectors from the sentence-transformers MODEL (folder or name)."""
    with errors():
        from training.encoder import load_model
        from training.words import make

        data = make(load_model(model))
        out.write_bytes(data)
    click.echo(f"{out}: {len(data):,} bytes")


class _Progress:
    """A line per stage, a bar while prompts are embedded."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._task: Any = None

    def __enter__(self) -> _Progress:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._task is not None and exc[0] is None:
            self._finish()
        self._progress.stop()

    def tell(self, stage: str) -> None:
        """Begin a stage."""
        if self._task is not None:
            self._finish()
        self._task = self._progress.add_task(stage, total=None)

    def advance(self, n: int) -> None:
        """Count prompts of the stage."""
        self._progress.advance(self._task, n)

    def _finish(self) -> None:
        done = self._progress.tasks[-1].completed or 1
        self._progress.update(self._task, total=done, completed=done)
        self._progress.stop_task(self._task)


def _show(console: Console, report: dict[str, Any], title: str) -> None:
    from rich.table import Table

    for note in [*([_SIMULATED] if report["simulated"] else []), *report.get("notes", [])]:
        console.print(f"[bold yellow]{note}[/bold yellow]")
    table = Table(title=title)
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for name, words in _ROWS:
        entry = report["metrics"].get(name)
        if entry and entry["value"] is not None:
            table.add_row(words, f"{entry['value']:.3f}", _interval(entry))
    console.print(table)
    if "singles" not in report:
        return
    points = Table(title="cost and quality")
    for heading in ("point", "quality", "95 % interval", "USD per 1,000 calls", "over hull"):
        points.add_column(heading, justify="left" if heading == "point" else "right")
    on_hull = {(p["cost_usd"], p["quality"]) for p in report["hull"]}
    for name, preset in report["presets"].items():
        points.add_row(
            f"[bold]preset {name}[/bold]",
            f"{preset['quality']['value']:.3f}",
            _interval(preset["quality"]),
            f"{1000 * preset['cost_usd']['value']:.3f}",
            f"{preset['gain_over_hull']['value']:+.3f}",
        )
    for name, single in sorted(report["singles"].items(), key=lambda item: item[1]["cost_usd"]):
        note = ", best single" if name == report["best_single"] else ""
        note += ", hull" if (single["cost_usd"], single["quality"]) in on_hull else ""
        points.add_row(f"{name}{note}", f"{single['quality']:.3f}", "", f"{1000 * single['cost_usd']:.3f}", "")
    points.add_row("oracle", f"{report['oracle']['quality']:.3f}", "", "", "")
    console.print(points)


def _interval(entry: dict[str, float | None]) -> str:
    low, high = entry.get("low"), entry.get("high")
    return "" if low is None or high is None or low != low else f"{low:.3f} to {high:.3f}"
