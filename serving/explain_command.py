"""``turnout explain``: where a request would go and why, from a config file alone; nobody is called, no key is needed.

Entry point: :func:`explain`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from serving.exploration import Exploration
    from serving.keys import Principal
    from serving.rules import Verdict
    from serving.state import State

#: A picture as small as there is: of an image only its being there is read.
_PICTURE = "data:image/gif;base64,R0lGODlhAQABAAAAACw="


@click.command()
@click.argument("prompt", required=False)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file; without one the demo config.",
)
@click.option("--model", help="The model name asked for. Default: auto.")
@click.option("--key", help="As which key of the file, by name. Default: one that may use everything.")
@click.option("--project", help="In the place of the key's project.")
@click.option("--metadata", multiple=True, metavar="NAME=VALUE", help="Of the request; may be given again.")
@click.option("--tools", "n_tools", type=click.IntRange(min=0), help="How many tools the request offers.")
@click.option("--image", is_flag=True, help="With a picture.")
@click.option("--at", help='When, such as "2026-11-26T23:00"; without an offset UTC. Default: now.')
@click.option(
    "--api", type=click.Choice(["chat", "responses", "messages", "completions"]), help="By which API. Default: chat."
)
@click.option(
    "--body",
    "body_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON file with the body of a request, in the place of PROMPT.",
)
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON, as POST /v1/route does.")
def explain(
    prompt: str | None,
    config: Path | None,
    model: str | None,
    key: str | None,
    project: str | None,
    metadata: tuple[str, ...],
    n_tools: int | None,
    image: bool,
    at: str | None,
    api: str | None,
    body_file: Path | None,
    as_json: bool,
) -> None:
    """Say where a request with PROMPT ('-' reads standard input) would go: every rule, then the decision."""
    if (prompt is None) is (body_file is None):
        raise click.UsageError("give PROMPT or --body FILE, one of them")
    if image and body_file is not None:
        raise click.UsageError("--image goes with PROMPT; a body holds its own pictures")
    if api == "completions" and (image or n_tools):
        raise click.UsageError("completions hold neither pictures nor tools")
    from router.commands import show
    from router.errors import RouterError
    from serving.course import judged
    from serving.deciding import decide
    from serving.errors import GatewayError
    from serving.explanation import told
    from serving.exploration_budget import ExplorationBudget
    from serving.exploring import explore
    from serving.pool import Pool
    from serving.question import read_question
    from serving.settings import load
    from serving.shadow import shadowed
    from serving.state import build
    from serving.trial_setup import with_experiments

    at_unix_s = None if at is None else _moment(at)
    body = _body_of(body_file) if body_file is not None else _asked(_text(prompt or ""), api, image)
    if model is not None:
        body["model"] = model
    if api is not None:
        body["api"] = api
    if metadata:
        body["metadata"] = dict(map(_pair, metadata))
    if n_tools is not None:
        body["tools"] = [_tool(i, api) for i in range(n_tools)]
    try:
        state = with_experiments(build(load(config), is_offline=True))
        caller = _caller(state, key, project)
        asked, api = read_question(body)
        pool, asked_unix_s = Pool(state.candidate_of()), time.time() if at_unix_s is None else at_unix_s
        decided = decide(state, pool, caller, asked, api, at_unix_s)
        decided = explore(decided, state, pool, ExplorationBudget(), asked.prompt, None, asked_unix_s)
        rules = judged(state, caller, asked, api, at_unix_s)
        beside = shadowed(state, decided, asked.prompt, pool.speeds())
    except (GatewayError, RouterError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        said = told(decided, rules, caller.may_use, beside)
        click.echo(json.dumps(dataclasses.asdict(said), ensure_ascii=False, indent=2))
        return
    if rules:
        _show_rules(rules, decided.rule)
    course = [f"scenario {decided.scenario}"] if decided.scenario else []
    course += [f"by rule {decided.rule}"] if decided.rule else []
    if decided.entry is not None:
        course.append(f"experiment {decided.entry.experiment}: arm {decided.entry.arm} (share {decided.entry.share:g})")
    course += [f"demanded: {decided.demand.said()}"] if decided.demand.said() else []
    course += [f"priority {decided.priority}"] if decided.priority != "normal" else []
    if course:
        click.echo("; ".join(course))
    show(decided.decision)
    if decided.order[1:]:
        click.echo(f"after it: {', '.join(decided.order[1:])}")
    if decided.exploration is not None:
        click.echo(_said(decided.exploration))
    if beside is not None:
        click.echo(f"in the shadow {beside.bundle} would choose {beside.candidate}")


def _said(exploration: Exploration) -> str:
    """Say whom chance could choose, and how probably."""
    rate = f"explored in {exploration.share:.3g} of requests"
    if exploration.why_not is not None:
        return f"{rate}, but not here: {exploration.why_not}"
    among = ", ".join(f"{name} {exploration.propensity(name):.4g}" for name in exploration.candidates)
    return f"{rate}: {among}; {exploration.left_usd:.2f} USD left for it today"


def _show_rules(rules: tuple[Verdict, ...], chosen: str | None) -> None:
    """Print every rule with what came of it."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("rule", "leads to"):
        table.add_column(heading, no_wrap=True)
    table.add_column("because", overflow="fold")
    for verdict in rules:
        is_chosen = verdict.rule == chosen
        came = verdict.because or ("matches" if is_chosen else "matches too, but another came first")
        table.add_row(verdict.rule, verdict.scenario, came, style="bold" if is_chosen else None)
    Console().print(table, markup=False)


