from __future__ import annotations

import numpy as np
import pytest

from training.lexical import fit_lexical
from training.settings import LexicalSettings

SETTINGS = LexicalSettings(n_columns=8, min_prompts=2, word_vectors=False)
WORDS = {
    "food": ["pear", "plum", "soup", "bread", "salt", "oven", "spoon"],
    "rail": ["tram", "track", "depot", "signal", "wagon", "fare"],
}


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(0)
    topics = rng.choice(list(WORDS), 200).tolist()
    return [" ".join(rng.choice([*WORDS[t], "the", "a"], 12)) for t in topics], topics


def test_columns_have_unit_variance_and_estimators_read_neither_topics_nor_novelty(corpus):
    texts, topics = corpus
    fitted = fit_lexical(texts, topics, SETTINGS, 0)
    features = fitted.encoder.encode(texts)
    assert features[:, :8].std(axis=0) == pytest.approx(np.ones(8), rel=1e-3)
    assert set(range(fitted.encoder.dim)) - set(fitted.columns.tolist()) == {8, 9, fitted.novelty}


def test_words_of_like_meaning_get_like_columns():
    texts = ["the doctor came", "the physician came", "the car came", "came the the", "the train came"] * 3
    fitted = fit_lexical(texts, None, LexicalSettings(n_columns=2, min_prompts=2), 0)
    doctor, physician, car = fitted.encoder.encode(["doctor", "physician", "car"])[:, 2:66]
    assert np.linalg.norm(doctor - physician) < np.linalg.norm(doctor - car)


def test_topics_are_told_apart_on_new_texts(corpus):
    fitted = fit_lexical(*corpus, SETTINGS, 0)
    said = fitted.topics.predict(fitted.encoder.encode(["the pear soup", "a tram depot"]))
    assert fitted.topics.labels == ("food", "rail")
    assert said[0, 0] > 0.8 and said[1, 1] > 0.8


def test_eight_bit_rows_are_near_the_exact_projection(corpus):
    texts, _ = corpus
    fitted = fit_lexical(texts, None, SETTINGS, 0)
    encoder = fitted.encoder
    exact = encoder.table * encoder.row_scale[:, None] * encoder.column_scale
    largest = np.abs(exact / encoder.column_scale).max(axis=1)
    assert (encoder.row_scale * 127 == pytest.approx(largest, rel=1e-5)) and np.abs(encoder.table).max() == 127
    assert fitted.topics is None


def test_the_same_seed_gives_the_same_encoder(corpus):
    first, again = (fit_lexical(*corpus, SETTINGS, 3).encoder.files() for _ in range(2))
    assert first == again


def test_rare_words_get_no_row(corpus):
    texts, _ = corpus
    encoder = fit_lexical([*texts, "hapax legomenon"], None, SETTINGS, 0).encoder
    assert (encoder.encode(["hapax legomenon"])[0, :8] == 0).all()


def test_two_texts_without_a_word_in_common_are_no_error():
    encoder = fit_lexical(["one", "two"], None, SETTINGS, 0).encoder
    assert np.isfinite(encoder.encode(["one"])).all()
