"""Every answer that was paid for, one line each, in a file that only grows.

Before a call a line says what it may cost at worst, after it a line says what came of it. So whatever ends the
process, the next one finds every answer, and knows what was spent: a call that began and never ended counts in full.
A last line that was cut off is no line. The file is the user's data: prompts are known in it by digest, answers stand
in it word for word, and nobody else may read it.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType
from typing import IO

from training.errors import AnswersInUse
from training.labelling.call import Answer

_ANSWER_FIELDS = tuple(field.name for field in fields(Answer))


class AnswerFile:
    """The answers of one folder; a context manager that holds a lock on them.

    Parameters
    ----------
    path : Path
        Made where there is none.

    Attributes
    ----------
    spent_usd : float
        What all calls so far cost, those of unknown cost at their worst.
    n_broken : int
        Lines that could not be read.
    """

    def __init__(self, path: Path) -> None:
        self.spent_usd = 0.0
        self.n_broken = 0
        self._path = path
        self._answers: dict[str, Answer] = {}
        self._begun: dict[str, float] = {}
        self._stream: IO[bytes]

    def __enter__(self) -> AnswerFile:
        """Open, lock and read it.

        Raises
        ------
        AnswersInUse
            Another process has it.
        """
        self._stream = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b")
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._stream.close()
            raise AnswersInUse(f"{self._path}: another turnout label is writing to it") from error
        is_whole = True
        for line in self._stream:
            is_whole = line.endswith(b"\n")
            self._take(line)
        if not is_whole:
            self._stream.write(b"\n")
            self._stream.flush()
        self.spent_usd += sum(self._begun.values())
        self._begun.clear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it, which unlocks it."""
        self._stream.close()

    def get(self, digest: str) -> Answer | None:
        """Return the answer to a call, None where there is none yet."""
        return self._answers.get(digest)

    def begin(self, digest: str, reserved_usd: float) -> None:
        """Note that a call is about to be made."""
        self._append({"line": "begun", "call": digest, "reserved_usd": reserved_usd})

    def answered(self, digest: str, candidate: str, answer: Answer, counted_usd: float) -> None:
        """Keep an answer; `counted_usd` is its cost, or the worst where that is unknown."""
        self._answers[digest] = answer
        told = {"line": "answered", "call": digest, "candidate": candidate, "counted_usd": counted_usd}
        self._append({**told, **asdict(answer)})
        self.spent_usd += counted_usd

    def failed(self, digest: str, candidate: str, why: str, counted_usd: float) -> None:
        """Note that a call brought no answer; the next run asks again."""
        told = {"line": "failed", "call": digest, "candidate": candidate, "why": why}
        self._append({**told, "counted_usd": counted_usd})
        self.spent_usd += counted_usd

    def _append(self, line: dict[str, object]) -> None:
        # One write of one line: a process that is killed leaves it out, or leaves it whole but for the last.
        self._stream.write(json.dumps(line).encode() + b"\n")
        self._stream.flush()

    def _take(self, line: bytes) -> None:
        try:
            said = json.loads(line)
            kind, digest = said["line"], str(said["call"])
            if kind == "begun":
                self.spent_usd += self._begun.get(digest, 0.0)  # of an earlier process, that did not live to its end
                self._begun[digest] = float(said["reserved_usd"])
                return
            counted_usd = float(said["counted_usd"])
            answer = Answer(**{name: said[name] for name in _ANSWER_FIELDS}) if kind == "answered" else None
        except (ValueError, KeyError, TypeError):
            self.n_broken += bool(line.strip())
            return
        self._begun.pop(digest, None)
        self.spent_usd += counted_usd
        if answer is not None:
            self._answers[digest] = answer
