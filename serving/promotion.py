"""The lines of a config file that make a promoted arm permanent. Pure. Entry point: :func:`permanent`."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from router import Policy
from serving.experiment import Arm, Experiment
from serving.references import AUTO
from serving.scenario_settings import SCENARIO

_OF_A_SCENARIO = ("threshold", "willingness_to_pay_usd", "preset", "candidate")


def permanent(experiment: Experiment, arm: Arm, presets: Mapping[str, Policy]) -> str:
    """Write the lines that do for good what an arm does.

    Parameters
    ----------
    experiment : Experiment
    arm : Arm
    presets : Mapping of str to Policy
        As they are now.

    Returns
    -------
    str
        TOML; what it cannot say stands in its comments.
    """
    on = experiment.on
    lines = [
        f"# {experiment.name}, arm {arm.name}: {arm.sets()} on {on}; then: turnout experiment stop {experiment.name}"
    ]
    if arm.bundle is not None:
        lines += [
            "# The bundle predicts for everything, not for this alone.",
            "[server]",
            f"bundle = {_quoted(arm.bundle)}",
        ]
    if on.startswith(SCENARIO):
        lines += _of_scenario(on.removeprefix(SCENARIO), arm)
    elif arm.candidate is not None:
        lines += _of_candidate(experiment, arm.candidate)
    elif (policy := arm.policy()) is not None:
        preset = on.partition(":")[2]
        if isinstance(policy, str) and not preset:
            lines += ["[routing]", f"default = {_quoted(policy)}"]
        else:
            lines += _of_policy(preset or f"{experiment.name}-{arm.name}", policy, presets, is_default=not preset)
    if len(lines) == 1:
        lines.append("# Nothing to write: the arm goes by the settings as they are.")
    return "\n".join(lines) + "\n"


def _of_scenario(name: str, arm: Arm) -> list[str]:
    given = [(key, value) for key in _OF_A_SCENARIO if (value := getattr(arm, key)) is not None]
    if not given:
        return []
    ((key, value),) = given
    written = _quoted(value) if isinstance(value, str) else f"{value!r}"
    return [f"[scenarios.{_quoted(name)}]", f"{key} = {written}  # in the place of its preset, threshold or candidate"]


def _of_candidate(experiment: Experiment, candidate: str) -> list[str]:
    if experiment.on != AUTO:
        return [
            f"# No table makes a preset of {_quoted(candidate)}: ask for it by name in the place of {experiment.on}."
        ]
    return [
        "# As the last rule: who comes here went by no other.",
        "[[rules]]",
        f"name = {_quoted(experiment.name)}",
        f"scenario = {_quoted(candidate)}",
    ]


def _of_policy(name: str, policy: Policy | str, presets: Mapping[str, Policy], *, is_default: bool) -> list[str]:
    lines = ["[routing]", f"default = {_quoted(name)}"] if is_default else []
    if isinstance(policy, str):
        found = presets.get(policy)
        if found is None or found.anchor is not None:
            return [*lines, f"# No table can say what the preset {policy} is: ask for auto:{policy} instead."]
        policy = found
    return [*lines, f"[routing.presets.{_quoted(name)}]", f"kind = {_quoted(policy.kind)}", f"value = {policy.value!r}"]


def _quoted(text: str) -> str:
    """Write a string as TOML does, which for these is as JSON does."""
    return orjson.dumps(text).decode()
