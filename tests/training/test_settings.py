from __future__ import annotations

from pathlib import Path

import pytest

from training.errors import InvalidSettings
from training.settings import Settings, read_settings, settings_of


def test_no_file_gives_the_defaults():
    assert read_settings(None) == Settings()


def test_the_shipped_configuration_is_valid():
    folder = Path(__file__).resolve().parents[2] / "training" / "configs"
    settings = read_settings(folder / "default.toml")
    assert len(settings.candidates) == 23
    assert not [name for name in settings.candidates if name.startswith("o1")]
    assert "CC-BY-4.0" in settings.licence


def test_values_reach_their_fields():
    settings = settings_of({"seed": 4, "heads": {"kinds": ["ridge"], "dropout": 0}, "candidates": ["a*"]}, "x")
    assert (settings.seed, settings.heads.kinds, settings.heads.dropout) == (4, ("ridge",), 0.0)
    assert settings.candidates == ("a*",)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"sed": 1}, "x: unknown key 'sed'; the nearest known key is 'seed'"),
        ({"split": {"tain": 0.5}}, "x: split: unknown key 'tain'; the nearest known key is 'train'"),
        ({"seed": "1"}, "x: seed must be int, got '1'"),
        ({"seed": True}, "x: seed must be int, got True"),
        ({"seed": -1}, "x: seed must be at least 0, got -1"),
        ({"split": 3}, "x: split must be a table, got 3"),
        ({"split": {"train": 0.9}}, "x: split must be four shares above 0, sum 1"),
        ({"encoder": "bert"}, "x: encoder must be one of lexical, minilm, stacked, got 'bert'"),
        ({"encoder": "minilm"}, "x: encoder_dir must be the folder that 'turnout encoder export' made"),
        (
            {"heads": {"kinds": ["mlp", "tree"]}},
            "x: heads.kinds must be one or more of mlp, forest, heads, logistic, ridge, boosting",
        ),
        ({"heads": {"dropout": 1.0}}, r"x: heads.dropout, heads.feature_dropout must be in \[0, 1\)"),
        ({"candidates": "gpt"}, "x: candidates must be a list, got 'gpt'"),
    ],
)
def test_what_cannot_be_is_named(document, message):
    with pytest.raises(InvalidSettings, match=message):
        settings_of(document, "x")


def test_a_file_that_is_no_toml_is_named(tmp_path):
    (tmp_path / "c.toml").write_text("seed = ")
    with pytest.raises(InvalidSettings, match=r"c\.toml: cannot be read as TOML"):
        read_settings(tmp_path / "c.toml")
