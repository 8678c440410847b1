"""Write the README's generated parts from the results in this folder and from the settings themselves.

``python benchmarks/readme.py`` rewrites what stands between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``; a test
compares, so that no figure in the README is older than the file it comes from.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

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
        f"`python benchmarks/gateway` (key, routing, records and log on; {gateway['n_candidates']} candidates; CPU "
        "time of the server's process, against a bare pass-through of Chat by the same server and upstream client, in "
        f"the same of {gateway['rounds']} rounds):",
        "",
        "| client → provider | asked | measured (rounds) | CPU ms | bare, CPU ms | met |",
        "|---|---|---|---|---|---|",
        *(_gateway_row(row, _bare_of(row, gateway["cases"])) for row in gateway["cases"] if row["server"] != "bare"),
        "",
        "Of a stream the figures are of one forwarded event, its share of the request included; the emulator sends one "
        "event at a time, as providers do.",
        _peer(gateway),
        "",
        f"Ready {gateway['ready_s']:.1f} s after start; {gateway['loaded_mb']} MB resident after load.",
    ]
    return "\n".join(lines)


def _gateway_row(row: dict[str, Any], bare: dict[str, Any]) -> str:
    """One line of the gateway's table: what was asked beside what was measured."""
    is_long, is_stream = row["client"] == "agent", row["is_stream"]
    client = "messages" if is_long else row["client"]
    size = "88 kB, as Claude Code sends" if is_long else "an event" if is_stream else f"{row['n_prompt_tokens']} tokens"
    asked = f"{row['budget']:g} {'ms' if is_long else '×'}" if row["budget"] else ""
    key = "event_us" if is_stream else "cpu_ms"
    cpu_ms, bare_ms = ((r[key] / 1e3 if is_stream else r[key]) for r in (row, bare))
    spread = row["cpu_ms_rounds"] if is_long else row["ratio_rounds"]
    value, unit = (row["cpu_ms"], " ms") if is_long else (row["ratio"], " ×")
    measured = f"{value:.1f}{unit} ({min(spread):.1f} to {max(spread):.1f})"
    met = {None: "", True: "yes", False: "no"}[row["is_met"]]
    peer = "LiteLLM: " if row["server"] == "litellm" else ""
    digits = 3 if is_stream else 2
    return (
        f"| {peer}{client} → {row['upstream']}, {size} | {asked} | {measured} | {cpu_ms:.{digits}f} | "
        f"{bare_ms:.{digits}f} | {met} |"
    )


