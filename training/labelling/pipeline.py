"""The story of a run: questions → calls → grades → a table.

::

    gateway ─ who is there ─▶ targets ─┐
    file or log ─▶ questions ──────────┴▶ cells, prompt by prompt ─▶ Asker ─▶ answer ─▶ grader or judge ─▶ Label
                                                                                                            │
    prompts.parquet, outcomes.parquet, source.json, labels.jsonl, summary.json ◀────────────────────────────┘

Prompts come in an order that only their ids decide, so a budget that ends early leaves a fair sample of the file.
Entry point: :func:`label`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from training.errors import InvalidSettings, NotEnoughData, TrainingError
from training.labelling.answer_file import AnswerFile
from training.labelling.asker import Asker
from training.labelling.budget import Budget
from training.labelling.call import Answer, Call, Target, Unanswered
from training.labelling.confinement import Confinement
from training.labelling.gateway import Gateway
from training.labelling.grade import Grade
from training.labelling.graders.grader import Grader
from training.labelling.jury import Jury
from training.labelling.label import Label
from training.labelling.question import Question
from training.labelling.question_file import JUDGE
from training.labelling.settings import LabelSettings
from training.labelling.summary import JudgeSummary, Summary, candidate_summaries, judge_kappa
from training.labelling.table_files import write_summary, write_table

ANSWERS_FILE = "answers.jsonl"


@dataclass(frozen=True, slots=True)
class _Run:
    settings: LabelSettings
    graders: Mapping[str, Grader]
    asker: Asker
    jury: Jury | None
    reference: Target | None


async def label(
    questions: Sequence[Question],
    settings: LabelSettings,
    graders: Mapping[str, Grader],
    confinement: Confinement,
    url: str,
    key: str | None,
    *,
    tell: Callable[[int], None] = lambda n: None,
    advance: Callable[[float], None] = lambda spent_usd: None,
) -> Summary:
    """Label.

    Parameters
    ----------
    questions : sequence of Question
    settings : LabelSettings
    graders : Mapping of str to Grader
    confinement : Confinement
        The graders' own.
    url : str
        Root of a gateway.
    key : str or None
        Of that gateway.
    tell : callable, optional
        Told how many cells there are.
    advance : callable, optional
        Told after each what was spent in all.

    Returns
    -------
    Summary

    Raises
    ------
    GatewayFailed
        The gateway takes no calls of ours.
    InvalidSettings
        No candidate matches, a name is none, a price is unknown, or a judge is missing.
    AnswersInUse
        Another run has the folder.
    NotEnoughData
        Nothing was observed.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    n_connections = settings.n_at_once
    async with Gateway(url, key, settings.timeout_s, n_connections) as gateway:
        known = await gateway.targets()
        targets = _chosen(known, settings.candidates)
        judge = _named(known, settings.judge, "--judge")
        reference = _named(known, settings.judge_reference, "--judge-reference")
        if judge is None and any(question.grader == JUDGE for question in questions):
            raise InvalidSettings("rows have the grader judge: name the candidate that judges with --judge")
        _check_prices([*targets, *(one for one in (judge, reference) if one)])
        with AnswerFile(settings.out / ANSWERS_FILE) as answers:
            budget = Budget(settings.max_usd, answers.spent_usd)
            asker = Asker(gateway, answers, budget, settings.n_at_once, settings.n_tries, settings.retry_wait_s)
            jury = None if judge is None else Jury(asker, judge, settings.max_output_tokens)
            run = _Run(settings, graders, asker, jury, reference)
            labels = await _labels(run, questions, targets, tell, lambda: advance(budget.spent_usd))
    summary = Summary(
        candidates=candidate_summaries(labels),
        judge=None if jury is None or judge is None else _judge_summary(judge, jury, labels),
        n_asked=asker.n_asked,
        n_cached=asker.n_cached,
        spent_usd=budget.spent_usd,
        overrun_usd=budget.overrun_usd,
        is_budget_reached=budget.is_reached,
        is_simulated=any(isinstance(one.answer, Answer) and one.answer.is_emulated for one in labels),
        protections=confinement.protections,
    )
    if all(one.quality is None for one in labels):
        raise NotEnoughData(f"no answer was graded, so there is no table: {_reasons(summary)}")
    write_table(settings.out, settings.name or settings.out.resolve().name, questions, labels)
    write_summary(settings.out, summary.as_json())
    return summary


