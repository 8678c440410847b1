from __future__ import annotations

import asyncio
import http.server
import io
import json
import threading

import pytest
from click.testing import CliRunner
from rich.console import Console

from serving.pool_command import pool, table_of

SECRET = "sk-turnout-alice-0000000000000000"


def shown(view: dict[str, object], width: int = 220) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table_of(view))
    return console.export_text()


async def invoked(*args: str):
    return await asyncio.to_thread(CliRunner().invoke, pool, args, env={"COLUMNS": "220"})


async def test_the_table_says_how_a_running_gateway_is_doing(online) -> None:
    for is_stream in (False, True):
        assert (await online.chat("Say hello.", stream=is_stream)).status_code == 200
    result = await invoked("--url", str(online.client.base_url), "--once")
    assert result.exit_code == 0, result.output
    row = next(line for line in result.output.splitlines() if "medium-at-provider" in line)
    assert "healthy" in row
    assert "(emulated)" in row
    assert "1 / 4" in row, "its price"
    assert "tiny@1" in result.output


async def test_who_embeds_has_a_row_too(start, pool_toml) -> None:
    embedder = '[[candidates]]\nname = "embed"\nembeddings = true\n'
    async with start(
        pool_toml + embedder + 'deployments = [{ provider = "emulator", model = "vectors" }]\n'
    ) as gateway:
        text = shown((await gateway.client.get("/v1/pool")).json())
    assert "vectors" in next(line for line in text.splitlines() if " embed " in line)


def status_of(**more: object) -> dict[str, object]:
    timing = {"n": 0, "average_s": None, "p50_s": None, "p95_s": None, "p99_s": None}
    return {
        "deployment": "x[red]@there/y",
        "health": "healthy",
        "n_in_flight": 3,
        "n_in_flight_limit": None,
        "n_requests": 0,
        "error_share": None,
        "throttle_share": None,
        "first_content": timing,
        "whole": timing,
        "output_tokens_per_s": None,
        "cost_usd": None,
        "cooling_for_s": 0.0,
        "ejected_for_s": 0.0,
        **more,
    }


def view_of(price: dict[str, float] | None, **status: object) -> dict[str, object]:
    deployment = {"is_emulated": False, "status": status_of(**status)}
    return {"bundle": "b@1", "candidates": [{"name": "x[red]", "price": price, "deployments": [deployment]}]}


def test_unknown_is_shown_as_unknown_and_names_are_no_markup() -> None:
    text = shown(view_of(None))
    row = next(line for line in text.splitlines() if "there/y" in line)
    assert "x[red]" in row
    assert row.count("–") == 7
    assert "0.0" not in row


def test_limits_rates_and_times_are_shown() -> None:
    text = shown(
        view_of(
            {"input_usd_per_mtok": 0.25, "output_usd_per_mtok": 2.0},
            health="cooling",
            cooling_for_s=12.4,
            n_in_flight_limit=8,
            error_share=0.015,
            throttle_share=0.2,
            first_content={"p50_s": 0.31, "p95_s": 1.2},
            output_tokens_per_s=88.4,
            cost_usd=0.12345,
        )
    )
    for said in ("cooling 12 s", "3 / 8", "1.5", "20.0", "0.31 / 1.20", "88", "0.1235", "0.25 / 2"):
        assert said in text, said


async def test_where_no_gateway_answers_it_says_so() -> None:
    result = await invoked("--url", "http://127.0.0.1:9", "--once")
    assert result.exit_code == 1
    assert "no gateway answers at http://127.0.0.1:9" in result.output
    assert "Traceback" not in result.output
    wrong = await invoked("--url", "http://[::", "--once")
    assert wrong.exit_code == 1


class _Handler(http.server.BaseHTTPRequestHandler):
    answer = b""
    key = ""

    def do_GET(self) -> None:
        is_allowed = not self.key or self.headers["authorization"] == f"Bearer {self.key}"
        self.send_response(200 if is_allowed else 401)
        self.send_header("content-length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, *args: object) -> None:
        pass


def against(answer: bytes, *args: str, key: str = "", env: dict[str, str] | None = None):
    """Run the command against a server that gives one answer."""
    handler = type("Handler", (_Handler,), {"answer": answer, "key": key})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        result = CliRunner().invoke(pool, ["--url", f"http://127.0.0.1:{server.server_port}", "--once", *args], env=env)
        thread.join()
    return result


def test_a_key_is_read_from_the_environment_and_asked_for() -> None:
    answer = json.dumps(view_of(None)).encode()
    refused = against(answer, key=SECRET)
    assert (refused.exit_code, "--key-env" in refused.output) == (1, True)
    allowed = against(answer, "--key-env", "POOL_KEY", key=SECRET, env={"POOL_KEY": SECRET})
    assert allowed.exit_code == 0, allowed.output
    unset = CliRunner().invoke(pool, ["--once", "--key-env", "NO_SUCH_KEY"])
    assert (unset.exit_code, "NO_SUCH_KEY is not set" in unset.output) == (1, True)
    assert SECRET not in refused.output + unset.output + allowed.output


@pytest.mark.parametrize("answer", [b"<html>hello</html>", b"[1]", b'{"candidates": 5}'])
def test_something_else_at_the_address_is_told_apart(answer: bytes) -> None:
    result = against(answer)
    assert result.exit_code == 1
    assert "expected the pool of a gateway that is ready" in result.output


def test_the_live_table_goes_on_until_it_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    sleeps = []

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        if len(sleeps) == 3:
            raise KeyboardInterrupt

    views = []
    monkeypatch.setattr("serving.pool_command.time.sleep", sleep)
    monkeypatch.setattr("serving.pool_command._asked", lambda *_: views.append(1) or view_of(None))
    result = CliRunner().invoke(pool, ["--every", "0.5"])
    assert (result.exit_code, sleeps, len(views)) == (0, [0.5] * 3, 3)
