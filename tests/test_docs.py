"""What the README says is what the program does."""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_generated_parts_are_fresh(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.delitem(sys.modules, "readme", raising=False)
    import readme

    assert readme.rewritten(README) == README, "run: python benchmarks/readme.py"


@pytest.mark.parametrize("name", sorted(point.name for point in entry_points(group="turnout.commands")))
def test_every_command_is_in_the_readme(name):
    assert f"turnout {name}" in README


def test_every_file_the_readme_links_to_exists():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_every_make_target_the_readme_names_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_package_directory_is_in_the_layout():
    for name in ("router", "training", "serving", "datasets", "models", "notebooks", "benchmarks", "tests", "deploy"):
        assert re.search(rf"^{name}/ ", README, re.MULTILINE), name


def test_the_toml_example_of_the_readme_is_valid(tmp_path, monkeypatch):
    from serving import settings

    example = re.search(r"```toml\n(\[server\].*?)```", README, re.DOTALL)
    assert example
    path = tmp_path / "turnout.toml"
    path.write_text(example[1])
    loaded = settings.load(path)
    assert loaded.candidates[0].like == "gpt-4o-mini-2024-07-18"
    known = {c["name"] for c in json.loads((ROOT / "models/default/manifest.json").read_text())["candidates"]}
    assert loaded.candidates[0].like in known


def test_the_scenarios_of_the_readme_are_valid_beside_its_settings(tmp_path, monkeypatch):
    from serving import settings, state

    pytest.importorskip("py3langid")
    for variable in ("OPENAI_API_KEY", "IN_HOUSE_KEY"):
        monkeypatch.setenv(variable, "k")
    path = tmp_path / "turnout.toml"
    path.write_text("\n".join(re.findall(r"```toml\n(.*?)```", README, re.DOTALL)))
    built = state.build(settings.load(path))
    assert [rule.name for rule in built.settings.rules] == ["night-batch", "contracts"]


def test_the_python_examples_of_the_readme_run(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    examples = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    routed = [example for example in examples if "from router import Router" in example]
    assert routed
    exec(compile(routed[0], "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_architecture_is_short_and_names_every_module():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    assert text.count("\n") <= 200
    for package in ("router", "serving", "training"):
        for path in sorted((ROOT / package).glob("*.py")):
            if path.stem != "__init__":
                assert re.search(rf"\b{path.stem}\b", text), f"{package}/{path.name} is not in ARCHITECTURE.md"
