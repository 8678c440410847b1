from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from router import cli, commands


@pytest.fixture
def run(tiny_bundle):
    def call(*arguments, command=commands.route, bundle=True, **options):
        given = [*arguments, *(["--bundle", str(tiny_bundle)] if bundle else [])]
        return CliRunner().invoke(command, given, **options)

    return call


def test_route_prints_the_choice_and_why(run):
    result = run("x" * 100, "--threshold", "0.75")
    assert result.exit_code == 0
    assert "medium: cheapest candidate predicted to reach 0.75" in result.output
    assert "at threshold 0.900: large, +1385% cost" in result.output


def test_route_as_json_is_the_whole_decision(run):
    decision = json.loads(run("x" * 100, "--preset", "price", "--json").output)
    assert decision["candidate"] == "small"
    assert decision["policy"] == {"kind": "threshold", "value": 0.5, "name": "price", "anchor": None, "margin": None}
    assert {f["candidate"] for f in decision["forecasts"]} == {"large", "medium", "small"}


def test_route_reads_standard_input(run):
    assert "large: " in run("-", "--threshold", "0.75", input="what is 7 * 6?").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x", "--threshold", "0.5", "--preset", "price"), "at most one of --preset"),
        (("x", "--threshold", "1.5"), "threshold must be a number of at least 0 and at most 1, got 1.5"),
        (("x", "--preset", "cheap"), "preset 'cheap' is unknown; expected one of quality"),
        (("x", "--deny", "*"), "no eligible candidate (large: deny"),
        (("  ",), "PROMPT must hold some text"),
    ],
)
def test_route_refuses_what_cannot_be(run, arguments, message):
    result = run(*arguments)
    assert result.exit_code != 0
    assert message in result.output


def test_a_missing_bundle_is_named(run):
    result = run("x", "--bundle", "/nowhere", bundle=False)
    assert "there is no bundle at /nowhere" in result.output


def test_verify_says_what_it_checked(tiny_bundle):
    result = CliRunner().invoke(commands.bundle, ["verify", str(tiny_bundle)])
    assert result.exit_code == 0
    assert "tiny@1: 3 candidates, letters encoder" in result.output


def test_verify_names_what_is_wrong(tmp_path):
    result = CliRunner().invoke(commands.bundle, ["verify", str(tmp_path)])
    assert result.exit_code == 1
    assert "BundleMissing" in result.output


def test_the_console_script_lists_every_command():
    output = CliRunner().invoke(cli.main, ["--help"]).output
    for name in ("route", "bundle", "serve", "key", "emulate", "settings", "data", "train", "predict", "evaluate"):
        assert f"\n  {name}" in output


def test_without_the_training_extra_its_commands_say_how_to_get_it(monkeypatch):
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    assert "train" not in CliRunner().invoke(cli.main, ["--help"]).output.split()
    result = CliRunner().invoke(cli.main, ["train", "--data", "x", "--out", "y"])
    assert result.exit_code == 1
    assert "pip install 'turnout[training]'" in result.output
