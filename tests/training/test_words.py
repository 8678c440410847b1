from __future__ import annotations

import numpy as np

from router.pieces import pieces_of
from training import words


def cosine(a: str, b: str) -> float:
    hashes, vectors = words.load()
    x, y = (vectors[np.searchsorted(hashes, pieces_of(word).hashes[0])] for word in (a, b))
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def test_the_shipped_table_knows_which_words_mean_alike():
    assert cosine("doctor", "physician") > 0.7
    assert cosine("Doctor", "car") < 0.4


def test_a_table_is_made_of_whole_words_only():
    class Model:
        class tokenizer:
            @staticmethod
            def get_vocab():
                return {"[CLS]": 0, "##ing": 1, "7": 2, **{f"word{chr(97 + i)}": 3 + i for i in range(26)}}

        @staticmethod
        def encode(texts, **_):
            assert all(text.startswith("word") for text in texts)
            return np.random.default_rng(0).normal(size=(len(texts), 80))

    made = words.make(Model())
    assert made == words.make(Model())
    from router.arrays import read_arrays

    arrays = read_arrays(made, "words.npz")
    assert arrays["vectors"].shape == (26, words.N_DIRECTIONS)
    assert arrays["vectors"].dtype == np.int8
