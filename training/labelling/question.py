"""One prompt to be answered by every candidate, and how its answers are graded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from router.text import read


@dataclass(frozen=True, slots=True)
class Question:
    """A row of the prompts file.

    Parameters
    ----------
    prompt_id : str
        Unique in the file.
    messages : sequence of mapping
        The conversation, in the shape of Chat Completions.
    grader : str
        A name of :mod:`training.labelling.graders.registry`, or ``judge``.
    task, group : str or None
        Copied into the table.
    reference : str or tuple of str or None
        The right answer, or several that are; for the judge the answer to compare with, None where there is none.
    pattern : str or None
        Regular expression that a right answer holds.
    schema : Mapping or None
        JSON Schema of a right answer.
    tests : tuple of str
        Python programs that pass after a right answer.
    tolerance : float or None
        How far a number may be off, at least 0.
    parameters : Mapping of str to object
        Further fields of the request, such as ``response_format``.
    """

    prompt_id: str
    messages: Sequence[Mapping[str, object]]
    grader: str
    task: str | None = None
    group: str | None = None
    reference: str | tuple[str, ...] | None = None
    pattern: str | None = None
    schema: Mapping[str, object] | None = None
    tests: tuple[str, ...] = ()
    tolerance: float | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)

    @property
    def prompt(self) -> str:
        """The human request in it: what a router would read, so what a table holds."""
        return read(self.messages).text

    @property
    def references(self) -> tuple[str, ...]:
        """All right answers."""
        if self.reference is None:
            return ()
        return (self.reference,) if isinstance(self.reference, str) else self.reference
