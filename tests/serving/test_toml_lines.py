from __future__ import annotations

import tomllib
from collections.abc import Iterator

import pytest

from serving.settings import DEMO
from serving.toml_lines import lines_of, located

TRICKY = '''# a comment with [[rows]] and key = 1
title = """first
[[rows]] # no header
name = "no key"
\\""" still inside"""
raw = \'\'\'
[table]
x = 1\'\'\'
[server] # [[x]]
port = 1
"quoted.key" = "a ] b } # c"
a.b . "c d" = { x = 1, y = [ 2,
  { z = 3 }, # a comment, with ]
  4,
] }

[[rows]]
name = "one"
ways = [{ to = "x" },
        { to = "y" }]
[rows.inner]
deep = true
[[rows.parts]]
n = 1
[[rows.parts]]
n = 2
[[rows]]
name = 'two # "'
[[rows.parts]]
n = 3
at = 2026-11-26T23:00:00Z
["claude-*".'x']
key = -1.5e3
'''

PLACES = {
    "title": 2,
    "raw": 6,
    "server": 9,
    "server.port": 10,
    "server.quoted.key": 11,
    "server.'quoted.key'": 11,
    "server.a.b.c d": 12,
    "server.a.b.c d.x": 12,
    "server.a.b.c d.y.0": 12,
    "server.a.b.c d.y.1.z": 13,
    "server.a.b.c d.y.2": 14,
    "rows.0": 17,
    "rows.0.name": 18,
    "rows.0.ways.0.to": 19,
    "rows.0.ways.1.to": 20,
    "rows.0.inner.deep": 22,
    "rows.0.parts.0": 23,
    "rows.0.parts.1.n": 26,
    "rows.1": 27,
    "rows.1.name": 28,
    "rows.1.parts.0.at": 31,
    "claude-*.x.key": 33,
}


def paths_of(value: object, at: str = "") -> Iterator[str]:
    """Yield every path of a parsed TOML text."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        path = f"{at}.{key}" if at else str(key)
        yield path
        yield from paths_of(inner, path)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_the_line_of_every_table_row_and_key(ending: str) -> None:
    lines = lines_of(TRICKY.replace("\n", ending))
    assert {path: lines.get(path) for path in PLACES} == PLACES


@pytest.mark.parametrize("text", [TRICKY, DEMO.read_text("utf-8")], ids=["tricky", "demo"])
def test_it_finds_just_what_tomllib_finds(text: str) -> None:
    found = {path for path in lines_of(text) if "'" not in path}
    assert found == set(paths_of(tomllib.loads(text)))


@pytest.mark.parametrize("text", ["", "[", "a = ", 'a = """', "[a\nb = 1", "= 1", "a = [1, {", "\x00", "[[a]\n"])
def test_what_is_no_toml_ends_quietly(text: str) -> None:
    lines_of(text)


def test_a_problem_gets_the_line_of_its_key_or_of_the_table_around_it() -> None:
    lines = lines_of(TRICKY)
    assert located("rows.1.parts.0.n = 3: expected 4", lines) == "line 30: rows.1.parts.0.n = 3: expected 4"
    assert located("rows.0.base_url: missing", lines) == "line 17: rows.0.base_url: missing"
    assert located("rows.10.name: missing", lines) == "line 17: rows.10.name: missing"
    assert located("server.'quoted.key' = 'a': no", lines) == "line 11: server.'quoted.key' = 'a': no"
    assert located("elsewhere: no", lines) == "elsewhere: no"
