"""CPU time per unstreamed chat request: the gateway, a bare pass-through and the emulator, in one run.

``python benchmarks/gateway.py [--bundle DIR]`` starts four processes on loopback: the emulator (speed 0), the real
gateway (``turnout serve``: routing, a client key, pool status, SQLite records and the request log all on), a bare
pass-through (the same uvicorn, httptools and uvloop, the same upstream client; it parses the JSON, sets ``model``,
forwards, and nothing else) and a load generator. Rounds alternate; each figure is the CPU time of the *server*
process (user and system, all threads) over the requests of a round, and the ratio is the median over rounds of
gateway / bare of the same round. Also measured: start to ready, resident memory, latency at one connection.

Prints a table and writes ``benchmarks/results/gateway.json``.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import click
import orjson

ROOT = Path(__file__).resolve().parents[1]
CHAT = "/v1/chat/completions"
TARGET_RATIO = 2.5
CANDIDATES = (
    ("gpt-4o-2024-05-13", 5.0, 15.0),
    ("gemini-1.5-pro", 1.25, 5.0),
    ("llama-3.1-70b-instruct", 0.88, 0.88),
    ("gemini-1.5-flash", 0.075, 0.3),
    ("llama-3.1-8b-instruct", 0.18, 0.18),
    ("phi-3-mini", 0.1, 0.1),
)


@dataclass(frozen=True, slots=True)
class Server:
    """A process that serves, and where."""

    name: str
    pid: int
    origin: str
    ready_s: float

    def cpu_s(self) -> float:
        """Return the CPU time it has used: user and system, all threads, those that ended included."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self, key: str) -> float:
        """Return VmRSS (now) or VmHWM (most ever)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split(f"{key}:")[1].split()[0]) / 1024


@click.group(invoke_without_command=True)
@click.option("--bundle", type=click.Path(path_type=Path), default=ROOT / "models" / "default", show_default=True)
@click.option("--requests", default=2_000, show_default=True, help="Per server and round.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--connections", default=8, show_default=True)
@click.option("--tokens", multiple=True, default=(64, 512), show_default=True, help="Prompt size, estimated tokens.")
@click.option("--routing-only", is_flag=True, help="No key and no records: routing alone on top of forwarding.")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "benchmarks/results/gateway.json")
@click.pass_context
def main(
    context: click.Context,
    bundle: Path,
    requests: int,
    rounds: int,
    connections: int,
    tokens: tuple[int, ...],
    routing_only: bool,
    out: Path,
) -> None:
    """Measure; the subcommands are the processes it starts."""
    if context.invoked_subcommand is not None:
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        emulator = stack.enter_context(_started("emulator", [__file__, "emulator"], "/v1/models"))
        bare = stack.enter_context(_started("bare", [__file__, "bare", emulator.origin + CHAT], "/healthz"))
        database = None if routing_only else folder / "records.sqlite"
        secret = _write_config(folder / "turnout.toml", bundle.resolve(), emulator.origin, database)
        serve = ["-c", "from router.cli import main; main()", "serve", "--config", str(folder / "turnout.toml")]
        gateway = stack.enter_context(_started("gateway", [*serve, "--port", "0"], "/readyz", folder / "gateway.log"))
        servers = {"gateway": (gateway, "auto", secret), "bare": (bare, "auto", ""), "emulator": (emulator, "x", "")}
        idle_mb = gateway.memory_mb("VmRSS")
        rows = [_measure(servers, size, requests, rounds, connections, folder) for size in tokens]
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
            "most_mb": round(gateway.memory_mb("VmHWM")),
            "n_candidates": len(CANDIDATES),
            "by_prompt": rows,
        }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    _print(report, rows)


@main.command(hidden=True)
def emulator() -> None:
    """Serve the emulated providers without ever sleeping."""
    import uvloop

    from serving.emulator import EmulatorServer

    async def run() -> None:
        server = EmulatorServer(speed=0)
        _say_port(int((await server.start()).rpartition(":")[2].partition("/")[0]))
        await asyncio.Event().wait()

    uvloop.run(run())


@main.command(hidden=True)
@click.argument("url")
def bare(url: str) -> None:
    """Parse and forward, nothing else."""
    import uvicorn

    from serving.edge import Message, Receive, Scope, Send
    from serving.providers.upstream import AiohttpUpstream, UpstreamRequest

    upstream = AiohttpUpstream()
    sent_headers = {"content-type": "application/json"}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] == "lifespan.startup":
                await upstream.open()
                await send({"type": "lifespan.startup.complete"})
            await upstream.close()
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["path"] != CHAT:
            await _reply(send, 200, b"{}")
            return
        message: Message = await receive()
        body = message["body"]
        while message["more_body"]:
            message = await receive()
            body += message["body"]
        request = orjson.loads(body)
        request["model"] = CANDIDATES[0][0]
        response = await upstream.send(UpstreamRequest(url, sent_headers, orjson.dumps(request)))
        answer = await response.read()
        await response.close()
        await _reply(send, response.status, answer)

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[object] | None = None) -> None:
            await super().startup(sockets)
            _say_port(self.servers[0].sockets[0].getsockname()[1])

    options = {"loop": "uvloop", "http": "httptools", "ws": "none", "access_log": False, "log_config": None}
    Announcing(uvicorn.Config(app, port=0, lifespan="on", server_header=False, **options)).run()


@main.command(hidden=True)
@click.argument("origin")
@click.argument("model")
@click.argument("tokens", type=int)
@click.argument("requests", type=int)
@click.argument("connections", type=int)
@click.argument("seed", type=int)
def load(origin: str, model: str, tokens: int, requests: int, connections: int, seed: int) -> None:
    """Send requests, no two alike; print latencies in milliseconds as JSON. The key comes in the environment."""
    import aiohttp
    import uvloop
    from decision import prompt

    rng = random.Random(seed)
    bodies = [
        orjson.dumps({"model": model, "messages": [{"role": "user", "content": prompt(tokens, rng)}], "temperature": 0})
        for _ in range(requests)
    ]
    headers = {"content-type": "application/json"}
    if key := os.environ.get("TURNOUT_BENCHMARK_KEY"):
        headers["authorization"] = f"Bearer {key}"

    async def run() -> list[float]:
        taken_ms: list[float] = []
        left = iter(bodies)
        connector = aiohttp.TCPConnector(limit=connections)
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

            async def work() -> None:
                for body in left:
                    began = time.perf_counter()
                    async with session.post(origin + CHAT, data=body) as response:
                        answer = await response.read()
                        if response.status != 200 or b'"choices"' not in answer:
                            raise click.ClickException(f"{origin} answered {response.status}: {answer[:300]!r}")
                        if model == "auto" and key and "x-turnout-candidate" not in response.headers:
                            raise click.ClickException("the gateway did not say whom it chose")
                    taken_ms.append((time.perf_counter() - began) * 1e3)

            await asyncio.gather(*(work() for _ in range(connections)))
        return taken_ms

    click.echo(json.dumps(uvloop.run(run())))


def _measure(
    servers: dict[str, tuple[Server, str, str]], tokens: int, requests: int, rounds: int, connections: int, folder: Path
) -> dict[str, object]:
    """Alternate rounds over the servers at one prompt size."""
    seed = tokens * 1_000
    cpu_ms: dict[str, list[float]] = {name: [] for name in servers}
    emulator = servers["emulator"][0]
    for name in servers:
        _load(servers[name], tokens, 200, connections, seed - 1)
    for round_ in range(rounds):
        # Every other round backwards: whatever drifts on the machine drifts for all.
        for name in list(servers) if round_ % 2 == 0 else reversed(servers):
            server = servers[name][0]
            before_s = server.cpu_s()
            _load(servers[name], tokens, requests, connections, seed + round_)
            # The records of the last second are still being written, and count.
            time.sleep(1.3)
            cpu_ms[name].append((server.cpu_s() - before_s) / requests * 1e3)
    row: dict[str, object] = {"n_prompt_tokens": tokens}
    for name, taken in cpu_ms.items():
        row[f"{name}_cpu_ms"] = round(statistics.median(taken), 4)
        row[f"{name}_cpu_ms_rounds"] = [round(ms, 4) for ms in taken]
    ratios = [g / b for g, b in zip(cpu_ms["gateway"], cpu_ms["bare"], strict=True)]
    row["ratio"] = round(statistics.median(ratios), 3)
    row["ratio_rounds"] = [round(ratio, 3) for ratio in ratios]
    for name in servers:
        alone_ms = sorted(_load(servers[name], tokens, 300, 1, seed - 2))
        row[f"{name}_p50_ms"] = round(alone_ms[len(alone_ms) // 2], 3)
        row[f"{name}_p99_ms"] = round(alone_ms[int(len(alone_ms) * 0.99)], 3)
    assert emulator.cpu_s() > 0
    return row


def _load(target: tuple[Server, str, str], tokens: int, requests: int, connections: int, seed: int) -> list[float]:
    """Run the load generator once, in its own process."""
    server, model, secret = target
    arguments = [server.origin, model, *map(str, (tokens, requests, connections, seed))]
    done = subprocess.run(
        [sys.executable, __file__, "load", *arguments],
        env={**_environment(), "TURNOUT_BENCHMARK_KEY": secret},
        stdout=subprocess.PIPE,
        check=True,
        timeout=300,
    )
    taken_ms: list[float] = json.loads(done.stdout)
    assert len(taken_ms) == requests
    return taken_ms


@contextmanager
def _started(name: str, arguments: list[str], ready_path: str, log: Path | None = None) -> Iterator[Server]:
    """Start a server process, wait until it answers, end it afterwards."""
    import http.client

    began = time.perf_counter()
    sink = log.open("w") if log else subprocess.DEVNULL
    process = subprocess.Popen(
        [sys.executable, *arguments], env=_environment(), stdout=subprocess.PIPE, stderr=sink, text=True
    )
    try:
        port = _port_of(process, log)
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            try:
                connection.request("GET", ready_path)
                if connection.getresponse().status == 200:
                    break
            except OSError:
                if process.poll() is not None:
                    raise
            finally:
                connection.close()
            time.sleep(0.01)
        ready_s = time.perf_counter() - began
        yield Server(name, process.pid, f"http://127.0.0.1:{port}", ready_s)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port_of(process: subprocess.Popen[str], log: Path | None) -> int:
    """Read on standard output where a server listens: its last address with a port on the first line that has one."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if "127.0.0.1:" in line:
            return int("".join(c for c in line.split("127.0.0.1:")[1].split("/")[0].split()[0] if c.isdigit()))
    raise click.ClickException("".join(seen) + (log.read_text() if log else "") + "a server did not start")


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT), str(ROOT / "datasets"), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def _write_config(path: Path, bundle: Path, emulator: str, database: Path | None) -> str:
    """Write settings with six candidates at the emulator, and one key unless there are no records; return the key."""
    from serving.keys import new_key

    secret, sha256 = new_key()
    lines = [
        f'[server]\nbundle = "{bundle}"\ndatabase = "{database or ""}"\n',
        f'[[providers]]\nname = "emulator"\nbase_url = "{emulator}/v1"\n',
    ]
    if database is not None:
        lines.append(f'[[keys]]\nname = "benchmark"\nsha256 = "{sha256}"\n')
    for name, input_usd, output_usd in CANDIDATES:
        lines.append(
            f'[[candidates]]\nname = "{name}"\ninput_usd_per_mtok = {input_usd}\noutput_usd_per_mtok = {output_usd}\n'
            f'context_window_tokens = 128000\ndeployments = [{{ provider = "emulator", model = "{name}" }}]\n'
        )
    path.write_text("\n".join(lines))
    return secret if database is not None else ""


def _print(report: dict[str, object], rows: list[dict[str, object]]) -> None:
    click.echo(
        f"ready {report['ready_s']} s after start; {report['idle_mb']} MB idle, {report['loaded_mb']} MB after load; "
        f"load average {report['load_average']}"
    )
    click.echo(f"{'prompt':>8} {'server':>9} {'CPU ms':>8} {'p50 ms':>8} {'p99 ms':>8}   (latency at one connection)")
    for row in rows:
        for name in ("emulator", "bare", "gateway"):
            figures = [row[f"{name}_{what}"] for what in ("cpu_ms", "p50_ms", "p99_ms")]
            click.echo(f"{row['n_prompt_tokens']:>8} {name:>9} {figures[0]:>8} {figures[1]:>8} {figures[2]:>8}")
        click.echo(f"{'':>8} gateway / bare = {row['ratio']} (rounds {row['ratio_rounds']}; target {TARGET_RATIO})")


async def _reply(send: object, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})  # type: ignore[operator]
    await send({"type": "http.response.body", "body": body})  # type: ignore[operator]


def _say_port(port: int) -> None:
    click.echo(f"127.0.0.1:{port}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
