"""One bundle trained on the committed sample, small enough for every test that needs one."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

WHY = "needs the encoder extra (torch, sentence-transformers)"
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


@pytest.fixture(scope="session")
def random_model(tmp_path_factory):
    """A sentence-transformers folder: a BERT of two tiny layers with random weights, mean pooling, normalised."""
    torch = pytest.importorskip("torch", reason=WHY)
    sentence_transformers = pytest.importorskip("sentence_transformers", reason=WHY)
    import transformers

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "aeiou")]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
    )
    transformers.BertModel(config).save_pretrained(folder)
    modules = importlib.import_module("sentence_transformers.models")
    transformer = modules.Transformer(str(folder))
    model = sentence_transformers.SentenceTransformer(
        modules=[transformer, modules.Pooling(32), modules.Normalize()], device="cpu"
    )
    saved = tmp_path_factory.mktemp("st") / "model"
    model.save(str(saved))
    return model, saved


# --- synthetic decision logs -------------------------------------------------------------------------------------

DAY_S = 86_400
START_UNIX_S = 1_793_750_400.0  # 2026-11-04, midnight
_OUTLOOK = pa.list_(
    pa.struct(
        [("candidate", pa.string()), ("excluded_by", pa.string())]
        + [(n, pa.float64()) for n in ("quality", "quality_low", "quality_high", "output_tokens", "cost_usd")]
    )
)
_ARROW = {"outlook": _OUTLOOK, "tags": pa.list_(pa.string()), "features": pa.list_(pa.float32())}


@dataclass
class SyntheticLog:
    """A log whose truth is known: ``truth`` has one row per request, one column per candidate."""

    path: Path
    requests: pd.DataFrame
    feedback: pd.DataFrame
    retained: pd.DataFrame
    truth: pd.DataFrame


def write_tables(path: Path, **tables: pd.DataFrame) -> Path:
    """Write requests, feedback, retained in the layout of ``turnout log export``."""
    for name, frame in tables.items():
        days = pd.to_datetime(frame["time_unix_s"], unit="s").dt.strftime("%Y-%m-%d")
        for day, part in frame.groupby(days):
            fields = [
                (n, _ARROW[n]) if n in _ARROW else pa.field(n, pa.Array.from_pandas(frame[n]).type)
                for n in frame.columns
            ]
            folder = path / name / f"day={day}"
            folder.mkdir(parents=True, exist_ok=True)
            n_files = len(list(folder.iterdir()))
            table = pa.Table.from_pandas(part, schema=pa.schema(fields), preserve_index=False)
            pq.write_table(table, folder / f"part-{n_files}.parquet")
    return path


def synthetic_log(
    path: Path,
    *,
    n_requests: int = 2000,
    n_days: int = 4,
    keys: tuple[str, ...] = tuple(f"team-{i}" for i in range(8)),
    vote_share: float = 0.6,
    is_explored: float = 0.2,
    level: str = "content",
    seed: int = 0,
) -> SyntheticLog:
    """Requests over the sample's prompts, routed by a noisy guess of the truth, with exploration of known propensity.

    A vote is a Bernoulli draw of the true quality of the candidate that answered; 2 % of requests fail over, so that
    ``candidate`` is not ``chosen``.
    """
    rng = np.random.default_rng(seed)
    prompts = pd.read_parquet(SAMPLE / "prompts.parquet")
    known = pd.read_parquet(SAMPLE / "truth.parquet")
    quality = known.pivot(index="prompt_id", columns="candidate", values="probability")
    cost = known.pivot(index="prompt_id", columns="candidate", values="expected_cost_usd")
    names = list(quality.columns)
    m = len(names)
    row = rng.integers(len(prompts), size=n_requests)
    ids = prompts["prompt_id"].to_numpy()[row]
    q, c = quality.loc[ids].to_numpy(), cost.loc[ids].to_numpy()
    said = np.clip(q + rng.normal(0, 0.1, q.shape), 0.01, 0.99)
    best = np.argmax(said - 20 * c, axis=1)
    propensities = np.full((n_requests, m), is_explored / m)
    propensities[np.arange(n_requests), best] += 1 - is_explored
    chosen = np.array([rng.choice(m, p=p) for p in propensities])
    answered = np.where(rng.random(n_requests) < 0.02, (chosen + 1) % m, chosen)
    time_unix_s = np.sort(START_UNIX_S + rng.random(n_requests) * n_days * DAY_S)
    every = np.arange(n_requests)
    request_ids = [f"req-{seed}-{i:06d}" for i in range(n_requests)]
    outlook = [
        [
            {
                "candidate": names[j],
                "excluded_by": None,
                "quality": said[i, j],
                "quality_low": max(said[i, j] - 0.1, 0.0),
                "quality_high": min(said[i, j] + 0.1, 1.0),
                "output_tokens": 100.0,
                "cost_usd": c[i, j],
            }
            for j in range(m)
        ]
        for i in range(n_requests)
    ]
    requests = pd.DataFrame(
        {
            "id": request_ids,
            "time_unix_s": time_unix_s,
            "key": rng.choice(keys, n_requests),
            "requested_model": "auto",
            "status": 200,
            "outcome": "ok",
            "is_stream": False,
            "candidate": [names[j] for j in answered],
            "chosen": [names[j] for j in chosen],
            "deployment": [f"{names[j]}@emulated" for j in answered],
            "scenario": "default",
            "policy_kind": "willingness_to_pay_usd",
            "policy_value": 0.05,
            "policy_name": "balanced",
            "policy_version": "0123456789ab",
            "propensity": propensities[every, chosen],
            "is_explored": chosen != best,
            "bundle": "sample@1",
            "predicted_quality": said[every, chosen],
            "expected_cost_usd": c[every, chosen],
            "input_tokens": 40,
            "output_tokens": 100,
            "cost_usd": c[every, answered] * rng.lognormal(0, 0.2, n_requests),
            "total_s": rng.lognormal(0, 0.4, n_requests),
            "reference": "sample-large",
            "reference_cost_usd": c[:, names.index("sample-large")],
            "retention": level,
            "task": prompts["task"].to_numpy()[row] if level != "none" else None,
            "is_emulated": True,
            "outlook": outlook,
        }
    )
    voted = np.flatnonzero(rng.random(n_requests) < vote_share)
    feedback = pd.DataFrame(
        {
            "request_id": [request_ids[i] for i in voted],
            "key": requests["key"].to_numpy()[voted],
            "source": "vote",
            "kind": "correct",
            "score": (rng.random(len(voted)) < q[voted, answered[voted]]).astype(float),
            "grader": None,
            "tags": [[] for _ in voted],
            "time_unix_s": time_unix_s[voted] + rng.exponential(600, len(voted)),
        }
    )
    retained = pd.DataFrame(
        {
            "request_id": request_ids,
            "time_unix_s": time_unix_s,
            "level": level,
            "prompt": prompts["prompt"].to_numpy()[row] if level == "content" else None,
            "encoder": None,
            "features": None,
            "task": prompts["task"].to_numpy()[row],
            "task_probability": 0.9,
        }
    )
    tables = {"requests": requests, "feedback": feedback}
    if level != "none":
        tables["retained"] = retained
    write_tables(path, **tables)
    truth = pd.DataFrame(q, columns=names, index=request_ids)
    return SyntheticLog(path, requests, feedback, retained if level != "none" else retained.iloc[:0], truth)


@pytest.fixture(scope="session")
def log_tables():
    """Return the function that writes tables as an exported log: (folder, requests=…, feedback=…, retained=…)."""
    return write_tables


@pytest.fixture(scope="session")
def write_log():
    """Return the function that writes a synthetic log of known truth: (folder, n_requests=…, seed=…, …)."""
    return synthetic_log


@pytest.fixture(scope="session")
def small_log(tmp_path_factory: pytest.TempPathFactory) -> SyntheticLog:
    """A log of 2,000 requests; read-only by agreement."""
    return synthetic_log(tmp_path_factory.mktemp("log") / "LOG")
