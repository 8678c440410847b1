"""Has a judge candidate grade answers through the gateway, and keeps count of how it agrees with itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from training.labelling import judge
from training.labelling.agreement import Estimate, share
from training.labelling.asker import Asker
from training.labelling.call import Answer, Call, Target, Unanswered
from training.labelling.grade import Grade
from training.labelling.question import Question


class Jury:
    """One judge.

    Parameters
    ----------
    asker : Asker
    target : Target
        The candidate that judges.
    max_output_tokens : int
        Of each reply.
    """

    def __init__(self, asker: Asker, target: Target, max_output_tokens: int) -> None:
        self._asker = asker
        self._target = target
        self._max_output_tokens = max_output_tokens
        self._pairs: list[tuple[judge.Verdict, judge.Verdict]] = []

    async def grade(self, question: Question, answer: str, reference: str | None) -> Grade:
        """Grade an answer: against a reference, in both orders; by points where there is none.

        Parameters
        ----------
        question : Question
        answer : str
        reference : str or None

        Returns
        -------
        Grade
            Without a quality where the judge did not answer, or its reply could not be read.
        """
        name, request = self._target.name, judge.as_request(question.messages)
        if reference is None:
            reply = await self._asked(judge.points_messages(request, answer))
            if isinstance(reply, Unanswered):
                return Grade(None, None, f"the judge: {reply.why}", f"judge:{name}:points")
            return judge.points_grade(judge.points_of(reply.text), name)
        one, two = await asyncio.gather(
            self._asked(judge.pair_messages(request, answer, reference)),
            self._asked(judge.pair_messages(request, reference, answer)),
        )
        for reply in (one, two):
            if isinstance(reply, Unanswered):
                return Grade(None, None, f"the judge: {reply.why}", f"judge:{name}:pair")
        assert isinstance(one, Answer) and isinstance(two, Answer)
        first, second = judge.verdict_of(one.text, True), judge.verdict_of(two.text, False)
        if first is not None and second is not None:
            self._pairs.append((first, second))
        return judge.pair_grade(first, second, name)

    @property
    def consistency(self) -> Estimate:
        """Share of pairs of which it said the same in both orders."""
        return share([float(first == second) for first, second in self._pairs])

    @property
    def preference_for_first(self) -> Estimate:
        """Of the pairs where place decided, the share in which the first place won; 0.5 is no preference."""
        pulled = [(first, second) for first, second in self._pairs if first != second]
        # better in the first place than in the second: the first place helped
        return share([float(_RANK[first] > _RANK[second]) for first, second in pulled])

    async def _asked(self, messages: list[Mapping[str, object]]) -> Answer | Unanswered:
        return await self._asker.ask(Call(self._target, messages, self._max_output_tokens, {}))


_RANK: Mapping[judge.Verdict, int] = {"worse": 0, "equal": 1, "better": 2}
