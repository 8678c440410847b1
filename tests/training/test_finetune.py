"""Fine-tune a transformer of two tiny layers; its words are letters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import routing_data
from router.bundle import load
from router.minilm import MiniLMEncoder
from training.estimators import Hints
from training.settings import FinetuneSettings, HeadSettings, Settings, TopicSettings

pytestmark = pytest.mark.filterwarnings("ignore")  # torch and transformers warn of their own plans

SETTINGS = FinetuneSettings(epochs=2, batch=16, learning_rate=3e-3, head_learning_rate=1e-2, bfloat16=False, int8=False)


@pytest.fixture(scope="module")
def problem():
    """The first candidate is right where there is an x, the second where there is a y."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdxy"), 6, p=[0.2, 0.2, 0.2, 0.2, 0.1, 0.1])) for _ in range(400)]
    y = np.array([["x" in text, "y" in text] for text in texts], float)
    y[::7, 1] = np.nan
    topics = np.eye(2, dtype=np.float32)[[int("a" in text) for text in texts]]
    lengths = np.full((400, 2), np.nan, np.float32)
    lengths[:, 0] = y[:, 0]
    return texts, y, Hints(topics, lengths)


def logits(files, texts):
    return MiniLMEncoder.from_files(files).embeddings(texts)


def test_it_learns_every_candidate_and_gives_logits(random_model, problem):
    from training.finetune import finetune

    texts, y, hints = problem
    found = logits(
        finetune(texts, y, hints, replace(SETTINGS, model=str(random_model[1]), epochs=12), 0), ["a x b", "a y b"]
    )
    assert found.shape == (2, 2)
    assert found[0, 0] > 1 > -1 > found[1, 0]
    assert found[1, 1] > 1 > -1 > found[0, 1]


def test_a_run_that_was_cut_off_goes_on_from_its_checkpoint(random_model, problem, tmp_path):
    from training.finetune import finetune

    texts, y, hints = problem
    settings = replace(SETTINGS, model=str(random_model[1]), checkpoint_dir=str(tmp_path / "kept"))
    begun: list[str] = []

    def cut_off(stage: str) -> None:
        begun.append(stage)
        if len(begun) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(texts, y, hints, settings, 0, cut_off)
    assert len(list((tmp_path / "kept").glob("finetune-*.pt"))) == 1
    resumed = finetune(texts, y, hints, settings, 0, begun.append)
    assert begun == [f"fine-tune, epoch {epoch} of 2" for epoch in (1, 2, 2)]
    whole = finetune(texts, y, hints, replace(settings, checkpoint_dir=""), 0)
    assert logits(resumed, texts[:20]) == pytest.approx(logits(whole, texts[:20]), abs=1e-4)
    # Another seed is another run: it begins at the first epoch.
    begun.clear()
    finetune(texts, y, hints, settings, 1, begun.append)
    assert len(begun) == 2


def test_a_bundle_of_the_stacked_tier_is_trained_and_loads(random_model, sample, tmp_path):
    from training.pipeline import train

    routing_data.write(routing_data.read(sample).select(np.arange(400)), tmp_path / "data")
    settings = Settings(
        encoder="stacked",
        topics=TopicSettings(min_prompts=20),
        heads=HeadSettings(kinds=("logistic", "heads"), choose=False),
        finetune=replace(SETTINGS, model=str(random_model[1]), epochs=1, int8=True),
        evaluation=replace(Settings().evaluation, n_resamples=50),
    )
    trained = train([tmp_path / "data"], tmp_path / "m" / "1", settings)
    assert trained.manifest.encoder_tier == "stacked"
    bundle = load(trained.directory)
    said = bundle.predict(["What is 2 + 2?"])
    assert np.isfinite(said.quality).all()
    assert trained.report["selection"]["kind"] == "average"
