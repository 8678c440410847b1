"""Tables and votes as one table: rows, weights, groups that keep their side of the holdout."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest

from router.bundle import load
from routing_data import OutcomeTable, Source, split
from routing_data.frames import id_of_text
from training.decision_log import DecisionLog
from training.errors import NotEnoughData
from training.feedback import votes_of
from training.lessons import HOLDOUT, digest, gather, teaching, with_log_source
from training.retrain_settings import retraining_of
from training.settings import Settings

START = 1_793_750_400.0
WORDS = ("river", "engine", "castle", "needle", "garden", "lantern", "saddle", "mirror", "button", "ladder", "anchor")


def text(i):
    """Thirty words, other ones for every number."""
    return " ".join(f"{WORDS[(i + k * k) % 11]}{(i * 31 + k * 17) % 997}" for k in range(30 + i % 9))


def labelled(n=60):
    return OutcomeTable(
        prompt_ids=tuple(f"p{i}" for i in range(n)),
        prompts=tuple(text(i) for i in range(n)),
        tasks=("task",) * n,
        groups=tuple(f"g{i}" for i in range(n)),
        candidates=("large", "medium", "small"),
        quality=np.full((n, 3), 0.5, np.float32),
        input_tokens=np.full((n, 3), 20.0),
        output_tokens=np.full((n, 3), 30.0),
        cost_usd=np.full((n, 3), 0.001),
        sources=(Source("table", "table", "0" * 64, None, None, True, n),),
    )


@pytest.fixture
def champion(tiny_bundle):
    return load(tiny_bundle)


@pytest.fixture
def logged(tmp_path, log_tables):
    """Return a function that writes prompts (text, candidate, score) as a log and gathers them."""

    def gathered(rows, champion, table=None, retrain=None, **retained):
        n = len(rows)
        ids = [f"r{i}" for i in range(n)]
        requests = pd.DataFrame(
            {
                "id": ids,
                "time_unix_s": START + np.arange(n),
                "key": "a",
                "candidate": [row[1] for row in rows],
                "chosen": [row[1] for row in rows],
                "propensity": 1.0,
                "input_tokens": 12,
                "output_tokens": 34,
                "cost_usd": 0.5,
                "is_emulated": True,
            }
        )
        said = pd.DataFrame(
            {"request_id": ids, "key": "a", "score": [row[2] for row in rows], "time_unix_s": START + 1 + np.arange(n)}
        )
        kept = {
            "request_id": ids,
            "time_unix_s": START + np.arange(n),
            "level": "content",
            "prompt": [row[0] for row in rows],
            "task": "task",
        }
        folder = tmp_path / f"LOG{len(list(tmp_path.iterdir()))}"
        log_tables(folder, requests=requests, feedback=said, retained=pd.DataFrame({**kept, **retained}))
        settings = retraining_of({"retrain": retrain or {}, "feedback": {"share": 1.0}}, "test")
        with DecisionLog(folder) as log:
            votes = votes_of(log, settings.feedback)
            return with_log_source(gather(table, log, votes, champion, settings), votes, "LOG")

    return gathered


def test_a_vote_is_a_row_with_one_outcome(champion, logged):
    found = logged([("A question of its own?", "small", 1.0)], champion, labelled())
    assert found.table.prompts[-1] == "A question of its own?" and found.is_logged.tolist() == [False] * 60 + [True]
    assert found.table.quality[-1].tolist() == pytest.approx([np.nan, np.nan, 1.0], nan_ok=True)
    assert found.weights[-1].tolist() == [0, 0, 1] and (found.weights[:60] == 1).all()
    assert found.table.output_tokens[-1, 2] == 34 and found.table.cost_usd[-1, 2] == 0.5
    assert found.table.simulated and [source.name for source in found.table.sources] == ["table", "decision log"]


def test_one_prompt_asked_often_in_many_wrappings_is_one_row(champion, logged):
    rows = [
        ("What is 17 * 23?", "small", 1.0),
        ("what is  17 * 23?", "small", 0.0),
        ('"What is 17 * 23?"', "large", 1.0),
    ]
    found = logged(rows, champion)
    assert len(found.table.prompts) == 1 and found.table.candidates == ("large", "small")
    assert found.table.quality[0].tolist() == [1.0, 0.5]
    assert found.weights[0].tolist() == [1.0, 2.0]
    assert found.counts["n_votes_used"] == 3 and found.counts["n_logged"] == 1


def test_a_prompt_of_the_table_is_on_the_tables_side(champion, logged):
    table = labelled()
    rows = [(text(i), "small", 1.0) for i in range(60)] + [(text(3) + " please", "large", 1.0)]
    found = logged(rows, champion, table)
    assert found.table.groups[60:] == (*table.groups, "g3")
    assert (found.parts[60:120] == found.parts[:60]).all() and {HOLDOUT, "train"} <= set(found.parts)
    assert found.overlap().n_same == found.overlap().n_near == 0


def test_a_prompt_near_to_both_sides_of_the_holdout_is_left_out(champion, logged):
    table = labelled()
    parts = logged([("x y z", "small", 1.0)], champion, table).parts[:60]
    held, taught = int(np.flatnonzero(parts == HOLDOUT)[0]), int(np.flatnonzero(parts == "train")[0])
    prompts = list(table.prompts)
    story = text(999)
    prompts[held], prompts[taught] = f"first {story}", f"second {story}"
    found = logged([(f"third {story}", "small", 1.0)], champion, replace(table, prompts=tuple(prompts)))
    assert found.counts["n_straddling"] == 1 and not found.is_logged.any()


@pytest.mark.parametrize("has_log", [False, True])
def test_a_labelled_prompt_that_is_held_out_under_another_group_does_not_teach(champion, logged, has_log):
    table = labelled()
    parts = split(table.groups, asdict(Settings().split), Settings().seed)
    held, taught = np.flatnonzero(parts == HOLDOUT)[:5], np.flatnonzero(parts == "train")[:5]
    prompts = list(table.prompts)
    for one, other in zip(held, taught, strict=True):
        prompts[other] = prompts[one].upper() + " "  # another table has it in capitals
    table = replace(table, prompts=tuple(prompts))
    if has_log:
        found = logged([("its own", "small", 1.0)], champion, table)
    else:
        found = gather(table, None, None, champion, retraining_of({}, "test"))
    assert found.counts["n_straddling"] == 5 and found.overlap().n_same == 0
    assert {f"p{i}" for i in held} < set(found.table.prompt_ids)
    assert not {f"p{i}" for i in taught} & set(found.table.prompt_ids)


def test_sides_are_kept_as_the_log_grows(champion, logged):
    rows = [(text(i), "small", float(i % 2)) for i in range(40)]
    first = logged(rows[:20], champion)
    more = [(text(3) + " please", "large", 1.0), (text(7) + " please", "large", 0.0)]
    second = logged([*rows, *more], champion)
    sides = dict(zip(second.table.prompts, second.parts, strict=True))
    assert len(set(first.parts)) > 1
    assert [sides[prompt] for prompt in first.table.prompts] == first.parts.tolist()
    assert sides[text(3) + " please"] == sides[text(3)]
    groups = dict(zip(second.table.prompts, second.table.groups, strict=True))
    assert groups[text(7) + " please"] == groups[text(7)]


def test_a_prompt_of_the_log_keeps_its_side_once_it_is_labelled(champion, logged):
    rows = [(text(i), "small", float(i % 2)) for i in range(40)]
    before = logged(rows, champion)
    # What `turnout label --log` makes of it: no group is stated, so the id is the group.
    ids = tuple(id_of_text(text(i)) for i in range(40))
    labels = replace(labelled(40), prompt_ids=ids, groups=ids)
    after = logged(rows, champion, labels)
    sides = dict(zip(before.table.prompts, before.parts, strict=True))
    assert len(set(before.parts)) > 1
    assert [sides[prompt] for prompt in after.table.prompts] == after.parts.tolist()


def test_votes_without_prompt_are_only_counted(champion, logged):
    rows = [("kept", "small", 1.0), (None, "small", 1.0), ("  ", "large", 0.0)]
    found = logged(rows, champion)
    assert found.table.prompts == ("kept",) and found.counts["n_votes_without_prompt"] == 2


def test_features_count_with_the_encoder_that_made_them_and_no_other(champion, logged):
    own, other = champion.manifest.encoder_id, "letters-000000000000"
    rows = [(None, "small", 1.0), (None, "small", 0.0), ("x" * 100 + "1", "large", 1.0)]
    features = [[3.0, 0.0], [4.0, 1.0], None]
    kept = {"encoder": [own, other, None], "features": features}
    new = logged(rows, champion, **kept)
    assert new.counts["n_votes_of_other_encoder"] == 2 and new.features is None
    same = logged(rows, champion, retrain={"encoder": "champion"}, **kept)
    assert same.counts["n_votes_of_other_encoder"] == 1
    assert same.features.tolist() == pytest.approx(np.array([[3.0, 0.0], [1.01, 1.0]]))
    assert same.table.prompts == ("", "x" * 100 + "1") and np.isnan(same.table.input_tokens[0]).all()
    assert same.encoder is not None and same.encoder.encoder is champion.encoder


def test_features_of_a_prompt_that_is_there_as_text_are_in_its_group(champion, logged):
    table = labelled(8)
    features = champion.encoder.encode(list(table.prompts))[[5]].tolist()
    kept = {"encoder": champion.manifest.encoder_id, "features": features}
    found = logged([(None, "small", 1.0)], champion, table, {"encoder": "champion"}, **kept)
    assert found.table.groups[-1] == "g5"
    assert digest(features[0]) == digest(np.array(features[0]) + 1e-5) != digest([9.0, 9.0])


def test_a_candidate_nobody_knows_needs_enough_votes(champion, logged):
    rows = [(text(i), "stranger", 1.0) for i in range(5)] + [("known", "large", 1.0)]
    few = logged(rows, champion, retrain={"min_votes": 6})
    assert few.table.candidates == ("large",) and few.counts["n_votes_on_unknown_candidate"] == 5
    assert logged(rows, champion, retrain={"min_votes": 5}).table.candidates == ("large", "stranger")


def test_nothing_to_learn_from_says_why(champion, logged):
    with pytest.raises(
        NotEnoughData,
        match=r"no labelled table, and no vote on a request whose prompt was kept .* retention = 'content'",
    ):
        logged([(None, "small", 1.0)], champion)


def test_labels_weigh_what_the_settings_say(champion, logged):
    found = logged([("vote", "small", 1.0)], champion, labelled(), {"label_weight": 2.5})
    assert (found.weights[:60] == 2.5).all() and found.weights[60, 2] == 1


def test_a_key_has_no_more_than_its_share_of_what_can_teach(champion, log_tables, tmp_path):
    rng = np.random.default_rng(0)
    # One loud and three quiet keys let their prompts be kept; eight busy ones do not.
    n_of = {"loud": 2_000, **{f"quiet-{i}": 100 for i in range(3)}, **{f"silent-{i}": 1_000 for i in range(8)}}
    key = np.repeat(list(n_of), list(n_of.values()))
    n = len(key)
    ids = [f"r{i}" for i in range(n)]
    plain = {"candidate": "small", "chosen": "small", "propensity": 1.0, "predicted_quality": 0.5}
    amounts = {"input_tokens": 12, "output_tokens": 34, "cost_usd": 0.5}
    asked = pd.DataFrame({"id": ids, "time_unix_s": START, "key": key, **plain, **amounts})
    said = pd.DataFrame({"request_id": ids, "key": key, "score": rng.integers(0, 2, n) * 1.0, "time_unix_s": START + 9})
    kept = asked[~asked["key"].str.startswith("silent")][["id", "time_unix_s"]].rename(columns={"id": "request_id"})
    kept = kept.assign(level="content", prompt=[f"question {i}" for i in range(len(kept))], task="task")
    log_tables(tmp_path / "LOG", requests=asked, feedback=said, retained=kept)
    settings = retraining_of({}, "test")
    with DecisionLog(tmp_path / "LOG") as log:
        votes = votes_of(log, settings.feedback, among=teaching(log, champion, settings))
        found = gather(None, log, votes, champion, settings)
    is_loud = np.isin(found.table.prompt_ids, [f"log-{name}" for name in asked.loc[asked["key"] == "loud", "id"]])
    assert len(is_loud) == 2_300 and found.counts["n_votes_without_prompt"] == 8_000
    assert found.weights[is_loud].sum() / found.weights.sum() == pytest.approx(0.25)
    assert votes.keys.set_index("key").loc["loud", "share"] == pytest.approx(0.25)