def _bare_of(row: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the row of the bare pass-through that a row is compared with."""
    bare = [other for other in rows if other["server"] == "bare" and other["is_stream"] == row["is_stream"]]
    return next((other for other in bare if other["n_prompt_tokens"] == row["n_prompt_tokens"]), bare[-1])


def _peer(gateway: dict[str, Any]) -> str:
    """Say what was done with LiteLLM's proxy."""
    if gateway["litellm"].startswith("skipped"):
        return f"LiteLLM's proxy: {gateway['litellm']}."
    return f"LiteLLM's proxy {gateway['litellm']}: one worker, a key, one model, no database, no routing."


def chaos() -> str:
    """What `turnout chaos` measured, one line a bound; and the soak, which is a run of its own."""
    report = json.loads((RESULTS / "chaos.json").read_text())
    checks = report["checks"]
    soak = RESULTS / "chaos_soak.json"
    if soak.exists():
        checks = [*checks, *json.loads(soak.read_text())["checks"]]
    lines = [
        f"`turnout chaos --seed {report['seed']}` on the same two cores, which gateway, providers, proxies and callers "
        f"share; load average at the start {report['load_average'][0]:g} (the soak is a run of its own, "
        "`--soak-minutes 30`, while tests ran beside it; *again* is a check measured once more after a mend):",
        "",
        "| check | what happens | asked | measured | met |",
        "|---|---|---|---|---|",
    ]
    for check in checks:
        for i, bound in enumerate(check["asked"]):
            asked = f"{bound['figure'].replace('_', ' ')} {bound['relation']} {_told(bound)}"
            again = " (again)" if check.get("is_rerun") else ""
            name, about = (f"`{check['name']}`{again}", check["about"]) if i == 0 else ("", "")
            lines.append(f"| {name} | {about} | {asked} | {bound['told']} | {'yes' if bound['is_met'] else '**no**'} |")
    return "\n".join(lines)


def loop() -> str:
    """The learning loop: the demo's stages, experiments, gates, swaps, and what it all costs."""
    demo = json.loads((RESULTS / "loop.json").read_text())
    stages = [
        f"| {name} | {row['n']:,} | {row['quality']:.3f} ± {row['quality_ci']:.3f} | {row['oracle_quality']:.3f} "
        f"| {row['usd_per_1000']:.3f} | {row['oracle_usd_per_1000']:.3f} | {row['regret_share']:.2f} |"
        for name, row in demo["stages"].items()
    ]
    return "\n".join(
        [
            f"`make loop-demo`: {demo['n_requests']:,} requests, {demo['n_failed']} failed, {demo['total_s']:.0f} s on "
            "two cores. Providers are SIMULATED, so that the truth is known; gateway, votes, labels, retraining, "
            f"gates, registry, shadow and experiment are real. A unit of quality is worth {demo['worth_usd']} USD. "
            "Exploration and votes are left to chance, so runs differ.",
            "",
            "| stage | requests | true quality | oracle | USD per 1,000 | oracle | regret (random = 1) |",
            "|---|---|---|---|---|---|---|",
            *stages,
            "",
            *_experiments(json.loads((RESULTS / "experiments.json").read_text())),
            "",
            *_gates(),
            "",
            *_costs(),
        ]
    )


def _experiments(found: dict[str, Any]) -> list[str]:
    worst, worlds = found["worst_false_positive_share"], found["no_effect"]
    peeked = [row["t_test_false_positive_share"]["value"] for row in worlds]
    power = [
        f"| {row['world']} | {row['effect']:+.0%} | {row['found_share']['value']:.0%} | {row['median_units']:,.0f} |"
        for row in found["power"]
        if row["found_share"]["value"] >= 0.5
    ]
    return [
        f"`python benchmarks/experiments.py`: {found['experiments']:,} simulated A/A experiments in each of "
        f"{len(worlds)} worlds, looked at after every 50 units: at most {worst['value']:.1%} ({worst['low']:.1%} to "
        f"{worst['high']:.1%}) show a difference that is not there; a t-test looked at as often {min(peeked):.0%} to "
        f"{max(peeked):.0%}. What is found where there is one, within {found['power_units']:,} units:",
        "",
        "| metric | effect | found | units, median |",
        "|---|---|---|---|",
        *power,
    ]


def _gates() -> list[str]:
    tables = {name: json.loads((RESULTS / f"gates_{name}.json").read_text()) for name in ("mix", "checkable")}
    kinds = list(tables["mix"]["kinds"])
    cells = {
        name: [
            f"{row['n_refused']} of {row['n']} ({row['low']:.0%} to {row['high']:.0%})"
            for row in (table["kinds"][kind] for kind in kinds)
        ]
        for name, table in tables.items()
    }
    return [
        "`python benchmarks/gates.py`: challengers refused by the gates, real trainings over several seeds:",
        "",
        "| challenger | `mix` | the sample |",
        "|---|---|---|",
        *(f"| {kind} | {mix} | {sample} |" for kind, mix, sample in zip(kinds, *cells.values(), strict=True)),
    ]


def _costs() -> list[str]:
    records = json.loads((RESULTS / "records.json").read_text())
    swaps = json.loads((RESULTS / "hot_swaps.json").read_text())
    shadow = json.loads((RESULTS / "shadow.json").read_text())["gateways"]
    log, writer, ratio = records["log"], records["writer"], records["requests"]["ratio_to_off"]
    export, again = log["export"]["wall_s"], log["export_unchanged"]["wall_s"]
    before, during = (swaps["latency_ms"][phase]["p99"] for phase in ("before", "while_swapping"))
    early, late = writer["memory_after_5_s_mb"], writer["memory_at_end_mb"]
    rows = [
        ("CPU a request: records on, against off", "≤ 1.15", f"{ratio['records']:.2f}"),
        ("… with prompts retained", "", f"{ratio['content']:.2f}"),
        ("… with an experiment", "≤ 1.15", f"{ratio['experiment']:.2f}"),
        *((f"… with {name}", "", f"{shadow[kind]['times_plain']:.2f}") for kind, name in _BESIDE.items()),
        (f"{log['n_records']:,} records: `turnout report`", "≤ 5 s", f"{sorted(log['report_s'])[1]:.1f} s"),
        ("… first export, export with nothing new", "", f"{export:.0f} s, {again:.1f} s"),
        (
            "… bytes of a record in SQLite, in Parquet",
            "",
            f"{log['sqlite_bytes_per_record']:,}, {log['parquet_bytes_per_record']:,}",
        ),
        (
            f"{writer['records_per_s']:,} records a second: memory after five seconds, at the end",
            "flat",
            f"{early:.0f} MB, {late:.0f} MB",
        ),
        (f"{swaps['n_swaps']} hot swaps under load: failed of {swaps['n_requests']:,}", "0", f"{swaps['n_failed']}"),
        ("… p99 before, while swapping", "< 2 ×", f"{before:.0f} ms, {during:.0f} ms"),
    ]
    return [
        "| what it costs (`benchmarks/records.py`, `shadow.py`, `hot_swaps.py`) | asked | measured |",
        "|---|---|---|",
        *(f"| {what} | {asked} | {measured} |" for what, asked, measured in rows),
    ]


#: Gateways of ``benchmarks/shadow.py``, against one with records and nothing else.
_BESIDE = {"exploring": "exploration", "shadow": "a challenger in the shadow of every decision"}


def _told(bound: dict[str, Any]) -> str:
    limit, unit = bound["limit"], bound["unit"]
    if unit == "share":
        return f"{100 * limit:g} %"
    return f"{1000 * limit:g} ms" if unit == "s" and 0 < limit < 1 else f"{limit:g} {unit}".strip()


def clients() -> str:
    """Every client that was run unchanged through the gateway, how it is pointed there, and whether it passed."""
    folder = ROOT / "tests" / "clients"
    known = {
        name: row
        for file in ("CLIENTS.toml", "node/CLIENTS.toml")
        for name, row in tomllib.loads((folder / file).read_text()).items()
    }
    tried = json.loads((RESULTS / "clients.json").read_text())
    lines = ["| client | version | the two lines it needs | passed |", "|---|---|---|---|"]
    for name, row in known.items():
        of_it = [result for result in tried if result["client"] == name]
        versions = ", ".join(sorted({result["version"] for result in of_it})) or "–"
        needed = "<br>".join(f"`{line}`" for line in row["configuration"])
        passed = f"{sum(result['passed'] for result in of_it)} of {len(of_it)}" if of_it else "not run"
        lines.append(f"| {row['title']} | {versions} | {needed} | {passed} |")
    return "\n".join(
        [*lines, "", "Of eight each: four dialects of the provider, and `auto` and a candidate's name as the model."]
    )


def settings() -> str:
    """Every setting, as ``turnout settings --markdown`` prints it."""
    from click.testing import CliRunner

    from serving.commands import settings as command

    return CliRunner().invoke(command, ["--markdown"], catch_exceptions=False).output.strip()


PARTS = {"figures": figures, "bench": bench, "loop": loop, "chaos": chaos, "clients": clients, "settings": settings}


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
