from __future__ import annotations

import numpy as np
import pytest

from router import lexical
from router.arrays import read_arrays, write_arrays
from router.errors import BundleCorrupt, BundleMissing
from router.lexical import ENCODER_FILE, N_BUCKETS, LexicalEncoder
from router.pieces import pieces_of
from router.surface import N_SURFACE, NAMES, surface_counts


def buckets_of(text: str) -> np.ndarray:
    return lexical.buckets_of(pieces_of(text))


def encoder_of(text: str, columns: int = 3) -> LexicalEncoder:
    buckets = np.unique(buckets_of(text))
    rng = np.random.default_rng(0)
    return LexicalEncoder(
        buckets=buckets,
        idf=rng.uniform(1, 3, len(buckets)).astype(np.float32),
        table=rng.integers(-127, 128, (len(buckets), columns)).astype(np.int8),
        row_scale=rng.uniform(0.01, 0.1, len(buckets)).astype(np.float32),
        column_scale=np.ones(columns, np.float32),
        surface_mean=np.zeros(N_SURFACE, np.float32),
        surface_scale=np.ones(N_SURFACE, np.float32),
    )


def surface(text: str) -> dict[str, float]:
    return dict(zip(NAMES, surface_counts([text])[0].tolist(), strict=True))


def test_hashes_are_the_same_for_ever():
    # Were these to change, every bundle's table would be read at the wrong rows.
    assert buckets_of("The cat, 42").tolist() == [119132, 94657, 8117, 146610, 9623, 137758, 113759]


def test_pieces_and_pairs_are_counted():
    # the | cat | , | 42 and the three pairs between them.
    assert len(buckets_of("The cat, 42")) == 4 + 3
    assert len(buckets_of("word")) == 1
    assert len(buckets_of("")) == 0


def test_case_and_the_digits_of_a_number_do_not_matter_but_its_length_does():
    assert (buckets_of("Add 17 and 23") == buckets_of("add 99 AND 10")).all()
    assert not (buckets_of("add 17") == buckets_of("add 170")).all()


def test_features_are_the_weighted_sum_of_rows():
    text = "one two two"
    encoder = encoder_of(text)
    buckets, counts = np.unique(buckets_of(text), return_counts=True)
    weights = (1 + np.log(counts)) * encoder.idf
    weights /= np.linalg.norm(weights)
    assert (buckets == encoder.buckets).all()
    expected = weights @ (encoder.table * encoder.row_scale[:, None])
    assert encoder.encode([text])[0, :3] == pytest.approx(expected, rel=1e-5)


def test_unknown_words_and_no_words_give_zeros():
    features = encoder_of("one two").encode(["zebra", "", "\ud800"])
    assert (features[:, :3] == 0).all()
    assert np.isfinite(features).all()


def test_a_text_alone_has_the_features_it_has_in_company():
    texts = ["one two", "two three 3", "x" * 20_000]
    encoder = encoder_of("one two three 3")
    assert (encoder.encode(texts) == np.vstack([encoder.encode([text]) for text in texts])).all()


def test_a_long_text_is_read_at_both_ends():
    encoder = encoder_of("alpha omega")
    middle = "word " * 10_000
    whole = encoder.encode([f"alpha {middle} omega"])[0, :3]
    assert not np.allclose(whole, encoder.encode([f"word {middle} omega"])[0, :3])
    assert not np.allclose(whole, encoder.encode([f"alpha {middle} word"])[0, :3])


def test_files_make_the_same_encoder_again():
    encoder = encoder_of("one two three")
    again = LexicalEncoder.from_files(encoder.files())
    assert (again.encode(["one three"]) == encoder.encode(["one three"])).all()
    assert again.files() == encoder.files()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("table", np.zeros((2, 2), np.float32)),
        ("idf", np.ones(1, np.float32)),
        ("buckets", np.array([3, 3, 4], np.uint32)),
        ("buckets", np.array([0, 1, N_BUCKETS], np.uint32)),
        ("surface_mean", np.zeros(1, np.float32)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name, value):
    arrays = dict(read_arrays(encoder_of("one two").files()[ENCODER_FILE], ENCODER_FILE))
    with pytest.raises(BundleCorrupt, match=name):
        LexicalEncoder.from_files({ENCODER_FILE: write_arrays({**arrays, name: value})})


def test_missing_files_and_arrays_are_refused():
    with pytest.raises(BundleMissing, match=ENCODER_FILE):
        LexicalEncoder.from_files({})
    with pytest.raises(BundleCorrupt, match="buckets must be an array of uint32, found nothing"):
        LexicalEncoder.from_files({ENCODER_FILE: write_arrays({})})


def test_surface_counts_by_hand():
    counts = surface("Pick 12 of 7.\nA. Two\nB. 3\n- x")
    assert counts["log_bytes"] == pytest.approx(np.log1p(29))
    assert counts["log_digits"] == pytest.approx(np.log1p(4))
    assert counts["share_newlines"] == pytest.approx(3 / 29)
    assert counts["options"] == 2
    assert counts["log_numbers"] == pytest.approx(np.log1p(3))
    assert counts["mean_digits_of_number"] == pytest.approx(4 / 3)
    assert counts["first_number"] == 12
    assert counts["log_words"] == pytest.approx(np.log1p(6))  # Pick of A Two B x
    assert counts["log_lines"] == pytest.approx(np.log1p(4))
    assert counts["log_bulleted_lines"] == pytest.approx(np.log1p(1))
    assert counts["log_last_line"] == pytest.approx(np.log1p(3))


def test_surface_counts_of_anything_are_finite():
    texts = ["", "\n", " ", "9" * 5_000, "é" * 100, "\x00", "A.", "(A)\n" * 50]
    rows = surface_counts(texts)
    assert rows.shape == (len(texts), N_SURFACE)
    assert np.isfinite(rows).all()
    assert (rows[0] == 0).all()
