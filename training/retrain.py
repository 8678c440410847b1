"""Log, feedback and labelled tables in, a judged challenger out: the whole of retraining, in :func:`retrain`.

Read → weigh → gather → fit → hold against the champion on rows that taught neither → gates → report. The holdout is
the champion's own: its split and its seed are kept, so that a prompt held out once is held out from every descendant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from router.bundle import Bundle, load
from routing_data import OutcomeTable, implied_prices
from training.challenger_report import figures, with_gates, write_report
from training.contest import Contest, meet
from training.decision_log import DecisionLog
from training.errors import InvalidSettings, NotEnoughData
from training.feedback import Votes, votes_of
from training.fitted_encoder import N_TOPIC_COLUMNS
from training.gate_results import GateResult
from training.gates import judge
from training.lessons import HOLDOUT, Lessons, gather, with_log_source
from training.measure import trained_on
from training.pipeline import Taught, Trained, build
from training.pipeline import load as load_tables
from training.retrain_settings import Retraining
from training.settings import SplitSettings

if TYPE_CHECKING:
    import pandas as pd

FEEDBACK, UNTIL = "feedback", "until_unix_s"


@dataclass(frozen=True, slots=True, eq=False)
class Retrained:
    """A challenger and what was found of it.

    Parameters
    ----------
    trained : Trained
    gates : tuple of GateResult
    report : Path
        The folder of page and plots.
    counts : Mapping of str to int
        What was learned from, and what was left out.
    keys : pandas.DataFrame or None
        See :class:`training.feedback.Votes`.
    metrics : Mapping of str to float
        See :func:`training.challenger_report.figures`.
    """

    trained: Trained
    gates: tuple[GateResult, ...]
    report: Path
    counts: Mapping[str, int]
    keys: pd.DataFrame | None
    metrics: Mapping[str, float]

    @property
    def is_passed(self) -> bool:
        """Whether every gate was passed."""
        return all(gate.is_passed for gate in self.gates)


def retrain(
    champion_dir: Path,
    out: Path,
    settings: Retraining,
    *,
    tables: Sequence[Path] = (),
    log: Path | None = None,
    since_unix_s: float = 0.0,
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda stage: None,
    advance: Callable[[int], None] | None = None,
    time_ratio: Callable[[Bundle, Bundle, Sequence[str]], float] | None = None,
) -> Retrained:
    """Make a challenger and put it through the gates.

    Parameters
    ----------
    champion_dir : Path
        The bundle that serves.
    out : Path
        The challenger's folder, ``models/NAME/VERSION``.
    settings : Retraining
    tables : sequence of Path
        Labelled tables, merged, in the same order every time.
    log : Path, optional
        An exported decision log.
    since_unix_s : float, default=0
        Earlier votes are left out.
    overwrite : bool, default=False
        Replace what is there.
    tell, advance : callable, optional
        For a progress display: the name of each stage as it begins; how many prompts were embedded.
    time_ratio : callable, optional
        See :func:`training.contest.meet`.

    Returns
    -------
    Retrained
        Whether it was passed or refused: a refused challenger is written too, and says so.

    Raises
    ------
    TrainingError
        Too little data, a log that cannot be read, settings that cannot be.
    router.errors.BundleError
        The champion cannot be loaded.
    FileExistsError
        ``out`` is there and ``overwrite`` is False.
    """
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists; choose another version or pass --overwrite")
    if settings.training.refit:
        raise InvalidSettings("refit must be false: a challenger is judged on rows that taught it nothing")
    tell("load")
    champion = load(champion_dir)
    settings = with_holdout_of(champion, settings)
    labelled = load_tables(tables, settings.training.candidates) if tables else None
    _require_fair(champion, labelled)

    tell("feedback")
    lessons, votes = _lessons(champion, labelled, log, since_unix_s, settings)
    trained = build(
        lessons.table,
        out,
        settings.training,
        taught=_taught(lessons, labelled, votes, champion, settings),
        overwrite=overwrite,
        tell=tell,
        advance=advance,
    )

    tell("gates")
    contest = _contest(champion, load(out), lessons, settings, time_ratio)
    gates = judge(contest, settings.gates)
    trained = with_gates(trained, champion.manifest.id, gates)
    counts = {**(votes.counts if votes is not None else {}), **lessons.counts}
    keys = None if votes is None else votes.keys
    report = write_report(trained, contest, gates, counts, keys)
    return Retrained(trained, gates, report, counts, keys, figures(contest))


def with_holdout_of(champion: Bundle, settings: Retraining) -> Retraining:
    """Return the settings with the seed and the shares that the champion's own holdout hangs on."""
    config = champion.manifest.training.get("config")
    if not isinstance(config, Mapping) or not isinstance(config.get("split"), Mapping):
        return settings
    shares = SplitSettings(**{name: float(share) for name, share in config["split"].items()})
    return replace(settings, training=replace(settings.training, split=shares, seed=int(config["seed"])))


