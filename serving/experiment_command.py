"""``turnout experiment``: begin, look at, stop and promote experiments of a running gateway.

All of it goes by HTTP (``/v1/experiments``), so that a change is in force when the command returns. Entry points:
:func:`experiment` (the command), :func:`tables_of`.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table

_TIMEOUT_S = 30.0
_UNKNOWN = "–"
_URL, _KEY = "http://127.0.0.1:8080", "Environment variable that holds a key with admin = true."
_STYLES = {"better": "green", "worse": "red", "running": "green", "promoted": "magenta"}


def _of_gateway(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option("--key-env", metavar="VAR", help=_KEY)(command)
    return click.option("--url", default=_URL, show_default=True, metavar="URL", help="Of the gateway.")(command)


@click.group()
def experiment() -> None:
    """Compare settings on live traffic: sticky arms, guards, figures that may be looked at at any time."""


@experiment.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", help="Of the experiment; a name is used once.")
@click.option("--on", help="auto, auto:PRESET or scenario:NAME.")
@click.option("--unit", type=click.Choice(["key", "user", "conversation"]), help="What stays with its arm.")
@click.option(
    "--arm", "arms", multiple=True, metavar="NAME:SHARE[:KEY=VALUE]", help="control:0.5, b:0.5:threshold=0.6."
)
@click.option("--guard", "guards", multiple=True, metavar="METRIC:LIMIT", help="failures:0.02, or cost_usd:20%.")
@click.option("--ends-at", help="When it stops by itself: ISO 8601.")
@click.option("--salt", help="64 hexadecimal digits, the same for replicas that share no database.")
@_of_gateway
def create(
    file: Path | None,
    name: str | None,
    on: str | None,
    unit: str | None,
    arms: tuple[str, ...],
    guards: tuple[str, ...],
    ends_at: str | None,
    salt: str | None,
    url: str,
    key_env: str | None,
) -> None:
    """Begin an experiment, defined by FILE (TOML) or by options; options go before the file."""
    definition = {} if file is None else _read(file)
    given = {"name": name, "on": on, "unit": unit, "ends_at": ends_at, "salt": salt}
    definition.update({key: value for key, value in given.items() if value is not None})
    if arms:
        definition["arms"] = [_arm(written) for written in arms]
    if guards:
        definition["guards"] = [_guard(written) for written in guards]
    if not definition:
        raise click.UsageError("give FILE, or --name, --on and an --arm for each arm")
    made = _asked(url, key_env, "POST", "", definition)
    click.echo(f"{made['name']} runs on {made['on']}, by {made['unit']}: {_arms(made)}")


@experiment.command("list")
@_of_gateway
def every(url: str, key_env: str | None) -> None:
    """List experiments, those in force and those that were."""
    from rich.console import Console

    rows = _asked(url, key_env, "GET", "")["data"]
    if not rows:
        click.echo("there is no experiment")
        return
    Console().print(_listing(rows))


@experiment.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="All of it, as GET /v1/experiments/NAME says it.")
@_of_gateway
def status(name: str, as_json: bool, url: str, key_env: str | None) -> None:
    """Read NAME out: figures by arm and their differences, each with its confidence sequence."""
    from rich.console import Console

    said = _asked(url, key_env, "GET", f"/{name}")
    if as_json:
        click.echo(json.dumps(said, indent=2))
        return
    console = Console()
    for line in head_of(said):
        console.print(line, markup=False, soft_wrap=True)
    for table in tables_of(said):
        console.print(table)


@experiment.command()
@click.argument("name")
@click.option("--arm", help="This arm alone; its share goes to the control.")
@click.option("--why", help="Is kept with it.")
@_of_gateway
def stop(name: str, arm: str | None, why: str | None, url: str, key_env: str | None) -> None:
    """Stop NAME: back to the settings of the file; of a promoted arm too."""
    asked = {key: value for key, value in (("arm", arm), ("why", why)) if value is not None}
    said = _asked(url, key_env, "POST", f"/{name}/stop", asked)
    what = f"arm {arm} of {name} is stopped" if arm else f"{name} is stopped"
    click.echo(f"{what}; the experiment is {said['state']}" if arm else f"{what}: {said['on']} goes by the settings")


@experiment.command()
@click.argument("name")
@click.option("--arm", required=True, help="That gets everything from now on.")
@click.option("--force", is_flag=True, help="In spite of a wrong sample ratio, or of the guard that stopped it.")
@_of_gateway
def promote(name: str, arm: str, force: bool, url: str, key_env: str | None) -> None:
    """Give all traffic of what NAME acts on to one arm, and print the lines that make it permanent."""
    said = _asked(url, key_env, "POST", f"/{name}/promote", {"arm": arm, "force": force})
    click.echo(
        f"{said['on']} goes by arm {arm} of {name} until `turnout experiment stop {name}`. To make it permanent:\n"
    )
    click.echo(said["permanent"])


def head_of(said: Mapping[str, Any]) -> list[str]:
    """Return the lines that go before the tables: what it is, what is wrong with it, how far it is."""
    view, readout = said["experiment"], said["readout"]
    began, ended = _moment(view["created_unix_s"]), view["ended_unix_s"]
    lines = [
        f"{view['name']}: {view['state']}{': ' + view['why'] if view['why'] else ''}",
        f"on {view['on']}, by {view['unit']}, since {began}" + (f", until {_moment(ended)}" if ended else ""),
        f"{readout['n_units']:,} units, {readout['n_requests']:,} requests; every interval is right at all looks with "
        f"probability {1 - readout['alpha']:g}",
    ]
    if view["problem"]:
        lines.append(f"NOT IN FORCE HERE: {view['problem']}")
    ratio = readout["sample_ratio"]
    if ratio["is_alarming"]:
        came = ", ".join(f"{arm['name']} {share:.1%}" for arm, share in zip(view["arms"], ratio["shares"], strict=True))
        meant = ", ".join(f"{arm['name']} {arm['share']:.1%}" for arm in view["arms"])
        lines.append(
            f"SAMPLE RATIO MISMATCH: {came} came, {meant} was meant (p = {ratio['p_value']:.1g}). Something besides "
            "chance decides who is counted where: TRUST NO FIGURE BELOW."
        )
    if readout["is_full"]:
        lines.append("further units are no longer counted")
    lines += [f"arm {arm['name']} was stopped: {arm['why']}" for arm in view["arms"] if arm["is_stopped"]]
    return lines


def tables_of(said: Mapping[str, Any]) -> list[Table]:
    """Make the tables of a readout: the arms, and what they differ by.

    Parameters
    ----------
    said : Mapping
        What ``GET /v1/experiments/NAME`` said: :class:`serving.experiment_api.ExperimentStatus`, as JSON.
    """
    view, readout = said["experiment"], said["readout"]
    arms = _table("arm", "sets", "share", "units", "requests")
    figures = _table("mean over requests", *(arm["arm"] for arm in readout["arms"]))
    for told, arm in zip(view["arms"], readout["arms"], strict=True):
        arms.add_row(arm["arm"], told["sets"], f"{told['share']:g}", f"{arm['n_units']:,}", f"{arm['n_requests']:,}")
    for metric in readout["arms"][0]["metrics"]:
        figures.add_row(metric, *(_bounded(*_three(arm["metrics"][metric]), ".3g") for arm in readout["arms"]))
    differences = _table("against the control", "metric", "difference", "relative", "")
    for row in readout["differences"]:
        difference, share = _bounded(*_three(row), "+.3g"), _bounded(*_three(row, "relative"), "+.1%")
        differences.add_row(row["arm"], row["metric"], difference, share, row["says"], style=_STYLES.get(row["says"]))
    return [arms, figures, differences]


def _three(row: Mapping[str, Any], name: str = "") -> tuple[float | None, float | None, float | None]:
    """Return an estimate and its bounds."""
    before = f"{name}_" if name else ""
    return row[name or "value"], row[f"{before}low"], row[f"{before}high"]


def _listing(rows: list[Mapping[str, Any]]) -> Table:
    table = _table("experiment", "state", "on", "unit", "arms", "since", "")
    for row in rows:
        why = f"not in force here: {row['problem']}" if row["problem"] else row["why"]
        state = f"promoted: {row['promoted']}" if row["state"] == "promoted" else row["state"]
        since = _moment(row["created_unix_s"])
        table.add_row(
            row["name"], state, row["on"], row["unit"], _arms(row), since, why, style=_STYLES.get(row["state"])
        )
    return table


def _table(*headings: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _arms(view: Mapping[str, Any]) -> str:
    return ", ".join(f"{arm['name']} {arm['share']:g} ({arm['sets']})" for arm in view["arms"])


def _bounded(value: float | None, low: float | None, high: float | None, form: str) -> str:
    if value is None:
        return _UNKNOWN
    said = f"{value:{form}}"
    return said if low is None or high is None else f"{said} ({low:{form}} to {high:{form}})"


def _moment(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise click.ClickException(f"{file} cannot be read: {error}") from error


def _arm(written: str) -> dict[str, Any]:
    name, _, rest = written.partition(":")
    share, _, settings = rest.partition(":")
    arm: dict[str, Any] = {"name": name, "share": _number(share, written, "--arm")}
    for pair in settings.split(",") if settings else ():
        key, separator, value = pair.partition("=")
        if not separator:
            raise click.BadParameter(f"{written!r}: expected NAME:SHARE[:KEY=VALUE[,KEY=VALUE]]", param_hint="--arm")
        is_number = key in ("threshold", "willingness_to_pay_usd")
        arm[key] = _number(value, written, "--arm") if is_number else value
    return arm


def _guard(written: str) -> dict[str, Any]:
    metric, _, limit = written.partition(":")
    if limit.endswith("%"):
        return {"metric": metric, "worse_by_share": _number(limit[:-1], written, "--guard") / 100}
    return {"metric": metric, "worse_by": _number(limit, written, "--guard")}


def _number(text: str, written: str, option: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise click.BadParameter(
            f"{written!r}: expected a number in the place of {text!r}", param_hint=option
        ) from error


def _asked(url: str, key_env: str | None, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """Ask the gateway; say what it says where it refuses."""
    import httpx

    from serving.errors import GatewayError
    from serving.settings import client_key

    try:
        headers = {"authorization": f"Bearer {client_key(key_env)}"} if key_env else {}
        content = None if body is None else json.dumps(body, default=str)
        with httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_S, trust_env=False) as client:
            response = client.request(method, f"/v1/experiments{path}", content=content)
        said = response.json()
    except GatewayError as error:
        raise click.ClickException(str(error)) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise click.ClickException(
            f"no gateway answers at {url} ({type(error).__name__}): start one with `turnout serve`, or say with --url "
            "where it is"
        ) from error
    except ValueError as error:
        raise click.ClickException(f"{url} did not answer as a gateway does: expected JSON") from error
    if response.is_success:
        return said
    problem = said.get("error") if isinstance(said, dict) else None
    message = problem.get("message") if isinstance(problem, dict) else f"status {response.status_code}"
    if response.status_code == 401 or (response.status_code == 404 and message == "nothing is served at this path"):
        message = f"the gateway at {url} asks for a key with admin = true: name the variable that holds it: --key-env"
    raise click.ClickException(str(message))
