from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from serving import logs

SECRET = "sk-turnout-very-secret"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    names = ("", "uvicorn", "uvicorn.error", "uvicorn.access")
    before = {name: (logging.getLogger(name).handlers[:], logging.getLogger(name).level) for name in names}
    propagate = {name: logging.getLogger(name).propagate for name in names}
    yield
    for name, (handlers, level) in before.items():
        logger = logging.getLogger(name) if name else root
        logger.handlers[:], logger.propagate = handlers, propagate[name]
        logger.setLevel(level)


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_an_event_is_one_json_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    logs.event("request", {"id": "dec-1", "status": 200, "cost_usd": 0.25, "key": None, "total_s": 2})
    (line,) = _lines(capsys)
    assert line.pop("time")
    assert line == {
        "level": "info", "event": "request", "id": "dec-1", "status": 200, "cost_usd": 0.25, "total_s": 2.0
    }  # fmt: skip


def test_a_field_not_allowed_is_named_and_withheld(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    logs.event("request", {"prompt": SECRET, "status": SECRET, "is_stream": 1, "id": "dec-1"})
    (line,) = _lines(capsys)
    assert line["withheld"] == ["prompt", "status", "is_stream"]
    assert SECRET not in json.dumps(line)


def test_levels_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning")
    logs.event("quiet")
    logs.event("loud", level="error")
    assert [(line["event"], line["level"]) for line in _lines(capsys)] == [("loud", "error")]


def test_an_unexpected_failure_is_logged_by_type_and_place_only(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        logs.failure("unexpected_error", error, {"id": "dec-1"})
    (line,) = _lines(capsys)
    assert (line["error"], line["id"]) == ("ValueError", "dec-1")
    assert str(line["at"]).startswith("test_logs.py:")
    assert SECRET not in json.dumps(line)


@pytest.mark.parametrize("name", ["asyncio", "aiohttp.client", "uvicorn.error", "anything.else"])
def test_a_foreign_exception_never_speaks(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    try:
        raise ValueError(SECRET)
    except ValueError:
        logging.getLogger(name).exception("Exception in ASGI application\n")
    (line,) = _lines(capsys)
    assert (line["logger"], line["error"], line["level"]) == (name, "ValueError", "error")
    assert SECRET not in json.dumps(line)


def test_a_foreign_message_only_says_where_it_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    logging.getLogger("asyncio").error("Task exception was never retrieved: %s", SECRET)
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    foreign, trusted = _lines(capsys)
    assert SECRET not in json.dumps(foreign) and str(foreign["at"]).startswith("test_logs.py:")
    assert trusted["message"] == "Invalid HTTP request received."


def test_text_lines_stay_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(format="text")
    logs.event("request", {"requested_model": "a\nerror forged", "status": 404})
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert written.rstrip().endswith("info request requested_model=a\\nerror forged status=404")


def test_long_strings_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    logs.event("request", {"requested_model": "x" * 10_000})
    assert _lines(capsys)[0]["requested_model"] == "x" * logs.N_CHARACTERS


async def test_nothing_that_a_request_says_of_itself_is_withheld(running, caplog) -> None:
    with caplog.at_level("INFO", "turnout"):
        for stream in (False, True):
            await running.chat(stream=stream, logit_bias={"1": 1})
    lines = [record.fields for record in caplog.records if record.message == "request"]
    told = [fields() if callable(fields) else fields for fields in lines]
    assert len(told) == 2
    for fields in told:
        assert "withheld" not in logs._allowed(fields)
        assert logs._allowed(fields)["api"] == "chat"
