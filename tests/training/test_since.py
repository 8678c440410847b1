from __future__ import annotations

import click
import pytest

from training.since import read_since

OPTION = click.Option(["--since"])


@pytest.mark.parametrize(
    ("text", "unix_s"),
    [
        ("1970-01-02", 86_400.0),
        ("1970-01-01T00:01", 60.0),
        ("1970-01-01T00:00:30", 30.0),
        ("30d", 1e9 - 30 * 86_400),
        ("90m", 1e9 - 5_400),
    ],
)
def test_a_date_is_utc_and_a_duration_goes_back_from_now(text, unix_s):
    assert read_since(click.Context(click.Command("x")), OPTION, text).at(1e9) == unix_s


@pytest.mark.parametrize("text", ["soon", "0d", "30", "2026-13-01", ""])
def test_what_is_neither_is_refused_with_what_was_expected(text):
    with pytest.raises(click.BadParameter, match=r"expected a duration as 30d or a UTC date as 2026-11-01, got"):
        read_since(click.Context(click.Command("x")), OPTION, text)
