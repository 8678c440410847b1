"""CPU time per request: the gateway, a bare pass-through and LiteLLM's proxy, in one run.

``python benchmarks/gateway [--litellm PYTHON]`` starts on loopback: the emulator (speed 0), four gateways
(``turnout serve``: routing, a client key, pool status, SQLite records and the request log all on), one for each
dialect that providers speak, a bare pass-through (:mod:`bare`), and LiteLLM's proxy where PYTHON has it. Each case of
:mod:`cases` is a load from a process of its own. Rounds alternate; a figure is the CPU time of the *server* process
(user and system, all threads) over the requests of a round, a ratio the median over rounds of server / bare of the
same round. Also measured: start to ready, resident memory, latency at one connection.

Streams come one event at a time (the emulator pauses between them), as providers send them: events that arrive
together would cost everybody less.

Prints a table and writes ``benchmarks/results/gateway.json``.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import bare as bare_server  # noqa: E402
import click  # noqa: E402
import peer  # noqa: E402
from cases import LITELLM, STREAM_CASES, WHOLE_CASES, Case  # noqa: E402
from load import Load, Sent, run, send  # noqa: E402
from processes import ROOT, Server, ours, say_port, started  # noqa: E402
from report import rows_of, show  # noqa: E402

CANDIDATES = (
    ("gpt-4o-2024-05-13", 5.0, 15.0),
    ("gemini-1.5-pro", 1.25, 5.0),
    ("llama-3.1-70b-instruct", 0.88, 0.88),
    ("gemini-1.5-flash", 0.075, 0.3),
    ("llama-3.1-8b-instruct", 0.18, 0.18),
    ("phi-3-mini", 0.1, 0.1),
)
_ROOTS = {"chat": "/v1", "responses": "/v1", "messages": "", "gemini": "/v1beta"}
#: The records of the last second are still being written when a load has ended, and count.
_SETTLE_S = 1.3
_EVENT_EVERY_S = 0.004
_N_WARM_UP = 100


@click.group(invoke_without_command=True)
@click.option("--bundle", type=click.Path(path_type=Path), default=ROOT / "models" / "default", show_default=True)
@click.option("--requests", default=2_000, show_default=True, help="Per case and round; long ones get a share.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--connections", default=8, show_default=True)
@click.option("--streams", default=16, show_default=True, help="Streams at once.")
@click.option("--litellm", default="", help="A Python that has litellm[proxy], in an environment of its own.")
@click.option("--only", default="", help="Only cases with this in their name, and the bare pass-through.")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "benchmarks/results/gateway.json")
@click.pass_context
def main(
    context: click.Context,
    bundle: Path,
    requests: int,
    rounds: int,
    connections: int,
    streams: int,
    litellm: str,
    only: str,
    out: Path,
) -> None:
    """Measure; the subcommands are the processes it starts."""
    if context.invoked_subcommand is not None:
        return
    version = peer.version_of(litellm)
    wholes = [*WHOLE_CASES, *([] if version.startswith("skipped") else [LITELLM])]
    cases = [case for case in (*wholes, *STREAM_CASES) if case.server == "bare" or only in case.name]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bench = _Bench(stack, folder, bundle.resolve(), cases, litellm, requests, connections, streams)
        gateway = bench.gateways["chat"]
        idle_mb = gateway.memory_mb("VmRSS")
        cpu_ms, sent = bench.measure(cases, rounds)
        report = {
            "python": platform.python_version(),
            "n_cpus": os.cpu_count(),
            "load_average": round(os.getloadavg()[0], 2),
            "connections": connections,
            "requests_per_round": requests,
            "rounds": rounds,
            "ready_s": round(gateway.ready_s, 2),
            "idle_mb": round(idle_mb),
            "loaded_mb": round(gateway.memory_mb("VmRSS")),
            "n_candidates": len(CANDIDATES),
            "litellm": version,
            "latency_ms": {
                "gateway": bench.alone(Case("chat", "chat")),
                "bare": bench.alone(Case("chat", "chat", "bare")),
            },
            "cases": rows_of(cases, cpu_ms, sent),
        }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    show(report)


class _Bench:
    """The servers of one run, and what is sent to them."""

    def __init__(
        self,
        stack: ExitStack,
        folder: Path,
        bundle: Path,
        cases: Iterable[Case],
        litellm: str,
        n_requests: int,
        n_connections: int,
        n_streams: int,
    ) -> None:
        self._n_requests = n_requests
        self._n_connections = n_connections
        self._n_streams = n_streams
        self._emulator = stack.enter_context(started(ours("emulator"), "/v1/models"))
        url = f"{self._emulator.origin}/v1/chat/completions"
        self._bare = stack.enter_context(started(ours("bare", url), "/"))
        self.gateways: dict[str, Server] = {}
        self._secrets: dict[str, str] = {}
        for upstream in dict.fromkeys(["chat", *(case.upstream for case in cases)]):
            path = folder / f"{upstream}.toml"
            self._secrets[upstream] = _write_config(path, bundle, self._emulator.origin, upstream)
            serve = [sys.executable, "-c", "from router.cli import main; main()", "serve", "--config", str(path)]
            log = folder / f"{upstream}.log"
            self.gateways[upstream] = stack.enter_context(started([*serve, "--port", "0"], "/readyz", log))
        self._litellm: Server | None = None
        if any(case.server == "litellm" for case in cases):
            start, port = peer.command(litellm, folder, self._emulator.origin, CANDIDATES[0][0])
            self._litellm = stack.enter_context(
                started(start, peer.READY, folder / "peer.log", port=port, env=peer.environment())
            )

    def measure(self, cases: list[Case], rounds: int) -> tuple[dict[Case, list[float]], dict[Case, Sent]]:
        """Return CPU milliseconds per request, by case and round, and the last load's own account of each."""
        cpu_ms: dict[Case, list[float]] = {case: [] for case in cases}
        sent: dict[Case, Sent] = {}
        groups = [[case for case in cases if case.n_streamed == n] for n in sorted({c.n_streamed for c in cases})]
        for round_ in range(-1, rounds):
            for group in groups:
                self._stream_of(group[0].n_streamed)
                # Every other round backwards: whatever drifts on the machine drifts for all.
                for case in group if round_ % 2 == 0 else reversed(group):
                    if round_ < 0:
                        self._send(case, max(_N_WARM_UP * case.share, 20), round_)
                    else:
                        taken_ms, sent[case] = self._measured(case, round_)
                        cpu_ms[case].append(taken_ms)
                        click.echo(f"{round_ + 1}/{rounds} {case.name:<40} {taken_ms:.3f} ms", err=True)
        self._stream_of(0)
        return cpu_ms, sent

    def alone(self, case: Case) -> dict[str, float]:
        """Return latencies at one connection."""
        sent = self._send(case, 300, -2, n_connections=1)
        return {"p50": sent.p50_ms, "p99": sent.p99_ms}

    def _measured(self, case: Case, round_: int) -> tuple[float, Sent]:
        server = self._server_of(case)
        n = self._n_requests * case.share
        before_s = server.cpu_s()
        sent = self._send(case, n, round_)
        time.sleep(_SETTLE_S)
        return (server.cpu_s() - before_s) / int(n) * 1e3, sent

    def _send(self, case: Case, n: float, round_: int, n_connections: int = 0) -> Sent:
        server = self._server_of(case)
        secret = {"bare": "", "litellm": peer.KEY}.get(case.server, self._secrets[case.upstream])
        load = Load(
            origin=server.origin,
            shape=case.client,
            model="auto",
            says_whom=case.server == "gateway",
            is_stream=case.n_streamed > 0,
            n_tokens=case.n_tokens,
            n_requests=int(n),
            n_connections=n_connections or (self._n_streams if case.n_streamed else self._n_connections),
            seed=case.n_tokens * 1_000 + round_,
        )
        return send(server, load, secret)

    def _server_of(self, case: Case) -> Server:
        if case.server == "litellm":
            assert self._litellm is not None
            return self._litellm
        return self._bare if case.server == "bare" else self.gateways[case.upstream]

    def _stream_of(self, n_tokens: int) -> None:
        """Have the emulator answer with so many tokens, one at a time; 0 is whatever it likes, at once."""
        steps = [{"text": "some " * (n_tokens * 4 // 5)}] if n_tokens else None
        _post(f"{self._emulator.origin}/emulator/script", {"model": "*", "steps": steps})
        fault = {"event_delay_s": _EVENT_EVERY_S} if n_tokens else None
        _post(f"{self._emulator.origin}/emulator/faults", {"model": "*", "fault": fault})


@main.command(hidden=True)
def emulator() -> None:
    """Serve the emulated providers without ever sleeping."""
    import asyncio

    import uvloop

    from serving.emulator import EmulatorServer

    async def serve() -> None:
        server = EmulatorServer(speed=0)
        say_port(int((await server.start()).rpartition(":")[2].partition("/")[0]))
        await asyncio.Event().wait()

    uvloop.run(serve())


@main.command(hidden=True)
@click.argument("url")
def bare(url: str) -> None:
    """Parse and forward, nothing else."""
    bare_server.serve(url, CANDIDATES[0][0])


@main.command(hidden=True)
@click.argument("what")
def load(what: str) -> None:
    """Send one load."""
    run(Load(**json.loads(what)))


def _write_config(path: Path, bundle: Path, emulator: str, upstream: str) -> str:
    """Write settings with six candidates at the emulator, spoken to in one dialect, and a key; return the key."""
    from serving.keys import new_key

    secret, sha256 = new_key()
    lines = [
        f'[server]\nbundle = "{bundle}"\ndatabase = "{path.with_suffix(".sqlite")}"\n',
        f'[[providers]]\nname = "emulator"\nbase_url = "{emulator}{_ROOTS[upstream]}"\napis = ["{upstream}"]\n',
        f'[[keys]]\nname = "benchmark"\nsha256 = "{sha256}"\n',
    ]
    for name, input_usd, output_usd in CANDIDATES:
        lines.append(
            f'[[candidates]]\nname = "{name}"\ninput_usd_per_mtok = {input_usd}\noutput_usd_per_mtok = {output_usd}\n'
            f'context_window_tokens = 128000\ndeployments = [{{ provider = "emulator", model = "{name}" }}]\n'
        )
    path.write_text("\n".join(lines))
    return secret


def _post(url: str, body: object) -> None:
    headers = {"content-type": "application/json"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    opener.open(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=10).read()


if __name__ == "__main__":
    main()
