"""What became of a challenger, for people: one page, two plots, the gates, beside the bundle and in its card.

The folder stands beside the bundle, ``VERSION.report`` beside ``VERSION``: a bundle holds only what its manifest names.
Entry points: :func:`write_report`, :func:`with_gates`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from router.bundle import write
from training.contest import Contest
from training.gate_results import GATES_FILE, GateResult, Verdict, write_gates
from training.pipeline import CARD_FILE, REPORT_FILE, Trained, finite, report_bytes
from training.plots import cost_quality, reliability
from training.versions import identity_of

if TYPE_CHECKING:
    import pandas as pd

REPORT = "report.md"
COST_QUALITY, RELIABILITY = "cost_quality.png", "reliability.png"


def report_folder(bundle: Path) -> Path:
    """Return where the report of a bundle stands."""
    return bundle.parent / f"{bundle.name}.report"


def with_gates(trained: Trained, champion: str, gates: Sequence[GateResult]) -> Trained:
    """Write what the gates found into a bundle's report and card; its other files stay as they are.

    Parameters
    ----------
    trained : Trained
    champion : str
        ``name@version`` of what it was held against.
    gates : sequence of GateResult

    Returns
    -------
    Trained
    """
    folder = trained.directory
    files = {name: (folder / name).read_bytes() for name in trained.manifest.files}
    report = {**trained.report, "champion": champion, "gates": [asdict(gate) for gate in gates]}
    files[REPORT_FILE] = report_bytes(report)
    card = files[CARD_FILE].decode().rstrip("\n")
    files[CARD_FILE] = f"{card}\n\n## Gates, against {champion}\n\n{gate_table(gates)}\n".encode()
    return Trained(folder, write(folder, trained.manifest, files, overwrite=True), report)


def write_report(
    bundle: Path,
    contest: Contest,
    verdict: Verdict,
    counts: Mapping[str, int],
    keys: pd.DataFrame | None,
) -> Path:
    """Write the page, the plots and ``gates.json``.

    Parameters
    ----------
    bundle : Path
        The challenger, finished: ``gates.json`` is bound to its bytes.
    contest : Contest
    verdict : Verdict
    counts : Mapping of str to int
        What was learned from, and what was left out.
    keys : pandas.DataFrame or None
        See :class:`training.feedback.Votes`.

    Returns
    -------
    Path
        The folder.
    """
    folder = report_folder(bundle)
    folder.mkdir(parents=True, exist_ok=True)
    rows = {
        f"champion {contest.champion.manifest.id}": contest.old,
        f"challenger {contest.challenger.manifest.id}": contest.new,
    }
    compared = {name: own.select(contest.complete) for name, own in rows.items()}
    (folder / COST_QUALITY).write_bytes(cost_quality(compared))
    (folder / RELIABILITY).write_bytes(reliability(rows))
    identity = identity_of(bundle)
    (folder / GATES_FILE).write_bytes(write_gates(identity.bundle, identity.manifest_sha256, verdict))
    comparison = json.dumps(finite({"counts": dict(counts), "metrics": figures(contest)}), indent=1)
    (folder / "comparison.json").write_text(comparison + "\n", encoding="utf-8")
    (folder / REPORT).write_text(_page(contest, verdict.gates, counts, keys), encoding="utf-8")
    return folder


def figures(contest: Contest) -> dict[str, float]:
    """Return the contest in numbers, for tracking."""
    every = contest.rows_in(None)
    loss = contest.loss(every)
    found = {
        "n_holdout": float(len(every)),
        "loss_difference": loss.value,
        "loss_difference_high": loss.high,
        "ece_champion": contest.ece(contest.old)[0],
        "ece_challenger": contest.ece(contest.new)[0],
        "time_ratio": contest.time_ratio,
    }
    if contest.compares:
        for preset in contest.presets():
            found[f"utility_gain_{preset}"] = -contest.utility_loss(preset, every).value
    return {name: value for name, value in found.items() if value == value}


def gate_table(gates: Sequence[GateResult]) -> str:
    """Return the gates as a table in Markdown; those that were not passed first."""
    lines = ["| gate | | measured | bound | found |", "|---|---|---|---|---|"]
    for gate in sorted(gates, key=lambda gate: gate.is_passed):
        mark = "passed" if gate.is_passed else "**REFUSED**"
        lines.append(f"| {gate.name} | {mark} | {_number(gate.measured)} | {_number(gate.bound)} | {gate.reason} |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _page(contest: Contest, gates: Sequence[GateResult], counts: Mapping[str, int], keys: pd.DataFrame | None) -> str:
    failed = [gate.name for gate in gates if not gate.is_passed]
    verdict = f"**Refused**: {', '.join(failed)}." if failed else f"All {len(gates)} gates passed."
    champion, challenger = contest.champion.manifest.id, contest.challenger.manifest.id
    lines = [
        f"# {challenger} against {champion}",
        "",
        verdict,
        "",
        f"Held out: {len(contest.old.tasks):,} prompts in {len(set(contest.old.groups)):,} groups, the same for both "
        "and for later retrainings.",
        "",
    ]
    if contest.challenger.manifest.training.get("simulated"):
        lines += ["**Outcomes are SIMULATED.** They show how the program works, nothing more.", ""]
    lines += ["| figure | value |", "|---|---|"]
    lines += [f"| {name} | {value:.4g} |" for name, value in figures(contest).items()]
    lines += ["", f"![cost and quality]({COST_QUALITY})", "", f"![reliability]({RELIABILITY})", ""]
    lines += ["## Rows", "", "| what | rows |", "|---|---|"]
    lines += [f"| {name.removeprefix('n_').replace('_', ' ')} | {n:,} |" for name, n in counts.items()]
    if keys is not None and len(keys):
        lines += ["", "Keys, by what they weigh: how far each is believed, what the cap on its share leaves.", ""]
        lines += ["| key | votes | trust | cap | share |", "|---|---|---|---|---|"]
        for row in keys.sort_values("share", ascending=False).head(20).itertuples():
            lines.append(f"| {row.key} | {row.n_votes:,} | {row.trust:.2f} | {row.cap:.2f} | {row.share:.1%} |")
    return "\n".join([*lines, "", "## Gates", "", gate_table(gates), ""])
