"""The card of a bundle: what it is, what it was trained on, how good it is, what it is not good for.

Entry point: :func:`card_of`.
"""

from __future__ import annotations

from typing import Any

from router.manifest import Manifest

_SHOWN: tuple[tuple[str, str], ...] = (
    ("naiq", "nAIQ (room between the hull of single candidates and the oracle that is filled)"),
    ("gap_closed", "gap to the oracle closed at the best quality"),
    ("save_95", "saving at 95 % of the best single candidate's quality"),
    ("save_99", "saving at 99 %"),
    ("save_100", "saving at 100 %"),
    ("auc_macro", "AUC, mean over candidates"),
    ("brier_skill_macro", "Brier skill, mean over candidates"),
    ("ece_macro", "calibration error (15 bins of equal mass), mean over candidates"),
    ("ece_macro_floor", "calibration error that a perfectly calibrated predictor would show on so many rows"),
    ("regret", "regret to the oracle, random choice = 1"),
    ("p90_coverage_mean", "coverage of the 90 % output-token quantile"),
)


def card_of(manifest: Manifest, report: dict[str, Any]) -> str:
    """Write the card.

    Parameters
    ----------
    manifest : Manifest
    report : dict
        See :func:`training.pipeline.train`.

    Returns
    -------
    str
        Markdown.
    """
    lines = [
        f"# {manifest.id}",
        "",
        f"Predicts, for a prompt, the quality and the output tokens of {len(manifest.candidates)} candidates; the "
        f"router turns that into a choice. Encoder tier: {manifest.encoder_tier}. No text of the training data is in "
        "it.",
        "",
    ]
    if report["simulated"]:
        lines += ["**The outcomes it was trained on are SIMULATED.** It shows how the program works, nothing more.", ""]
    lines += ["## Trained on", ""]
    for source in report["data"]:
        licence = source["licence"] or "licence not stated"
        lines.append(f"- {source['name']}: {source['n_prompts']:,} prompts; {licence}")
        if source["attribution"]:
            lines.append(f"  ({source['attribution']})")
    parts = ", ".join(f"{part} {n:,}" for part, n in report["parts"].items())
    lines += ["", f"Prompts are split by group: {parts}.", "", "## Measured on test rows", ""]
    lines += _measures(report)
    if "all_candidates" in report:
        n = report["all_candidates"].get("n_complete", 0)
        lines += ["", f"All {len(manifest.candidates)} candidates, on the {n:,} test prompts all were observed on:", ""]
        lines += _measures(report["all_candidates"])
    lines += [
        "",
        "## Presets",
        "",
        "| preset | policy | quality | quality − best single | saving |",
        "|---|---|---|---|---|",
    ]
    for name, preset in report.get("presets", {}).items():
        lines.append(
            f"| {name} | {preset['kind']} {preset['value']:g} | {_interval(preset['quality'])} | "
            f"{_interval(preset['quality_minus_best_single'])} | {_interval(preset['saving'])} |"
        )
    if report.get("certificates"):
        lines += ["", "## Certificates", ""]
    for certificate in report.get("certificates", []):
        lines.append(
            f"- `{certificate['preset']}`: {certificate['promise']}. {certificate['method']}. Saving "
            f"{_interval(certificate['saving'])}. Not covered: {'; '.join(certificate['does_not_cover'])}."
        )
        if certificate["abstained"]:
            needed = certificate["labels_needed"]
            enough = "no number of labels would do" if needed is None else f"about {needed:,} labels would do"
            lines.append(f"  Too few labels to certify anything bolder: {enough}.")
    lines += [
        "",
        "## Candidates",
        "",
        "| candidate | labelled prompts | AUC | calibration error |",
        "|---|---|---|---|",
    ]
    measured = {**report.get("all_candidates", {}).get("candidates", {}), **report["candidates"]}
    for column in manifest.candidates:
        entry = measured.get(column.name, {})
        lines.append(
            f"| {column.name} | {column.n_observed:,} | {_interval(entry.get('auc'))} | {_interval(entry.get('ece'))} |"
        )
    lines += [
        "",
        "## Limits",
        "",
        "- It knows the kinds of prompt it was trained on; elsewhere its predictions drift towards averages, and the "
        "intervals, which were measured on rows like the training rows, do not widen for it.",
        "- Quality means what the labels meant: mostly whether a short answer was right. It says nothing of style, "
        "safety or long conversations.",
        "- Candidates change behind their names; prices do too, and are not part of a bundle (`reference_price` is "
        "what the evaluation used).",
        "- A candidate observed on few kinds of prompt is predicted on the others by analogy with the rest.",
        "",
    ]
    return "\n".join(lines)


def _measures(report: dict[str, Any]) -> list[str]:
    lines = ["| measure | value (95 % bootstrap interval) |", "|---|---|"]
    for name, words in _SHOWN:
        if name in report["metrics"]:
            lines.append(f"| {words} | {_interval(report['metrics'][name])} |")
    return lines


def _interval(entry: dict[str, float | None] | None) -> str:
    if not entry or entry.get("value") is None:
        return "–"
    if entry.get("low") is None or entry["low"] != entry["low"]:
        return f"{entry['value']:.3f}"
    return f"{entry['value']:.3f} ({entry['low']:.3f} to {entry['high']:.3f})"