def _caller(state: State, name: str | None, project: str | None) -> Principal:
    from serving.keys import ANONYMOUS

    caller = ANONYMOUS if name is None else state.keys.named(name)
    if caller is None:
        names = ", ".join(key.name for key in state.settings.keys) or "there is none"
        raise click.BadParameter(f"{name!r}: expected the name of a key ({names})", param_hint="--key")
    return caller if project is None else dataclasses.replace(caller, project=project)


def _text(prompt: str) -> str:
    text = sys.stdin.read() if prompt == "-" else prompt
    if not text.strip():
        raise click.UsageError("PROMPT must hold some text, got only white space")
    return text


def _body_of(path: Path) -> dict[str, object]:
    try:
        body = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise click.BadParameter(f"{path}: expected a JSON file", param_hint="--body") from error
    if not isinstance(body, dict):
        raise click.BadParameter(f"{path}: expected a JSON object", param_hint="--body")
    return body


def _asked(text: str, api: str | None, image: bool) -> dict[str, object]:
    """Make the body of one message."""
    if not image:
        return {"prompt": text}
    part: dict[str, object] = {"type": "image_url", "image_url": {"url": _PICTURE}}
    words = "text"
    if api == "responses":
        part, words = {"type": "input_image", "image_url": _PICTURE}, "input_text"
    elif api == "messages":
        kind, _, data = _PICTURE.removeprefix("data:").partition(";base64,")
        part = {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}
    message = {"role": "user", "content": [{"type": words, "text": text}, part]}
    return {"input" if api == "responses" else "messages": [message]}


def _tool(i: int, api: str | None) -> dict[str, object]:
    """Make a tool in the form of an API."""
    name, schema = f"tool_{i + 1}", {"type": "object", "properties": {}}
    if api == "messages":
        return {"name": name, "input_schema": schema}
    if api == "responses":
        return {"type": "function", "name": name, "parameters": schema}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def _pair(written: str) -> tuple[str, str]:
    name, separator, value = written.partition("=")
    if not separator or not name:
        raise click.BadParameter(f"{written!r}: expected NAME=VALUE", param_hint="--metadata")
    return name, value


def _moment(written: str) -> float:
    try:
        moment = datetime.fromisoformat(written)
    except ValueError as error:
        raise click.BadParameter(f"{written!r}: expected such as 2026-11-26T23:00", param_hint="--at") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
