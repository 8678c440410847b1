"""What a retraining learns from and is judged on: labelled tables and weighted votes as one table, frozen holdout.

A prompt's side of the split hangs on its group alone. A prompt of the log that is one of a labelled table, or nearly,
takes that one's group; others form groups of their own, named after the earliest, so that a side once taken is kept
over retrainings. A prompt of the log that resembles labelled prompts on both sides of the holdout is left out; so is
a labelled one that is held out under another group. Entry points: :func:`gather`, :func:`teaching`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from router.bundle import Bundle
from router.domain import Floats
from routing_data import OutcomeTable, Source, split
from routing_data.frames import id_of_text
from training.decision_log import DecisionLog
from training.duplicates import Overlap, near_pairs, normal, overlap
from training.embed import embed
from training.errors import NotEnoughData
from training.feedback import Votes
from training.fitted_encoder import FittedEncoder, kept_encoder
from training.retrain_settings import Retraining

Matrix = NDArray[np.float64]
HOLDOUT = "test"
#: What was retained of the requests that somebody voted on; the others teach nothing.
_RETAINED = """
SELECT request_id, prompt, features, encoder, task FROM retained
WHERE request_id IN (SELECT request_id FROM feedback)
QUALIFY row_number() OVER (PARTITION BY request_id ORDER BY time_unix_s DESC) = 1
"""
_TEACHING = """
SELECT DISTINCT request_id FROM retained
WHERE trim(coalesce(prompt, '')) <> '' OR (features IS NOT NULL AND encoder = ?)
"""
_LOG, _FEATURES = "log-", "features:"


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """One table of everything.

    Parameters
    ----------
    table : OutcomeTable
        Labelled rows first; a row of features alone has an empty prompt.
    weights : ndarray of shape (n, m), float64
        For how many labelled outcomes each counts; 0 where there is none.
    is_logged : ndarray of shape (n,), bool
        Rows of the log.
    parts : ndarray of shape (n,), str
    encoder : FittedEncoder or None
        The champion's, where it is kept.
    features : ndarray of shape (n, dim), float32, or None
        Of that encoder.
    n_topic_columns : int
        Of that encoder.
    counts : dict of str to int
        What was used and what was not.
    """

    table: OutcomeTable
    weights: Matrix
    is_logged: NDArray[np.bool_]
    parts: NDArray[np.str_]
    encoder: FittedEncoder | None
    features: Floats | None
    n_topic_columns: int
    counts: dict[str, int]

    def overlap(self) -> Overlap:
        """Look for prompts of the holdout among the other rows."""
        has_text = np.array([bool(prompt) for prompt in self.table.prompts])
        texts = [prompt for prompt in self.table.prompts if prompt]
        return overlap(texts, (self.parts == HOLDOUT)[has_text])


@dataclass(frozen=True, slots=True, eq=False)
class _Logged:
    """Distinct prompts of the log, by time, and their outcomes (``row`` numbers the prompts)."""

    prompts: pd.DataFrame
    outcomes: pd.DataFrame


def teaching(log: DecisionLog, champion: Bundle, settings: Retraining) -> set[str]:
    """Return the requests whose prompt can teach: its text was retained, or its features by the encoder that stays."""
    encoder_id = champion.manifest.encoder_id if settings.retrain.encoder == "champion" else None
    return set(log.query(_TEACHING, [encoder_id])["request_id"])


def gather(
    labelled: OutcomeTable | None,
    log: DecisionLog | None,
    votes: Votes | None,
    champion: Bundle,
    settings: Retraining,
) -> Lessons:
    """Put labelled tables and votes together.

    Parameters
    ----------
    labelled : OutcomeTable or None
        Merged.
    log : DecisionLog or None
        Where what was retained of the prompts is read.
    votes : Votes or None
    champion : Bundle
        Its candidates, and its encoder where that is kept.
    settings : Retraining
        With the split and the seed that the holdout hangs on.

    Returns
    -------
    Lessons

    Raises
    ------
    NotEnoughData
        There is neither a labelled row nor a vote on a prompt that was retained, or none on a candidate of the
        champion.
    """
    counts: dict[str, int] = {"n_labelled": 0 if labelled is None else len(labelled.prompt_ids)}
    kept, n_topics = kept_encoder(champion) if settings.retrain.encoder == "champion" else (None, 0)
    logged = None
    if log is not None and votes is not None and not votes.frame.empty:
        wanted = champion.manifest.encoder_id if kept is not None else None
        known = {*champion.manifest.names, *(labelled.candidates if labelled is not None else ())}
        frame = votes.frame
        if globs := settings.training.candidates:
            is_asked = frame["candidate"].map(lambda name: any(fnmatchcase(name, glob) for glob in globs))
            frame = frame[is_asked.to_numpy(dtype=bool)]
        logged = _logged(frame, log.query(_RETAINED), wanted, known, settings.retrain.min_votes, counts)
    if logged is None and labelled is None:
        why = "no vote: they come by POST /v1/feedback, or by 'turnout feedback import'"
        if votes is not None and not votes.frame.empty:
            told = ", ".join(f"{name} {n}" for name, n in counts.items())
            why = (
                f"no vote on a request whose prompt was kept ({told}): keys with retention = 'content' have theirs kept"
            )
        raise NotEnoughData(f"there is nothing to learn from: no labelled table, and {why}")
    features = None
    if kept is not None:
        features = _features(kept, labelled, logged)
    groups, is_left_out = _groups(labelled, logged, features, settings)
    table, weights, is_logged = _joined(labelled, logged, groups, settings.retrain.label_weight)
    if not set(table.candidates) & set(champion.manifest.names):
        raise NotEnoughData(
            f"the data has no candidate of the champion, which knows {', '.join(champion.manifest.names)}: there would "
            "be nothing to compare"
        )
    counts["n_straddling"] = int(is_left_out.sum())
    rows = np.flatnonzero(~is_left_out)
    table = table.select(rows)
    return Lessons(
        table=table,
        weights=weights[rows],
        is_logged=is_logged[rows],
        parts=split(table.groups, asdict(settings.training.split), settings.training.seed),
        encoder=kept,
        features=None if features is None else features[rows],
        n_topic_columns=n_topics,
        counts={**counts, "n_logged": int(is_logged[rows].sum())},
    )


def _logged(
    votes: pd.DataFrame,
    retained: pd.DataFrame,
    encoder_id: str | None,
    known: set[str],
    min_votes: int,
    counts: dict[str, int],
) -> _Logged | None:
    """Keep the votes whose prompt, or its features by this encoder, is known; join those of the same prompt."""
    frame = votes.merge(retained, on="request_id", how="left")
    has_text = frame["prompt"].notna() & (frame["prompt"].fillna("").str.strip() != "")
    has_features = frame["features"].notna() & ~has_text
    usable = has_features & (frame["encoder"] == encoder_id) if encoder_id is not None else has_features & False
    counts["n_votes_without_prompt"] = int((~has_text & ~has_features).sum())
    counts["n_votes_of_other_encoder"] = int((has_features & ~usable).sum())
    frame = frame[has_text | usable]
    # A name nobody knows needs enough votes to be fitted at all.
    n_of = frame["candidate"].value_counts()
    strange = {name for name, n in n_of.items() if name not in known and n < min_votes}
    counts["n_votes_on_unknown_candidate"] = int(frame["candidate"].isin(strange).sum())
    frame = frame[~frame["candidate"].isin(strange)].sort_values(["time_unix_s", "request_id"], kind="stable")
    if frame.empty:
        return None
    frame = frame.assign(
        prompt=frame["prompt"].where(frame["prompt"].notna(), ""),
        task=frame["task"].where(frame["task"].notna(), "unknown"),
    )
    frame["form"] = [
        normal(prompt) if prompt else f"{_FEATURES}{digest(row)}"
        for prompt, row in zip(frame["prompt"], frame["features"], strict=True)
    ]
    frame["row"] = pd.factorize(frame["form"])[0]
    counts["n_votes_used"] = len(frame)
    prompts = frame.groupby("row", sort=True)[["request_id", "prompt", "form", "features", "task"]].first()
    for name in ("score", "input_tokens", "output_tokens", "cost_usd"):
        observed = frame[name].notna()
        frame[f"{name}_weight"] = frame["weight"] * observed
        frame[name] = frame[name].fillna(0.0) * frame["weight"]
    cells = frame.groupby(["row", "candidate"], sort=True).sum(numeric_only=True)
    for name in ("score", "input_tokens", "output_tokens", "cost_usd"):
        cells[name] = (cells[name] / cells[f"{name}_weight"]).where(cells[f"{name}_weight"] > 0)
    return _Logged(prompts, cells.reset_index()[["row", "candidate", "score", "weight", *_AMOUNTS]])


_AMOUNTS = ("input_tokens", "output_tokens", "cost_usd")


def digest(features: Sequence[float] | Floats) -> str:
    """Name a feature row: equal rows, up to what processors differ in, have one name."""
    rounded = np.round(np.asarray(features, np.float64), 3) + 0.0
    return hashlib.blake2b(rounded.astype(np.float32).tobytes(), digest_size=8).hexdigest()


def _features(kept: FittedEncoder, labelled: OutcomeTable | None, logged: _Logged | None) -> Floats:
    texts = [] if labelled is None else list(labelled.prompts)
    parts = [embed(kept.encoder, texts)]
    if logged is not None:
        rows = embed(kept.encoder, logged.prompts["prompt"].tolist())
        for i, (prompt, features) in enumerate(zip(logged.prompts["prompt"], logged.prompts["features"], strict=True)):
            if not prompt:
                rows[i] = np.asarray(features, np.float32)
        parts.append(rows)
    return np.concatenate(parts)


def _groups(
    labelled: OutcomeTable | None, logged: _Logged | None, features: Floats | None, settings: Retraining
) -> tuple[tuple[str, ...], NDArray[np.bool_]]:
    """Return each row's group, and which rows are left out, lest a prompt lies on both sides of the holdout."""
    stated = () if labelled is None else labelled.groups
    n_labelled = len(stated)
    parts = split(stated, asdict(settings.training.split), settings.training.seed)
    forms = [normal(prompt) for prompt in labelled.prompts] if labelled is not None else []
    # What is held out stays so; of labelled rows it is the taught copy that goes.
    held = {form for form, part in zip(forms, parts, strict=True) if part == HOLDOUT}
    left_out = [part != HOLDOUT and form in held for form, part in zip(forms, parts, strict=True)]
    if logged is None:
        return stated, np.array(left_out, bool)
    n_logged = len(logged.prompts)
    logged_forms = logged.prompts["form"].tolist()
    if features is not None:  # a row of features alone may be of a prompt that is there as text
        by_features: dict[str, str] = {}
        for row, form in zip(features, [*forms, *logged_forms], strict=True):
            if not form.startswith(_FEATURES):
                by_features.setdefault(digest(row), form)
        logged_forms = [
            by_features.get(form.removeprefix(_FEATURES), form) if form.startswith(_FEATURES) else form
            for form in logged_forms
        ]
    row_of: dict[str, int] = {}
    number = [row_of.setdefault(form, len(row_of)) for form in [*forms, *logged_forms]]
    # Groups of labelled rows are as stated; the log's rows are joined through whatever they are near to.
    near: dict[int, set[int]] = {}
    for one, two in near_pairs(list(row_of)).tolist():
        near.setdefault(one, set()).add(two)
        near.setdefault(two, set()).add(one)
    labelled_rows: dict[int, list[int]] = {}
    for row in range(n_labelled):
        labelled_rows.setdefault(number[row], []).append(row)

    every_form = list(row_of)
    texts = dict(zip(reversed(number[n_labelled:]), reversed(logged.prompts["prompt"].tolist()), strict=True))
    of_number: dict[int, tuple[str, bool]] = {}
    groups = list(stated)
    for row in range(n_logged):
        own = number[n_labelled + row]
        if own not in of_number:
            members = _cluster(own, near, labelled_rows)
            touched = [labelled_row for member in members for labelled_row in labelled_rows.get(member, ())]
            straddles = len({parts[i] == HOLDOUT for i in touched}) > 1
            # Members are numbered in order of time, so the smallest is the earliest.
            group = stated[min(touched)] if touched else _own_group(texts.get(min(members)), every_form[min(members)])
            of_number.update(dict.fromkeys(members - labelled_rows.keys() | {own}, (group, straddles)))
        group, straddles = of_number[own]
        groups.append(group)
        left_out.append(straddles)
    return tuple(groups), np.array(left_out, bool)


