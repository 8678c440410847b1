"""How every script of this folder tries its client, and what there is to ask.

``SCRIPT.py KEY ORIGIN[,ORIGIN…] MODEL[,MODEL…]`` makes every check against every gateway and model, and prints one JSON
object a line for each pair: {"origin", "model", "version", "found": {check: what it saw}, "failed": {check: why}}.
A check is a function of a :class:`Gateway` that raises where the client does not get what it should.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import product
from pathlib import Path

SCENARIO = json.loads(Path(__file__).with_name("scenario.json").read_text("utf-8"))
QUESTION, TOOL_QUESTION, STRUCTURED_QUESTION = (
    SCENARIO[name] for name in ("question", "tool_question", "structured_question")
)
TOOL = SCENARIO["tool"]
#: One that the script does not know, so that a call of it is made up, where the request demands one.
OTHER_TOOL = {**TOOL, "name": "get_forecast"}
#: The emulated provider's scripted answer once it has the results of its tool calls.
FINAL_TEXT = SCENARIO["steps"][-1]["text"]


@dataclass(frozen=True)
class Gateway:
    """Where to ask, as whom, for which model, and by which of the client's own ways."""

    origin: str
    key: str
    model: str
    way: str = ""

    @property
    def v1(self) -> str:
        return f"{self.origin}/v1"

    def with_wrong_key(self) -> Gateway:
        return replace(self, key="sk-turnout-" + "0" * 40)

    def with_unknown_model(self) -> Gateway:
        return replace(self, model="no-such-model")


def weather(city: str) -> str:
    """Get the temperature in a city: a result that tells, where it arrives, which script it comes from."""
    return f"{SCENARIO['weather'][city]}, measured by {Path(sys.argv[0]).stem}"


def is_made_up(text: str) -> bool:
    """Tell whether a text is an emulated provider's ordinary answer."""
    return text.startswith("[emulated")


def raises(expected: type[BaseException], ask: Callable[[], object]) -> dict[str, object]:
    """Return class and status of the client's own error; anything else is a failure of the check."""
    try:
        answer = ask()
    except expected as error:
        return {"class": type(error).__name__, "status": getattr(error, "status_code", None)}
    raise AssertionError(f"no error but {answer!r:.200}")


def run(distribution: str, *checks: Callable[[Gateway], object], ways: Sequence[str] = ("",)) -> None:
    """Make all checks, in each way that the client can speak, for all pairs that the command line names."""
    key, origins, models = sys.argv[1:]
    for origin, model in product(origins.split(","), models.split(",")):
        found: dict[str, object] = {}
        failed: dict[str, str] = {}
        for way, check in product(ways, checks):
            name = ".".join(filter(None, (way, check.__name__)))
            try:
                found[name] = check(Gateway(origin, key, model, way))
            except BaseException:
                failed[name] = traceback.format_exc(limit=-4)[-3000:]
        report = {"origin": origin, "model": model, "version": version(distribution)}
        print(json.dumps({**report, "found": found, "failed": failed}), flush=True)
