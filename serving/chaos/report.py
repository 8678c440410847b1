"""What a run found, for people and for machines.

Entry points: :func:`facts`, :func:`line_of`, :func:`table_of`, :func:`document_of`.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from math import isfinite

from rich.table import Table

from serving.chaos.suite import Finding


def facts(seed: int, *, is_quick: bool) -> dict[str, object]:
    """Return what a reader must know to judge figures: versions, machine, load, seed."""
    load = [round(average, 2) for average in os.getloadavg()] if hasattr(os, "getloadavg") else None
    packages = ", ".join(f"{name} {version(name)}" for name in ("turnout", "aiohttp", "uvicorn", "uvloop"))
    return {
        "seed": seed,
        "is_quick": is_quick,
        "python": platform.python_version(),
        "system": platform.platform(),
        "n_cpus": os.cpu_count(),
        "load_average": load,
        "packages": packages,
    }


def line_of(finding: Finding) -> str:
    """Say in a line what came of one check."""
    told = "; ".join(f"{j.bound.asked()}: {j.measured()}" for j in finding.judgements)
    return f"{_verdict(finding)}  {finding.check.name} ({finding.took_s:.0f} s)  {told}" + (
        f"  [{finding.measured.note}]" if finding.measured.note else ""
    )


def table_of(findings: Sequence[Finding]) -> Table:
    """Return the table: a row for each check, a line in it for each thing asked."""
    table = Table(title="turnout chaos", show_lines=True)
    for column in ("what", "asked", "measured", "verdict"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        bounded = {judgement.bound.figure for judgement in finding.judgements}
        besides = [
            f"{name.replace('_', ' ')} {value:.4g}"
            for name, value in finding.measured.figures.items()
            if name not in bounded
        ]
        notes = [text for text in ("; ".join(besides), finding.measured.note) if text]
        table.add_row(
            "\n".join((f"[bold]{finding.check.name}[/]", finding.check.about)),
            "\n".join(judgement.bound.asked() for judgement in finding.judgements),
            "\n".join(
                (
                    *(
                        judgement.measured() if judgement.is_met else f"[red]{judgement.measured()}[/]"
                        for judgement in finding.judgements
                    ),
                    *(f"[dim]{_plain(note)}[/]" for note in notes),
                )
            ),
            "[green]passed[/]" if finding.is_met else "[red]FAILED[/]",
        )
    return table


def document_of(findings: Sequence[Finding], about: Mapping[str, object]) -> dict[str, object]:
    """Return everything as JSON has it; a figure that is no number is null."""
    return {
        **about,
        "is_met": all(finding.is_met for finding in findings),
        "checks": [
            {
                "name": finding.check.name,
                "about": finding.check.about,
                "is_met": finding.is_met,
                "took_s": round(finding.took_s, 2),
                "asked": [
                    {
                        "figure": judgement.bound.figure,
                        "relation": judgement.bound.relation,
                        "limit": judgement.bound.limit,
                        "unit": judgement.bound.unit,
                        "value": _number(judgement.value),
                        "is_met": judgement.is_met,
                        "told": judgement.measured(),
                    }
                    for judgement in finding.judgements
                ],
                "figures": {name: _number(value) for name, value in finding.measured.figures.items()},
                "note": finding.measured.note,
            }
            for finding in findings
        ],
    }


def _verdict(finding: Finding) -> str:
    return "passed" if finding.is_met else "FAILED"


def _number(value: float | None) -> float | None:
    return round(value, 6) if value is not None and isfinite(value) else None


def _plain(note: str) -> str:
    """Keep brackets from being read as markup."""
    return note.replace("[", "\\[")
