"""ZeroEval: stored answers of twelve LLMs to GSM8K and CRUXEval, graded here by exact match.

Files of ``WildEval/ZeroEval`` (Apache-2.0) pinned to a commit; sizes and checksums were computed
from a copy of that commit. The answers carry no token counts and no costs, so those stay unknown.
Grading is ours: the ``answer`` field must equal the reference as a Python literal (CRUXEval) or as a
number (GSM8K); an answer that cannot be found scores 0.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from routing_data.download import RemoteFile
from routing_data.public_source import PublicSource, Rows

_PLACE = "https://raw.githubusercontent.com/WildEval/ZeroEval/8c1485edf12c6efb5f69135a562927c5ad484059/result_dirs"
_CRUX = (
    ("gpt-4o-2024-05-13", "b96957e36d367d03879762f753477ced1e146d99edfcd608d7494551131aa79c", 2077039),
    ("gpt-4o-mini-2024-07-18", "41e3446c313185e7bdba7a7b993fb2d365019e9255e887cb916031edc1d0692b", 2318690),
    ("gpt-3.5-turbo-0125", "5e8e595c29e412073c1a40f26de1c12a44945c4c399ee557021ce828767ee674", 1890488),
    ("gemini-1.5-pro", "87cd836015d46f5f5298f20042bea7599a6d585954c4c277f495a5b6380c5141", 1872813),
    ("gemini-1.5-flash", "48ba3b61999869717bbe25ea5b8d54cb8df1291d981c236787919c315d2094ba", 1981079),
    ("claude-3-5-sonnet-20240620", "80e720519776ac159da53bcdd3e61b9d2452c2fb56932c4b8d331cd03cb0ea31", 2128936),
    ("claude-3-haiku-20240307", "e929a1953c12c057224da4ac28c3f87e608cf57d22cb29f75598bbb7ee28821f", 2224857),
    ("Meta-Llama-3.1-70B-Instruct", "86555ee77388dea2667b9ffe07967605ff59005062c7e054196971116164e5c0", 2891142),
    ("Meta-Llama-3.1-8B-Instruct", "97ea83662e316652e4b3cdab721cf198a29af684d29f86b83a87a16bd6788139", 2921606),
    ("Qwen2-72B-Instruct", "3721fb628707630ecf0ad5f5e903a1482fc1e123af3b0509389a89e337fffeb0", 2686133),
    ("gemma-2-9b-it", "8dc654c65add34609b3dbb2c6be9170bd7b2bc68163de0ba80f80c86834dccb3", 1978543),
    ("Mistral-Large-2", "72eb0263635697c0a82dc652ddd232793cadc267dcbabc88d7fe55dcacc5cdc6", 1952667),
)
_GSM = (
    ("gpt-4o-2024-05-13", "10f04379621a5b7626555ec5a1cd787662d7d7a94982a6e1276d80e50b951371", 2503536),
    ("gpt-4o-mini-2024-07-18", "b8c38e23fd496db103e072e80dacf3e1a0b491b407a59d816403719c4f496fbb", 2518569),
    ("gpt-3.5-turbo-0125", "93a6dc49ac273c23c873662b21f2b7af7de66ba98e7ce323e8e4705904d11ec5", 2334160),
    ("gemini-1.5-pro", "4b186a42e5703f06d17c2ffe6dcd0a5f70d49962377208ffb7b5e8db3c915ba4", 2386631),
    ("gemini-1.5-flash", "b7df6ed602856d77747828910014eb2f73f51edf928e287692226b3626aa348d", 2327638),
    ("claude-3-5-sonnet-20240620", "49ea477ba1c8eafe6bf6bae314b37122a8c56af5bcfb2418dbb4bf33c38da964", 2622529),
    ("claude-3-haiku-20240307", "2233eb8f2938232664a69f059b81413c11aaa0651c296131bca22611654c2958", 2800290),
    ("Meta-Llama-3.1-70B-Instruct", "b8e002cd8490719995e401f3eaf9d8befc4ca959edb91fdf78f71e621b86096e", 3651876),
    ("Meta-Llama-3.1-8B-Instruct", "a4a42a1babe0f3d5bcd5de02aa53aa1c94d399d550acd9bfc836f4d95aaa748b", 3880145),
    ("Qwen2-72B-Instruct", "6771d7cb9f93aaac58f7baef974047fb989e5eca2e8a772e84a97f2f0c594c53", 3283556),
    ("gemma-2-9b-it", "e0516d4739f6d1edb640308ac0c3f9357cce0cd5f38918456ca183e3212e100f", 3251077),
    ("Mistral-Large-2", "2408a17dd838ef40d1c2a18fe1ff28d4a44661cf13bf4e12e5354bb628782e88", 2381412),
)
_ANSWER = re.compile(r'"answer"\s*:\s*("(?:[^"\\]|\\.)*"|[^\n]*)')
_NUMBER = re.compile(r"-?\d[\d,]*\.?\d*")


def _convert(paths: Mapping[str, Path]) -> Rows:
    prompts: dict[str, dict[str, str]] = {}
    outcomes: list[dict[str, str | float]] = []
    for name, path in paths.items():
        task, _, candidate = name.removesuffix(".json").partition("-")
        for item in json.loads(path.read_text(encoding="utf-8")):
            prompt_id = f"{task}:{item['id']}"
            prompts.setdefault(prompt_id, {"prompt_id": prompt_id, "prompt": item["question"], "task": task})
            right = _matches(task, _answer(item["output"][0]), item["answer"])
            outcomes.append({"prompt_id": prompt_id, "candidate": candidate, "quality": float(right)})
    rows = pd.DataFrame(outcomes).drop_duplicates(["prompt_id", "candidate"], ignore_index=True)
    return pd.DataFrame(list(prompts.values())), rows


def _answer(output: str) -> str | None:
    found = _ANSWER.findall(output)
    if not found:
        return None
    text = found[-1].strip().rstrip("}").rstrip().rstrip(",")
    try:
        return str(json.loads(text))
    except ValueError:
        return str(text).strip("\"'")


def _matches(task: str, answer: str | None, reference: str) -> bool:
    if answer is None:
        return False
    if task == "gsm":
        numbers, right = _NUMBER.findall(answer), _NUMBER.findall(reference)
        return bool(numbers and right) and _number(numbers[-1]) == _number(right[-1])
    wanted = _literal(reference)
    # The JSON field has quotes of its own, so a string is often given without a second pair.
    return _literal(answer) == wanted or repr(answer) == wanted


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _literal(text: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # about odd escapes in what an LLM wrote
            return repr(ast.literal_eval(text.strip()))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text.strip().strip("\"'")


ZEROEVAL = PublicSource(
    name="zeroeval",
    licence="Apache-2.0",
    attribution="WildEval/ZeroEval; questions of GSM8K (MIT) and CRUXEval (MIT)",
    files=tuple(
        RemoteFile(f"{task}-{candidate}.json", f"{_PLACE}/{task}/{candidate}.json", sha256, n_bytes)
        for task, files in (("crux", _CRUX), ("gsm", _GSM))
        for candidate, sha256, n_bytes in files
    ),
    convert=_convert,
)
"""ZeroEval's GSM8K and CRUXEval results."""
