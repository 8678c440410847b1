"""The commands of the gateway: ``serve``, ``emulate``, ``key``, ``settings``, ``providers``, ``models``, ``add``.

Heavy imports stand inside the functions, so that ``turnout --help`` stays quick.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import uvicorn

    from serving.app import Application
    from serving.settings import Settings


@click.command()
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file; without one the demo config serves EMULATED answers.",
)
@click.option("--demo", is_flag=True, help="The demo config, said explicitly.")
@click.option("--host", help="In the place of server.host.")
@click.option("--port", type=click.IntRange(0, 65535), help="In the place of server.port; 0 takes a free one.")
def serve(config: Path | None, demo: bool, host: str | None, port: int | None) -> None:
    """Start the gateway."""
    if config is not None and demo:
        raise click.UsageError("--demo is the config that comes with the program; give it or --config, not both")
    from router.errors import RouterError
    from serving import logs
    from serving.app import create_app
    from serving.errors import GatewayError
    from serving.settings import load

    def read() -> Settings:
        return load(config, host=host, port=port)

    logs.configure()
    try:
        settings = read()
        application = create_app(settings, reread=read)
        server = server_of(application, settings, ready=lambda port: _greet(application, port))
        with logs.in_background():
            _run(server)
    except (GatewayError, RouterError) as error:
        raise click.ClickException(str(error)) from error
    if application.failure is not None:
        raise click.ClickException(str(application.failure))
    if not server.started:
        raise click.ClickException(f"cannot listen on {settings.server.host}:{settings.server.port}")


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8081, show_default=True, help="0 takes a free one.")
@click.option("--speed", type=click.FloatRange(min=0), default=1.0, show_default=True, help="0 never waits.")
def emulate(port: int, speed: float) -> None:
    """Start the emulated providers alone, to point a config's base_url at."""
    from serving import logs
    from serving.emulator import EmulatorServer

    logs.configure()

    async def run() -> None:
        emulator = EmulatorServer(port=port, speed=speed)
        try:
            click.echo(f"EMULATED providers at {await emulator.start()} (made-up answers; ctrl-c ends them)")
            await asyncio.Event().wait()
        finally:
            await emulator.stop()

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        click.echo("stopped")
    except OSError as error:
        raise click.ClickException(f"cannot listen on 127.0.0.1:{port}: {error.strerror}") from error


@click.group()
def key() -> None:
    """Make keys for clients."""


@key.command()
@click.option("--name", default="client", show_default=True, help="Stands in records and logs.")
def new(name: str) -> None:
    """Print a new key, once, and the lines that let the gateway know it by its hash."""
    from serving import tables
    from serving.keys import new_key

    try:
        tables.name(name)
    except ValueError as expected:
        raise click.BadParameter(f"{name!r}: expected {expected}", param_hint="--name") from expected
    secret, sha256 = new_key()
    click.echo(f"The key, shown only now:\n\n    {secret}\n\nFor the config:\n")
    click.echo(f'[[keys]]\nname = "{name}"\nsha256 = "{sha256}"\nmodels = ["*"]')


@click.command()
@click.option("--markdown", is_flag=True, help="As the table that stands in the documentation.")
def settings(markdown: bool) -> None:
    """Print every key of the config file with default, unit and meaning."""
    from serving.settings import reference

    rows = [(row.key, row.default or "(required)", row.unit, row.help) for row in reference()]
    if markdown:
        click.echo("| key | default | unit | meaning |\n|---|---|---|---|")
        for row in rows:
            click.echo(f"| `{row[0]}` | `{row[1]}` | {row[2]} | {row[3]} |")
        return
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        click.echo("  ".join((*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3])))