async def _labels(
    run: _Run,
    questions: Sequence[Question],
    targets: Sequence[Target],
    tell: Callable[[int], None],
    advance: Callable[[], None],
) -> list[Label]:
    """Fill all cells, a few at once; return them in the order of the file."""
    cells = [(i, question, target) for i, question in enumerate(questions) for target in targets]
    checked = _to_check(run, cells)
    tell(len(cells))
    found: dict[tuple[int, str], Label] = {}
    waiting = iter(sorted(cells, key=lambda cell: (_draw(cell[1].prompt_id), cell[0])))

    async def work() -> None:
        for i, question, target in waiting:
            found[i, target.name] = await _cell(run, question, target, (i, target.name) in checked)
            advance()

    # More cells than calls under way: one that is being graded needs no connection.
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(2 * run.settings.n_at_once, len(cells))):
                group.create_task(work())
    except* TrainingError as errors:
        raise errors.exceptions[0] from None
    return [found[i, target.name] for i, _, target in cells]


async def _cell(run: _Run, question: Question, target: Target, is_checked: bool) -> Label:
    answer = await run.asker.ask(_call(run, question, target))
    label = Label(question, target.name, answer)
    if isinstance(answer, Unanswered):
        return label
    if question.grader == JUDGE:
        return replace(label, grade=await _judged(run, question, target, answer))
    grade = await asyncio.to_thread(run.graders[question.grader].grade, answer.text, question)
    judged = await _judged(run, question, target, answer) if is_checked else None
    return replace(label, grade=grade, judged=judged)


async def _judged(run: _Run, question: Question, target: Target, answer: Answer) -> Grade:
    assert run.jury is not None, "label() has seen to it"
    if question.references:
        return await run.jury.grade(question, answer.text, question.references[0])
    if run.reference is None:
        return await run.jury.grade(question, answer.text, None)
    if run.reference == target:
        return Grade(1.0, "equal", "its answer is the reference", "judge:reference")
    reference = await run.asker.ask(_call(run, question, run.reference))
    if isinstance(reference, Unanswered):
        return Grade(None, None, f"no reference: {reference.why}", "judge:reference")
    return await run.jury.grade(question, answer.text, reference.text)


def _call(run: _Run, question: Question, target: Target) -> Call:
    settings = run.settings
    temperature = {} if settings.temperature is None else {"temperature": settings.temperature}
    parameters = {**temperature, **question.parameters}
    return Call(target, list(question.messages), settings.max_output_tokens, parameters)


def _to_check(run: _Run, cells: Sequence[tuple[int, Question, Target]]) -> set[tuple[int, str]]:
    """Draw the cells that the judge grades beside another grader, the same in every run."""
    if run.jury is None:
        return set()
    others = [(i, question, target) for i, question, target in cells if question.grader != JUDGE]
    others.sort(key=lambda cell: _draw(f"{cell[1].prompt_id}\0{cell[2].name}"))
    return {(i, target.name) for i, _, target in others[: run.settings.n_judge_checks]}


def _draw(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()


def _chosen(known: Sequence[Target], globs: Sequence[str]) -> tuple[Target, ...]:
    names = ", ".join(target.name for target in known) or "none"
    for glob in globs:
        if not any(fnmatchcase(target.name, glob) for target in known):
            raise InvalidSettings(f"--candidates {glob}: no candidate of the gateway matches; it has {names}")
    chosen = tuple(one for one in known if not globs or any(fnmatchcase(one.name, glob) for glob in globs))
    if not chosen:
        raise InvalidSettings("the gateway has no candidate that answers for this key")
    return chosen


def _named(known: Sequence[Target], name: str | None, option: str) -> Target | None:
    if name is None:
        return None
    found = next((target for target in known if target.name == name), None)
    if found is None:
        raise InvalidSettings(f"{option} {name}: no such candidate; the gateway has {', '.join(t.name for t in known)}")
    return found


def _check_prices(targets: Sequence[Target]) -> None:
    unknown = sorted({target.name for target in targets if target.price is None})
    if unknown:
        raise InvalidSettings(
            f"the price of {', '.join(unknown)} is unknown, so --max-usd could not be kept: give input_usd_per_mtok "
            "and output_usd_per_mtok in [[candidates]], 0 where it is free"
        )


def _judge_summary(judge: Target, jury: Jury, labels: Sequence[Label]) -> JudgeSummary:
    given = [one.judged if one.question.grader != JUDGE else one.grade for one in labels]
    return JudgeSummary(
        name=judge.name,
        consistency=jury.consistency,
        preference_for_first=jury.preference_for_first,
        kappa=judge_kappa(labels),
        n_unread=sum(grade is not None and grade.quality is None for grade in given),
        is_candidate=any(one.candidate == judge.name for one in labels),
    )


def _reasons(summary: Summary) -> str:
    told = [f"{row.name}: {why} ({n} times)" for row in summary.candidates for why, n in row.unobserved[:2]]
    return "; ".join(told[:6])