def _own_group(text: str | None, form: str) -> str:
    """Name a group after its earliest prompt, as a table that states no group would: a label later moves nobody."""
    if text:
        return id_of_text(text)
    return _LOG + hashlib.blake2b(form.encode("utf-8", "replace"), digest_size=8).hexdigest()


def _cluster(start: int, near: dict[int, set[int]], labelled_rows: dict[int, list[int]]) -> set[int]:
    """Return what hangs together with a prompt of the log; a labelled prompt belongs, and ends the search there."""
    members, waiting = {start}, [start]
    while waiting:
        one = waiting.pop()
        if one in labelled_rows and one != start:
            continue
        for other in near.get(one, ()):
            if other not in members:
                members.add(other)
                waiting.append(other)
    return members


def _joined(
    labelled: OutcomeTable | None, logged: _Logged | None, groups: tuple[str, ...], label_weight: float
) -> tuple[OutcomeTable, Matrix, NDArray[np.bool_]]:
    if logged is None and labelled is not None:
        weights = np.where(np.isfinite(labelled.quality), label_weight, 0.0)
        return labelled, weights, np.zeros(len(groups), bool)
    assert logged is not None
    n_labelled, n_logged = (0 if labelled is None else len(labelled.prompt_ids)), len(logged.prompts)
    names = sorted({*logged.outcomes["candidate"], *(labelled.candidates if labelled is not None else ())})
    shape = (n_labelled + n_logged, len(names))
    values = {name: np.full(shape, np.nan) for name in ("quality", *_AMOUNTS)}
    weights = np.zeros(shape)
    if labelled is not None:
        columns = np.searchsorted(names, labelled.candidates)
        for name, target in values.items():
            target[:n_labelled, columns] = getattr(labelled, name)
        weights[:n_labelled] = np.where(np.isfinite(values["quality"][:n_labelled]), label_weight, 0.0)
    rows = n_labelled + logged.outcomes["row"].to_numpy()
    columns = np.searchsorted(names, logged.outcomes["candidate"].to_numpy(dtype=str))
    weights[rows, columns] = logged.outcomes["weight"]
    for name, column in (("quality", "score"), *((amount, amount) for amount in _AMOUNTS)):
        values[name][rows, columns] = logged.outcomes[column]
    # Without its text a prompt has no length, so its input tokens would say nothing of tokens per character.
    without_text = n_labelled + np.flatnonzero(logged.prompts["prompt"].to_numpy() == "")
    values["input_tokens"][without_text] = np.nan
    prompts = logged.prompts
    table = OutcomeTable(
        prompt_ids=(
            *(labelled.prompt_ids if labelled is not None else ()),
            *(f"{_LOG}{i}" for i in prompts["request_id"]),
        ),
        prompts=(*(labelled.prompts if labelled is not None else ()), *prompts["prompt"]),
        tasks=(*(labelled.tasks if labelled is not None else ()), *prompts["task"]),
        groups=groups,
        candidates=tuple(names),
        quality=values["quality"].astype(np.float32),
        input_tokens=values["input_tokens"],
        output_tokens=values["output_tokens"],
        cost_usd=values["cost_usd"],
        sources=labelled.sources if labelled is not None else (),
    )
    is_logged = np.arange(shape[0]) >= n_labelled
    return table, weights, is_logged


def with_log_source(lessons: Lessons, votes: Votes, name: str) -> Lessons:
    """State the log among the table's sources, so that a bundle says what it was trained on."""
    if not lessons.is_logged.any():
        return lessons
    said = votes.frame[["request_id", "candidate", "score"]].sort_values("request_id").to_csv(index=False)
    source = Source(
        name="decision log",
        path=name,
        sha256=hashlib.sha256(said.encode()).hexdigest(),
        licence=None,
        attribution=None,
        simulated=bool(votes.frame["is_emulated"].any()),
        n_prompts=int(lessons.is_logged.sum()),
    )
    return replace(lessons, table=replace(lessons.table, sources=(*lessons.table.sources, source)))