@click.command()
@click.option("--markdown", is_flag=True, help="As the table that stands in the documentation.")
def providers(markdown: bool) -> None:
    """Print the providers that need no base_url: name, APIs, variable of the key, root.

    An API in brackets is served too, but with less than another of theirs: it is used where `apis` names it.
    """
    from serving.providers.directory import PROVIDERS

    billed = {True: "stops", False: "goes on", None: "unknown"}
    rows = [
        (
            row.name,
            row.title,
            " ".join((*row.dialects, *(f"[{api}]" for api in row.roots if api in row.unfaithful))),
            row.key_env or "(none)",
            billed[row.stops_billing],
            row.roots[row.dialects[0]],
        )
        for row in PROVIDERS.values()
    ]
    heads = ("name", "provider", "APIs", "key", "bill of a cancelled stream", "root")
    if markdown:
        click.echo(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
        for name, title, served, key, bill, root in rows:
            click.echo(f"| `{name}` | {title} | {served} | `{key}` | {bill} | `{root}` |")
        return
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    for row in (heads, *rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@click.command()
@click.option("--search", default="", help="Part of a model's name, whatever its case.")
@click.option("--provider", help="Of this one of `turnout providers` alone.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line, with the prices of long requests.")
def models(search: str, provider: str | None, as_json: bool) -> None:
    """Print the LLMs that the price catalogue knows: provider, model, USD per million tokens, context in tokens.

    A last column says what else it knows: that long requests cost more, what is paid for apart (sound, searches, each
    request: no cost here counts it), that the end is near. It does not know whether an LLM takes tools, images at the
    price of text or a JSON schema, nor how long an answer may be: [[candidates]] says so.
    """
    import orjson

    from serving.providers.catalogue import entries
    from serving.providers.directory import PROVIDERS

    ours = {row.catalogue or row.name: row.name for row in PROVIDERS.values()}
    if provider is not None and provider not in ours.values():
        raise click.ClickException(f"--provider {provider!r}: expected a name that `turnout providers` lists")
    rows = [
        (ours.get(entry.provider, entry.provider), entry)
        for entry in entries()
        if search.lower() in entry.model.lower() and provider in (None, ours.get(entry.provider))
    ]
    if not rows:
        raise click.ClickException(f"the catalogue knows no model of which the name holds {search!r}")
    if not as_json:
        heads = "".join(f"{head:>9}" for head in ("input", "cached", "written", "output"))
        click.echo(f"{'provider':24}{'model':56}{heads}{'context':>11}  known besides")
    for who, entry in rows:
        price = entry.price
        assert price is not None, "entries() has priced ones only"
        if as_json:
            said = {"provider": who, "model": entry.model, **asdict(price)}
            rest = {name: getattr(entry, name) for name in ("context_window_tokens", "paid_apart", "is_deprecated")}
            click.echo(orjson.dumps({**said, **rest}))
            continue
        cells = (
            price.input_usd_per_mtok,
            price.cache_read_usd_per_mtok,
            price.cache_write_usd_per_mtok,
            price.output_usd_per_mtok,
        )
        told = "".join(f"{'–' if cell is None else format(cell, 'g'):>9}" for cell in cells)
        besides = [f"dearer above {tier.above_input_tokens:,} tokens" for tier in price.tiers[:1]]
        besides += [f"paid apart: {', '.join(entry.paid_apart).replace('_', ' ')}"] if entry.paid_apart else []
        besides += ["deprecated"] if entry.is_deprecated else []
        line = f"{who:24}{entry.model:56}{told}{entry.context_window_tokens or '–':>11}  {'; '.join(besides)}"
        click.echo(line.rstrip())


@click.command()
@click.argument("model")
@click.option("--provider", help="Whose, where several serve it.")
@click.option("--name", help="What clients call it. Default: the model's own name.")
@click.option("--like", help="Candidate of the bundle whose predictions it borrows; without one auto never takes it.")
@click.option("--base-url", default="", help="Where the provider needs yours (Azure, Vertex, …).")
@click.option("--api", "apis", multiple=True, help="By which API, where not by the usual one: messages, …; repeatable.")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), default=Path("turnout.toml"))
def add(
    model: str,
    provider: str | None,
    name: str | None,
    like: str | None,
    base_url: str,
    apis: tuple[str, ...],
    config: Path,
) -> None:
    """Append an LLM of the catalogue to a config file, once the whole of it has been read back without a problem."""
    from serving.addition import add as append
    from serving.addition import find
    from serving.errors import GatewayError

    try:
        row, entry = find(model, provider)
        text = append(config, row, entry, name or model, like, base_url, apis)
    except GatewayError as error:
        raise click.ClickException(str(error)) from error
    click.echo(text)
    click.echo(f"appended to {config}" + (f"; it needs the variable {row.key_env}" if row.key_env else ""))


def server_of(application: Application, settings: Settings, ready: Callable[[int], None]) -> uvicorn.Server:
    """Make the HTTP server for an application.

    Parameters
    ----------
    application : Application
    settings : Settings
        Where it listens.
    ready : callable
        Called with the port once requests are accepted.

    Returns
    -------
    uvicorn.Server
        Not yet running.
    """
    import uvicorn

    from serving.arrival import protocol_of
    from serving.server import Server

    config = uvicorn.Config(
        application,
        host=settings.server.host,
        port=settings.server.port,
        http=protocol_of(application.limits),
        loop="uvloop",
        ws="none",
        lifespan="on",
        access_log=False,
        server_header=False,
        # Nothing here acts on the client's address, and X-Forwarded-For is only a claim.
        proxy_headers=False,
        log_config=None,
    )
    return Server(config, application.gateway.drain, settings.server.shutdown_timeout_s, ready)


def _run(server: uvicorn.Server) -> None:
    import signal

    # uvicorn raises the signal again once it has shut down; the default would end us with log lines unwritten.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.run()
    except KeyboardInterrupt:
        return
    except SystemExit:
        # uvicorn's way to say that it could not start; serve() says why.
        return
    finally:
        signal.signal(signal.SIGTERM, before)


def _greet(application: Application, port: int) -> None:
    from serving.banner import greet

    greet(application.gateway.ready(), port)
