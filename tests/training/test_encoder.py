from __future__ import annotations

import json

import numpy as np
import pytest

from router.features import encoder_of
from training.encoder import export
from training.errors import ExtraMissing, TrainingError

WHY = "needs the encoder extra (torch, sentence-transformers)"


def test_without_the_extra_the_way_to_install_it_is_said(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ExtraMissing, match=r"pip install 'turnout\[encoder\]'"):
        export("model", tmp_path / "out")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("int8", [False, True])
def test_the_export_embeds_as_the_model_does(random_model, int8, tmp_path):
    model, saved = random_model
    fidelity = export(str(saved), tmp_path / "out", int8=int8)
    assert fidelity.least > (0.9 if int8 else 0.9999)
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    encoder = encoder_of("minilm", files)
    texts = ["a bad cab", "hide", "a b c d e f g h i j k l m n"]
    expected = model.encode(texts)
    cosines = (encoder.encode(texts)[:, :32] * expected).sum(axis=1)
    assert cosines.min() > (0.9 if int8 else 0.9999)
    assert np.isfinite(encoder.encode(["", "q " * 5_000])).all()


@pytest.mark.filterwarnings("ignore")
def test_a_folder_that_is_no_model_is_named(tmp_path):
    pytest.importorskip("sentence_transformers", reason=WHY)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text(json.dumps({"model_type": "nothing"}))
    with pytest.raises(TrainingError, match="not a sentence-transformers model"):
        export(str(tmp_path / "m"), tmp_path / "out")
