"""RouterBench, zero-shot: real costs of eleven LLMs on ARC-Challenge, MBPP and Winogrande.

The publisher's own file is a pickle, which we never open. These are the CSV copies that the
RouterDC authors keep in their repository (``shuhao02/RouterDC``), pinned to a commit; sizes and
checksums were computed from a copy of that commit. No licence is stated: measure with it, ship
nothing trained on it. Token counts are not in the files and stay unknown.

Reference: Hu et al., "RouterBench", arXiv 2403.12031.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from routing_data.download import RemoteFile
from routing_data.public_source import PublicSource, Rows

_PLACE = (
    "https://raw.githubusercontent.com/shuhao02/RouterDC/0e63989c5bf4363330b8a4616386e3f7f116d9f8"
    "/datasets/routerbench_zs"
)
_COST = "|total_cost"


def _convert(paths: Mapping[str, Path]) -> Rows:
    wide = pd.concat([pd.read_csv(path) for path in paths.values()], ignore_index=True)
    wide = wide.drop_duplicates("sample_id", ignore_index=True)  # a few rows are in train and in test
    prompts = pd.DataFrame(
        {
            "prompt_id": "rb:" + wide["sample_id"].astype(str),
            # Each prompt is written as a Python list of turns.
            "prompt": ["\n".join(ast.literal_eval(text)) for text in wide["prompt"]],
            "task": wide["eval_name"],
        }
    )
    columns = [str(column) for column in wide.columns]
    candidates = [column.removesuffix(_COST) for column in columns if column.endswith(_COST)]
    outcomes = [
        pd.DataFrame(
            {
                "prompt_id": prompts["prompt_id"],
                "candidate": name,
                "quality": wide[name],
                "cost_usd": wide[name + _COST],
            }
        )
        for name in candidates
    ]
    rows = pd.concat(outcomes, ignore_index=True)
    return prompts, rows.dropna(subset=["quality"], ignore_index=True)  # some answers were never graded


ROUTERBENCH = PublicSource(
    name="routerbench",
    licence=None,
    attribution="RouterBench (Hu et al., arXiv 2403.12031), copy of shuhao02/RouterDC",
    files=(
        RemoteFile(
            "arc_challenge_train.csv",
            f"{_PLACE}/arc_challenge_train.csv",
            "59e044850520be06f74dd9766b9ab4621d783f7fa5269d7dda118b9abb115d78",
            2579191,
        ),
        RemoteFile(
            "arc_challenge_test.csv",
            f"{_PLACE}/arc_challenge_test.csv",
            "7bffb55faca2e1f9d19f7197c652884780a1e0f7fe14bad5b2b1c6afbe7a6769",
            1102387,
        ),
        RemoteFile(
            "mbpp_train.csv",
            f"{_PLACE}/mbpp_train.csv",
            "2a985adc3a3016b5ae4d62229722cdff9ece58aa1338206a6b12e4957304452b",
            3128944,
        ),
        RemoteFile(
            "mbpp_test.csv",
            f"{_PLACE}/mbpp_test.csv",
            "156fb843b706b765162d74f5fc4928322be5041791b45bd3e1bd732d998c4032",
            1322291,
        ),
        RemoteFile(
            "winograde_train.csv",
            f"{_PLACE}/winograde_train.csv",
            "f6d54caab59bebb9facf3407c515a07a20faf4e75c639b7e91988ceaf312906a",
            1623934,
        ),
        RemoteFile(
            "winograde_test.csv",
            f"{_PLACE}/winograde_test.csv",
            "de7c8689d4b682c860b660988808ee2e40366b12076811e7891081facec4a2e1",
            696034,
        ),
    ),
    convert=_convert,
)
"""RouterBench as CSV."""