def n_new_votes(log: Path, champion: Bundle) -> int:
    """Count the votes of a log that the champion has not learned from."""
    known = champion.manifest.training.get(FEEDBACK)
    until = (known.get(UNTIL) if isinstance(known, Mapping) else None) or 0.0
    with DecisionLog(log) as opened:
        sql = "SELECT count(*) AS n FROM feedback WHERE time_unix_s > ? AND coalesce(source, 'vote') <> 'signal'"
        return int(opened.query(sql, [until])["n"][0])


def _require_fair(champion: Bundle, labelled: OutcomeTable | None) -> None:
    """Refuse rows that the champion has seen in full: it would look better on them than it is."""
    config = champion.manifest.training.get("config")
    refitted = isinstance(config, Mapping) and bool(config.get("refit"))
    if refitted and labelled is not None and trained_on(champion, labelled):
        raise NotEnoughData(
            "the champion was refitted on all of this data, so nothing is held out from it: use other data"
        )


def _lessons(
    champion: Bundle, labelled: OutcomeTable | None, log: Path | None, since_unix_s: float, settings: Retraining
) -> tuple[Lessons, Votes | None]:
    if log is None:
        return gather(labelled, None, None, champion, settings), None
    with DecisionLog(log) as opened:
        votes = votes_of(opened, settings.feedback, since_unix_s)
        return with_log_source(gather(labelled, opened, votes, champion, settings), votes, log.name), votes


def _taught(
    lessons: Lessons, labelled: OutcomeTable | None, votes: Votes | None, champion: Bundle, settings: Retraining
) -> Taught:
    provenance: dict[str, Any] = {"champion": champion.manifest.id}
    if lessons.encoder is not None:
        provenance[N_TOPIC_COLUMNS] = lessons.n_topic_columns
    if votes is not None:
        provenance[FEEDBACK] = {
            UNTIL: votes.until_unix_s,
            "counts": {**votes.counts, **lessons.counts},
            "settings": asdict(settings.feedback),
        }
    return Taught(
        weights=lessons.weights if lessons.is_logged.any() else None,
        is_voted=lessons.is_logged,
        encoder=lessons.encoder,
        features=lessons.features,
        prices=_prices(labelled, lessons.table, champion),
        presets={  # but for those that a certificate stood for, which the challenger has not got
            name: policy
            for name, policy in champion.manifest.presets.items()
            if name not in champion.manifest.certificates
        },
        provenance=provenance,
    )


def _prices(labelled: OutcomeTable | None, table: OutcomeTable, champion: Bundle) -> dict[str, tuple[float, float]]:
    """Take prices from labelled tables, else from the champion; bills, with caches and discounts, tell them badly."""
    stated = {
        column.name: (column.reference_price.input_usd_per_mtok, column.reference_price.output_usd_per_mtok)
        for column in champion.manifest.candidates
        if column.reference_price is not None
    }
    implied = {} if labelled is None else {name: p for name, p in implied_prices(labelled).items() if p is not None}
    return {name: price for name, price in {**stated, **implied}.items() if name in table.candidates}


def _contest(
    champion: Bundle,
    challenger: Bundle,
    lessons: Lessons,
    settings: Retraining,
    time_ratio: Callable[[Bundle, Bundle, Sequence[str]], float] | None,
) -> Contest:
    # A row of features alone is judged by nobody: the champion may have another encoder.
    has_text = np.array([bool(prompt) for prompt in lessons.table.prompts])
    held = np.flatnonzero((lessons.parts == HOLDOUT) & has_text)
    if not len(held):
        raise NotEnoughData("no prompt is held out, so nothing can be judged")
    return meet(
        champion,
        challenger,
        lessons.table.select(held),
        lessons.weights[held] if lessons.is_logged.any() else None,
        lessons.overlap(),
        is_voted=lessons.is_logged[held],
        min_slice=settings.gates.min_slice,
        confidence=settings.gates.confidence,
        time_ratio=time_ratio,
    )
