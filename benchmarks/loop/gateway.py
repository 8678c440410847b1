"""The processes of the demo and the commands it gives: every step is what an operator would type.

Entry points: :class:`Workbench`, :func:`config_of`.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from processes import started

from routing_data.sample import world

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ADMIN, LABELLER = "operator", "labeller"
N_TEAMS = 40
TURNOUT = (sys.executable, "-c", "from router.cli import main; main()")
#: What a whole unit of quality is worth, in USD a request: the demo's one dial.
WORTH_USD = 0.02


def secrets_of(seed: int) -> dict[str, str]:
    """Return keys by name: teams, the operator and the labeller. For this machine and this run only."""
    names = [*(f"team-{i:02d}" for i in range(N_TEAMS)), ADMIN, LABELLER]
    return {name: f"sk-turnout-{hashlib.sha256(f'{seed}/{name}'.encode()).hexdigest()[:43]}" for name in names}


def config_of(folder: Path, provider_url: str, secrets: dict[str, str], explore_share: float) -> Path:
    """Write the gateway's configuration."""
    lines = [
        "[server]",
        'database = "turnout.sqlite"',
        'bundle = "bundles/champion"',
        "watch_bundle_s = 0.2",
        "[shadow]",
        'bundle = "bundles/challenger"',
        "[routing]",
        'default = "worth"',
        'reference = "sample-large"',
        f"explore_share = {explore_share}",
        "explore_max_usd_per_day = 50.0",
        "[routing.presets.worth]",
        'kind = "willingness_to_pay_usd"',
        f"value = {WORTH_USD}",
        "[[providers]]",
        'name = "world"',
        f'base_url = "{provider_url}/v1"',
    ]
    for candidate in world.CANDIDATES:
        lines += [
            "[[candidates]]",
            f'name = "{candidate.name}"',
            f"input_usd_per_mtok = {candidate.input_price}",
            f"output_usd_per_mtok = {candidate.output_price}",
            f'deployments = [{{ provider = "world", model = "{candidate.name}" }}]',
        ]
    for name, secret in secrets.items():
        lines += ["[[keys]]", f'name = "{name}"', f'sha256 = "{hashlib.sha256(secret.encode()).hexdigest()}"']
        lines.append(
            "admin = true" if name == ADMIN else 'retention = "none"' if name == LABELLER else 'retention = "content"'
        )
    path = folder / "turnout.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


class Workbench:
    """A folder in which commands are given.

    Parameters
    ----------
    folder : Path
    secrets : dict of str to str
    """

    def __init__(self, folder: Path, secrets: dict[str, str]) -> None:
        self.folder = folder
        path = os.pathsep.join(filter(None, (str(ROOT), str(ROOT / "datasets"), os.environ.get("PYTHONPATH"))))
        self.environment = {
            **os.environ,
            "PYTHONPATH": path,
            "OMP_NUM_THREADS": "1",
            "NO_PROXY": "*",
            "MPLBACKEND": "Agg",
            "COLUMNS": "120",
            "DEMO_ADMIN": secrets[ADMIN],
            "DEMO_LABELLER": secrets[LABELLER],
        }

    def turnout(self, *arguments: str, may_fail: bool = False, is_shown: bool = True) -> str:
        """Give a command, show it and what it says; raises RuntimeError when it fails."""
        sys.stdout.write(f"\n$ turnout {' '.join(arguments)}\n")
        sys.stdout.flush()
        began = time.perf_counter()
        done = subprocess.run(
            [*TURNOUT, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        sys.stdout.write((done.stdout if is_shown else "") + (done.stderr if done.returncode else ""))
        sys.stdout.write(f"({time.perf_counter() - began:.1f} s, exit code {done.returncode})\n")
        if done.returncode and not may_fail:
            raise RuntimeError(f"turnout {arguments[0]} failed")
        return done.stdout

    @contextmanager
    def started(self, name: str, arguments: Sequence[str], ready_path: str) -> Iterator[str]:
        """Start a server that says on which port it listens; yield its origin, end it afterwards."""
        log = self.folder / f"{name}.log"
        with started(list(arguments), ready_path, log, env=self.environment) as server:
            yield server.origin
