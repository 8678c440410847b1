"""Log, feedback and labelled tables in, a judged challenger out: the whole of retraining, in :func:`retrain`.

Read → weigh → gather → fit → hold against the champion on rows that taught neither → gates → report. The holdout is
the champion's own: its split and its seed are kept, so that a prompt held out once is held out from every descendant.
So a challenger can be judged again when the champion has changed, without fitting: :func:`judge_again`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from router.bundle import MANIFEST, Bundle, load
from routing_data import OutcomeTable, implied_prices
from training.challenger_report import figures, with_gates, write_report
from training.contest import Contest, meet
from training.decision_log import DecisionLog
from training.errors import InvalidSettings, NotEnoughData
from training.feedback import Votes, votes_of
from training.fitted_encoder import N_TOPIC_COLUMNS
from training.gate_results import Opponent, Verdict
from training.gates import judge
from training.lessons import HOLDOUT, Lessons, gather, teaching, with_log_source
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
    verdict : Verdict
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
    verdict: Verdict
    report: Path
    counts: Mapping[str, int]
    keys: pd.DataFrame | None
    metrics: Mapping[str, float]

    @property
    def is_passed(self) -> bool:
        """Whether every gate was passed."""
        return not self.verdict.failed


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
    if out.resolve() == champion_dir.resolve():
        raise InvalidSettings(
            f"{out} is the champion itself: a challenger needs a folder of its own until it is judged"
        )
    if settings.training.refit:
        raise InvalidSettings("refit must be false: a challenger is judged on rows that taught it nothing")
    tell("load")
    champion, of_champion = _champion(champion_dir)
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
    verdict = Verdict(judge(contest, settings.gates), replace(of_champion, holdout_sha256=contest.holdout_sha256))
    return _reported(with_gates(trained, champion.manifest.id, verdict.gates), contest, verdict, lessons, votes)


def judge_again(
    champion_dir: Path,
    challenger_dir: Path,
    settings: Retraining,
    *,
    tables: Sequence[Path] = (),
    log: Path | None = None,
    since_unix_s: float = 0.0,
    tell: Callable[[str], None] = lambda stage: None,
    time_ratio: Callable[[Bundle, Bundle, Sequence[str]], float] | None = None,
) -> Retrained:
    """Put a bundle that is there through the gates against today's champion; nothing is fitted, its bytes stay.

    Parameters
    ----------
    champion_dir, challenger_dir : Path
    settings : Retraining
    tables, log, since_unix_s, tell, time_ratio
        As of :func:`retrain`.

    Returns
    -------
    Retrained
        Report and ``gates.json`` are written anew.

    Raises
    ------
    TrainingError
        As :func:`retrain`; and the two bundles did not hold out the same rows.
    router.errors.BundleError
        A bundle cannot be loaded.
    """
    tell("load")
    (champion, of_champion), challenger = _champion(champion_dir), load(challenger_dir)
    _require_same_holdout(champion, challenger)
    settings = with_holdout_of(champion, settings)
    labelled = load_tables(tables, settings.training.candidates) if tables else None
    _require_fair(champion, labelled)
    lessons, votes = _lessons(champion, labelled, log, since_unix_s, settings)
    tell("gates")
    contest = _contest(champion, challenger, lessons, settings, time_ratio)
    verdict = Verdict(judge(contest, settings.gates), replace(of_champion, holdout_sha256=contest.holdout_sha256))
    told = {"simulated": lessons.table.simulated, "champion": champion.manifest.id}
    return _reported(Trained(challenger_dir, challenger.manifest, told), contest, verdict, lessons, votes)


def _champion(folder: Path) -> tuple[Bundle, Opponent]:
    # A link may be swapped in the meantime; one that leads nowhere is named as it was given.
    folder = folder.resolve() if folder.is_dir() else folder
    champion = load(folder)
    digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    return champion, Opponent(champion.manifest.id, digest, "")


def _reported(trained: Trained, contest: Contest, verdict: Verdict, lessons: Lessons, votes: Votes | None) -> Retrained:
    counts = {**(votes.counts if votes is not None else {}), **lessons.counts}
    keys = None if votes is None else votes.keys
    report = write_report(trained.directory, contest, verdict, counts, keys)
    return Retrained(trained, verdict, report, counts, keys, figures(contest))


def with_holdout_of(champion: Bundle, settings: Retraining) -> Retraining:
    """Return the settings with the seed and the shares that the champion's own holdout hangs on."""
    found = _holdout_of(champion)
    if found is None:
        return settings
    return replace(settings, training=replace(settings.training, split=found[0], seed=found[1]))


def _holdout_of(bundle: Bundle) -> tuple[SplitSettings, int] | None:
    """Return what a bundle's holdout hangs on; None where it does not say."""
    config = bundle.manifest.training.get("config")
    if not isinstance(config, Mapping) or not isinstance(config.get("split"), Mapping):
        return None
    return SplitSettings(**{name: float(share) for name, share in config["split"].items()}), int(config["seed"])


def _require_same_holdout(champion: Bundle, challenger: Bundle) -> None:
    """Refuse a challenger that may have learned from what it would be judged on."""
    config = challenger.manifest.training.get("config")
    is_refitted = isinstance(config, Mapping) and bool(config.get("refit"))
    if is_refitted or _holdout_of(challenger) is None or _holdout_of(challenger) != _holdout_of(champion):
        raise NotEnoughData(
            f"{challenger.manifest.id} did not hold out the rows that {champion.manifest.id} did, so it may have "
            "learned what it would be judged on: retrain"
        )


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
        votes = votes_of(opened, settings.feedback, since_unix_s, teaching(opened, champion, settings))
        return with_log_source(gather(labelled, opened, votes, champion, settings), votes, log.name), votes


def _taught(
    lessons: Lessons, labelled: OutcomeTable | None, votes: Votes | None, champion: Bundle, settings: Retraining
) -> Taught:
    provenance: dict[str, Any] = {"champion": champion.manifest.id}
    certificates = champion.manifest.certificates
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
        presets={  # but for those that a promise stood for, which the challenger has not got
            name: policy
            for name, policy in champion.manifest.presets.items()
            if name not in certificates or certificates[name].abstained
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
