"""LiteLLM's proxy in front of the same emulator, from an interpreter that has it. Entry point: :func:`command`."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

KEY = "sk-benchmark"
READY = "/health/liveliness"
_PROBE = "import litellm.proxy.proxy_server, importlib.metadata as m; print(m.version('litellm'))"
_CONFIG = """\
model_list:
  - model_name: auto
    litellm_params: {{model: openai/{model}, api_base: {emulator}/v1, api_key: none}}
general_settings: {{master_key: {key}}}
"""


def version_of(python: str) -> str:
    """Return its version, or why it cannot be measured (beginning with "skipped")."""
    if not python:
        return "skipped: no interpreter given (--litellm PYTHON)"
    try:
        told = subprocess.run([python, "-c", _PROBE], capture_output=True, text=True, timeout=180, env=environment())
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"skipped: {python}: {type(error).__name__}"
    if told.returncode:
        return f"skipped: {told.stderr.strip().splitlines()[-1]}"
    return told.stdout.split()[-1]


def command(python: str, folder: Path, emulator: str, model: str) -> tuple[list[str], int]:
    """Write its settings (a key and one model, one worker, no database); return how it is started, and its port."""
    path = folder / "litellm.yaml"
    path.write_text(_CONFIG.format(model=model, emulator=emulator, key=KEY))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = "from litellm import run_server; run_server()"
    return [python, "-c", start, "--config", str(path), "--host", "127.0.0.1", "--port", str(port)], port


def environment() -> dict[str, str]:
    """Return its environment: its own packages, nothing fetched, as little said as can be."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {
        **kept,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "NO_PROXY": "*",
    }
