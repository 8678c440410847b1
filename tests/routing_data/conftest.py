"""Small tables and a file server on the loopback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from routing_data import OutcomeTable, Source


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a valid folder, with some columns or rows changed."""

    def make(prompts: dict[str, list[object]] | None = None, outcomes: dict[str, list[object]] | None = None) -> Path:
        good_prompts = {"prompt_id": ["p1", "p2"], "prompt": ["one?", "two?"], "task": ["a", "b"]}
        good_outcomes = {
            "prompt_id": ["p1", "p1", "p2"],
            "model": ["large", "small", "large"],
            "quality": [1.0, 0.5, 0.0],
            "input_tokens": [10.0, 10.0, 20.0],
            "output_tokens": [5.0, 6.0, 7.0],
            "cost_usd": [0.1, 0.01, 0.2],
        }
        pd.DataFrame(good_prompts | (prompts or {})).to_parquet(tmp_path / "prompts.parquet", index=False)
        pd.DataFrame(good_outcomes | (outcomes or {})).to_parquet(tmp_path / "outcomes.parquet", index=False)
        return tmp_path

    return make


@pytest.fixture
def make_table() -> Callable[..., OutcomeTable]:
    """Return a function from quality (rows of lists) and a few columns to a table."""

    def make(
        quality: list[list[float]],
        cost_usd: list[list[float]] | None = None,
        prompts: tuple[str, ...] | None = None,
        groups: tuple[str, ...] | None = None,
        candidates: tuple[str, ...] | None = None,
        name: str = "made",
        tasks: tuple[str, ...] | None = None,
        ids: tuple[str, ...] | None = None,
    ) -> OutcomeTable:
        cells = np.array(quality, np.float32).reshape(len(quality), -1)
        n, m = cells.shape
        ids = ids or tuple(f"{name}-{i}" for i in range(n))
        unknown = np.full((n, m), np.nan)
        return OutcomeTable(
            prompt_ids=ids,
            prompts=prompts or tuple(f"{name} prompt {i}" for i in range(n)),
            tasks=tasks or ("unknown",) * n,
            groups=groups or ids,
            candidates=candidates or tuple("abcdefgh"[:m]),
            quality=cells,
            input_tokens=unknown,
            output_tokens=unknown,
            cost_usd=unknown if cost_usd is None else np.array(cost_usd, np.float64).reshape(n, m),
            sources=(Source(name, name, f"sha-{name}", None, None, False, n),),
        )

    return make


@dataclass
class FileServer:
    """A server that answers from `files`; each answer is (status, body) or a delay in seconds."""

    url: str
    files: dict[str, list[tuple[int, bytes] | threading.Event]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def put(self, path: str, *answers: tuple[int, bytes] | threading.Event) -> str:
        self.files[path] = list(answers)
        return self.url + path


@pytest.fixture
def server() -> Iterator[FileServer]:
    """Serve on the loopback; the last answer of a path repeats."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            answers = state.files.get(self.path, [(404, b"nothing here")])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(answer, threading.Event):
                answer.wait(10)
                return
            status, body = answer
            self.send_response(status)
            if status in (301, 302):
                self.send_header("Location", body.decode())
                body = b""
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = FileServer(f"http://127.0.0.1:{http.server_address[1]}")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    http.shutdown()
    thread.join()
    http.server_close()
