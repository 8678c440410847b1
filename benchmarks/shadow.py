"""What exploring and a challenger in the shadow cost: CPU time per request of four gateways, in one run.

``python benchmarks/shadow.py`` starts the emulator (it answers after 20 ms, so that the shadow is there in time) and
four gateways on the shipped bundle, with client key, SQLite records and request log: plain, exploring a tenth of all
requests, with a challenger (the same graphs under another version) asked for all of them, and both. Rounds alternate; a
figure is the CPU time of the server process over the requests of a round, a ratio the median over rounds against the
plain one of the same round. Latencies say whether anybody waits. Prints a table and writes
``benchmarks/results/shadow.json``.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "gateway"), str(HERE)]

import click  # noqa: E402
from load import Load, Sent, send  # noqa: E402
from processes import ROOT, Server, ours, started  # noqa: E402

_SETTLE_S = 1.3
_EXPLORE = "[routing]\nexplore_share = 0.1\nexplore_max_usd_per_day = 1000\n"
_PRICES = (("gpt-4o-2024-05-13", 5.0, 15.0), ("gemini-1.5-flash", 0.075, 0.3), ("phi-3-mini", 0.1, 0.1))
_N_WARM_UP = 200


def _challenger(folder: Path, bundle: Path) -> Path:
    """Write the shipped bundle once more, under another version."""
    from router.bundle import load, write

    manifest = load(bundle).manifest
    files = {name: (bundle / name).read_bytes() for name in manifest.files}
    write(folder, replace(manifest, version=f"{manifest.version}-shadow"), files)
    return folder


def _config(path: Path, emulator: str, bundle: Path, more: str) -> str:
    """Write one gateway's settings; return the key of its client."""
    from serving.keys import new_key

    secret, sha256 = new_key()
    lines = [
        f'[server]\nbundle = "{bundle}"\ndatabase = "{path.with_suffix(".sqlite")}"\n{more}',
        f'[[providers]]\nname = "emulator"\nbase_url = "{emulator}/v1"\n',
        f'[[keys]]\nname = "benchmark"\nsha256 = "{sha256}"\n',
    ]
    for name, input_usd, output_usd in _PRICES:
        lines.append(
            f'[[candidates]]\nname = "{name}"\ninput_usd_per_mtok = {input_usd}\noutput_usd_per_mtok = {output_usd}\n'
            f'deployments = [{{ provider = "emulator", model = "{name}" }}]\n'
        )
    path.write_text("\n".join(lines))
    return secret


def _slow(emulator: str) -> None:
    body = json.dumps({"model": "*", "fault": {"delay_s": 0.02}}).encode()
    request = urllib.request.Request(f"{emulator}/emulator/faults", body, {"content-type": "application/json"})
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10).read()


def _pool(server: Server, secret: str) -> dict[str, object]:
    request = urllib.request.Request(f"{server.origin}/v1/pool", headers={"authorization": f"Bearer {secret}"})
    view = json.load(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10))
    return {"exploration": view["exploration"], "shadow": view["shadow"], "records": view["records"]}


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), default=None, help="Default: the shipped one.")
@click.option("--requests", default=1_500, show_default=True, help="Per gateway and round.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--connections", default=8, show_default=True)
@click.option("--tokens", default=512, show_default=True, help="Of each question.")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "benchmarks/results/shadow.json")
def main(bundle: Path | None, requests: int, rounds: int, connections: int, tokens: int, out: Path) -> None:
    """Measure."""
    from serving.bundle_folder import bundle_folder

    champion = bundle_folder((bundle or ROOT / "models" / "default").resolve())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shadow = f'[shadow]\nbundle = "{_challenger(folder / "challenger", champion)}"\n'
        emulator = stack.enter_context(started(ours("emulator"), "/v1/models"))
        _slow(emulator.origin)
        kinds = {"plain": "", "exploring": _EXPLORE, "shadow": shadow, "both": _EXPLORE + shadow}
        servers: dict[str, tuple[Server, str]] = {}
        for kind, more in kinds.items():
            path = folder / f"{kind}.toml"
            secret = _config(path, emulator.origin, champion, more)
            serve = [sys.executable, "-c", "from router.cli import main; main()", "serve", "--config", str(path)]
            server = stack.enter_context(started([*serve, "--port", "0"], "/readyz", folder / f"{kind}.log"))
            servers[kind] = (server, secret)
        cpu_ms: dict[str, list[float]] = {kind: [] for kind in kinds}
        sent: dict[str, list[Sent]] = {kind: [] for kind in kinds}
        for round_ in range(-1, rounds):
            # Every other round backwards: whatever drifts on the machine drifts for all.
            for kind in list(kinds) if round_ % 2 == 0 else reversed(list(kinds)):
                server, secret = servers[kind]
                n = requests if round_ >= 0 else _N_WARM_UP
                before_s = server.cpu_s()
                load = Load(server.origin, "chat", "auto", True, False, tokens, n, connections, 1_000 + round_)
                came = send(server, load, secret)
                time.sleep(_SETTLE_S)
                if round_ >= 0:
                    cpu_ms[kind].append((server.cpu_s() - before_s) / n * 1e3)
                    sent[kind].append(came)
        rows = {
            kind: {
                "cpu_ms": round(median(taken), 4),
                "times_plain": round(median(one / base for one, base in zip(taken, cpu_ms["plain"], strict=True)), 3),
                "p50_ms": round(median(one.p50_ms for one in sent[kind]), 2),
                "p99_ms": round(median(one.p99_ms for one in sent[kind]), 2),
                "memory_mb": round(servers[kind][0].memory_mb("VmRSS")),
                **_pool(*servers[kind]),
            }
            for kind, taken in cpu_ms.items()
        }
    report = {
        "python": platform.python_version(),
        "n_cpus": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "requests_per_round": requests,
        "rounds": rounds,
        "connections": connections,
        "question_tokens": tokens,
        "gateways": rows,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    for kind, row in rows.items():
        click.echo(
            f"{kind:<10} {row['cpu_ms']:.3f} ms CPU a request, {row['times_plain']:.2f} × plain; "
            f"p50 {row['p50_ms']} ms, p99 {row['p99_ms']} ms; {row['memory_mb']} MB"
        )


if __name__ == "__main__":
    main()
