"""One bundle trained on the committed sample, small enough for every test that needs one."""

from __future__ import annotations

from pathlib import Path

import pytest

SAMPLE = Path(__file__).resolve().parents[2] / "datasets" / "samples" / "checkable"
CONFIG = """
[heads]
n_nets = 2
hidden = 64
min_steps = 300

[evaluation]
n_resamples = 60
"""


@pytest.fixture(scope="session")
def sample() -> Path:
    return SAMPLE


@pytest.fixture(scope="session")
def small_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "small.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, sample: Path, small_config: Path):
    """Return what one run on the sample made; read-only by agreement."""
    from training.pipeline import train
    from training.settings import read_settings

    stages: list[str] = []
    out = tmp_path_factory.mktemp("models") / "sample" / "1"
    result = train([sample], out, read_settings(small_config), tell=stages.append)
    assert stages == [
        "load",
        "fit encoder",
        "embed",
        "fit output tokens",
        "fit quality",
        "calibrate",
        "export",
        "evaluate",
        "write",
    ]
    return result
