"""``turnout pool``: a live table of a running gateway's pool, in the terminal.

It asks ``GET /v1/pool`` again and again and shows no more than that says. Entry points: :func:`pool` (the command),
:func:`table_of`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import httpx
    from rich.table import Table

_TIMEOUT_S = 5.0
_STYLES = {"healthy": "green", "recovering": "yellow", "cooling": "yellow", "probing": "magenta", "ejected": "red"}
#: Heading, and whether its cells are numbers.
_COLUMNS = (
    ("candidate", False),
    ("deployment", False),
    ("health", False),
    ("in flight", True),
    ("requests", True),
    ("err %", True),
    ("429 %", True),
    ("first content p50 / p95", True),
    ("whole p50 / p95", True),
    ("tok/s", True),
    ("cost $", True),
    ("$/M in / out", True),
)
_UNKNOWN = "–"


@click.command()
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Of the gateway.")
@click.option(
    "--key-env", metavar="VAR", help="Environment variable that holds a key of the gateway, where it asks for one."
)
@click.option("--once", is_flag=True, help="Print the table once and end.")
@click.option(
    "--every", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Seconds between two looks."
)
def pool(url: str, key_env: str | None, once: bool, every: float) -> None:
    """Show how every deployment of a running gateway is doing; ctrl-c ends it."""
    import httpx
    from rich.console import Console
    from rich.live import Live

    from serving.errors import GatewayError
    from serving.settings import client_key

    try:
        headers = {"authorization": f"Bearer {client_key(key_env)}"} if key_env else {}
    except GatewayError as error:
        raise click.ClickException(str(error)) from error
    console = Console()
    try:
        opened = httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_S, trust_env=False)
    except httpx.InvalidURL as error:
        raise click.ClickException(f"--url {url}: {error}; expected one such as http://127.0.0.1:8080") from error
    with opened as client:
        view = _asked(client, url)
        if once:
            console.print(table_of(view))
            return
        try:
            with Live(table_of(view), console=console, auto_refresh=False, screen=console.is_terminal) as live:
                while True:
                    time.sleep(every)
                    live.update(table_of(_asked(client, url)), refresh=True)
        except KeyboardInterrupt:
            return


def table_of(view: Mapping[str, Any]) -> Table:
    """Make the table.

    Parameters
    ----------
    view : Mapping
        What ``GET /v1/pool`` said: :class:`serving.control_api.PoolView`, as JSON.

    Returns
    -------
    Table
        A row for each deployment; errors and refusals are those of the last minute.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=f"bundle {view['bundle']}", title_justify="left")
    for heading, is_number in _COLUMNS:
        table.add_column(heading, justify="right" if is_number else "left", no_wrap=not is_number)
    for candidate in view["candidates"]:
        for deployment in candidate["deployments"]:
            status = deployment["status"]
            table.add_row(
                # Names are shown as they are: square brackets in them are no markup.
                Text(candidate["name"]),
                Text(_who(candidate["name"], deployment)),
                Text(_health(status), _STYLES.get(status["health"], "")),
                _in_flight(status),
                str(status["n_requests"]),
                _percent(status["error_share"]),
                _percent(status["throttle_share"]),
                _seconds(status["first_content"]),
                _seconds(status["whole"]),
                _number(status["output_tokens_per_s"], ".0f"),
                _number(status["cost_usd"], ".4f"),
                _price(candidate["price"]),
            )
    return table


def _asked(client: httpx.Client, url: str) -> Mapping[str, Any]:
    import httpx

    try:
        response = client.get("/v1/pool")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise click.ClickException(
            f"no gateway answers at {url} ({type(error).__name__}): start one with `turnout serve`, or say with --url "
            "where it is"
        ) from error
    if response.status_code in (401, 403):
        raise click.ClickException(f"the gateway at {url} asks for a key: name the variable that holds one: --key-env")
    try:
        view = response.json() if response.status_code == 200 else None
    except ValueError:
        view = None
    if not isinstance(view, dict) or not isinstance(view.get("candidates"), list):
        raise click.ClickException(
            f"{url}/v1/pool answered with status {response.status_code}: expected the pool of a gateway that is ready"
        )
    return view


def _who(candidate: str, deployment: Mapping[str, Any]) -> str:
    said = deployment["status"]["deployment"].removeprefix(f"{candidate}@")
    return f"{said} (emulated)" if deployment["is_emulated"] else said


def _health(status: Mapping[str, Any]) -> str:
    left_s = max(status["cooling_for_s"], status["ejected_for_s"])
    return f"{status['health']} {left_s:.0f} s" if left_s > 0 else status["health"]


def _in_flight(status: Mapping[str, Any]) -> str:
    limit = status["n_in_flight_limit"]
    return str(status["n_in_flight"]) if limit is None else f"{status['n_in_flight']} / {limit}"


def _seconds(timing: Mapping[str, float | None]) -> str:
    p50_s, p95_s = timing["p50_s"], timing["p95_s"]
    return _UNKNOWN if p50_s is None or p95_s is None else f"{p50_s:.2f} / {p95_s:.2f}"


def _percent(share: float | None) -> str:
    return _UNKNOWN if share is None else f"{100 * share:.1f}"


def _number(value: float | None, form: str) -> str:
    return _UNKNOWN if value is None else format(value, form)


def _price(price: Mapping[str, float] | None) -> str:
    if price is None:
        return _UNKNOWN
    return f"{price['input_usd_per_mtok']:g} / {price['output_usd_per_mtok']:g}"
