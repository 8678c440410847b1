"""Write the README's generated parts from the results in this folder and from the settings themselves.

``python benchmarks/readme.py`` rewrites what stands between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``; a test
compares, so that no figure in the README is older than the file it comes from.
"""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def figures() -> str:
    """Routing quality on held-out rows, one line a measure."""
    report = json.loads((RESULTS / "routing_quality_mix.json").read_text())
    mean = report["mean_over_seeds"]

    def cell(name: str, form: str) -> str:
        row = mean[name]
        return f"{row['mean']:{form}} ({row['least']:{form}} to {row['most']:{form}})"

    def saving(level: int) -> str:
        return f"{cell(f'save_{level}', '.0%')}, quality reached {mean[f'save_{level}_quality']['mean']:.3f} of it"

    rows = [
        ("Save@95: cost saved at 95 % of the best single candidate's quality", saving(95)),
        ("Save@99", saving(99)),
        ("Save@100", saving(100)),
        ("nAIQ: share of the area between the hull of single candidates and the oracle", cell("naiq", ".3f")),
        ("G: gap to the oracle closed at the best operating point", cell("gap_closed", ".3f")),
        ("AUC, macro", cell("auc_macro", ".3f")),
        ("Brier skill, macro", cell("brier_skill_macro", ".3f")),
        ("ECE, macro, 15 equal-mass bins", cell("ece_macro", ".3f")),
    ]
    return "\n".join(
        [
            "Held-out prompts of `mix` (15,592 exam-like prompts, six LLMs of 2024): "
            f"mean over {report['seeds']} splits of 60/20/20 by question, with the range.",
            "Operating points are chosen on validation rows and scored on test rows, with the exported bundle and the "
            "router's own policy code.",
            "",
            "| measure | Turnout, default tier |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in rows),
            "",
            f"Training takes {sum(report['seconds_per_seed']) / report['seeds']:.0f} s a split and "
            f"{report['peak_memory_gb']:.1f} GB at most. `python benchmarks/routing_quality.py --data DATA/mix` prints "
            "this table with the hull, the best single candidate and the oracle beside it.",
        ]
    )


def bench() -> str:
    """Speed and memory of a decision and of the gateway."""
    decision = json.loads((RESULTS / "decision.json").read_text())
    gateway = json.loads((RESULTS / "gateway.json").read_text())
    lines = [
        "Two virtual cores, CPython 3.11; absolute times depend on the machine, ratios less so.",
        "",
        f"`python benchmarks/decision.py` (default bundle, {decision['n_candidates']} candidates, one thread):",
        "",
        "| prompt, tokens | p50 ms | p99 ms |",
        "|---|---|---|",
        *(f"| {row['n_tokens']:,} | {row['p50_ms']:.2f} | {row['p99_ms']:.2f} |" for row in decision["decisions"]),
        "",
        f"`python benchmarks/gateway.py` (key, routing, records and log on; {gateway['n_candidates']} candidates; "
        "the same server and client do the bare pass-through in the same run):",
        "",
        "| prompt, tokens | emulator alone, CPU ms | bare pass-through, CPU ms | gateway, CPU ms | gateway / bare |",
        "|---|---|---|---|---|",
        *(
            f"| {row['n_prompt_tokens']} | {row['emulator_cpu_ms']:.2f} | {row['bare_cpu_ms']:.2f} | "
            f"{row['gateway_cpu_ms']:.2f} | {row['ratio']:.1f} ({min(row['ratio_rounds']):.1f} to "
            f"{max(row['ratio_rounds']):.1f}) |"
            for row in gateway["by_prompt"]
        ),
        "",
        f"Ready {gateway['ready_s']:.1f} s after start; {gateway['loaded_mb']} MB resident after load.",
    ]
    return "\n".join(lines)


def settings() -> str:
    """Every setting, as ``turnout settings --markdown`` prints it."""
    from click.testing import CliRunner

    from serving.commands import settings as command

    return CliRunner().invoke(command, ["--markdown"], catch_exceptions=False).output.strip()


PARTS = {"figures": figures, "bench": bench, "settings": settings}


def rewritten(text: str) -> str:
    """Return the README with every generated part made anew."""
    for name, part in PARTS.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n\n{part()}\n\n{end}{after}"
    return text


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(rewritten(path.read_text()))
