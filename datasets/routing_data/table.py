"""One table of outcomes: prompts down, candidates across, NaN where nothing was observed.

It holds values and selects among them; it reads no file, and knows nothing of splits, prices or
metrics.

Entry point: ``OutcomeTable``, normally made by ``routing_data.read``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from routing_data.errors import UnknownName

Quality: TypeAlias = NDArray[np.float32]
Amounts: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = NDArray[np.intp] | NDArray[np.bool_] | Sequence[int]


@dataclass(frozen=True, slots=True)
class Source:
    """Say where rows came from.

    Parameters
    ----------
    name : str
        Name of the data, as in ``source.json``, else the name of the file or folder.
    path : str
        Last component of the path it was read from; never a whole path.
    sha256 : str
        Fingerprint of the content, hexadecimal.
    licence, attribution : str or None
        As stated by ``source.json``; None where nothing is stated.
    simulated : bool
        True if the outcomes were drawn from a model of ours and not observed.
    n_prompts : int
        Prompts in the source as read.
    """

    name: str
    path: str
    sha256: str
    licence: str | None
    attribution: str | None
    simulated: bool
    n_prompts: int


@dataclass(frozen=True, slots=True, eq=False)
class OutcomeTable:
    """Hold n prompts and what m candidates did with them.

    Parameters
    ----------
    prompt_ids, prompts, tasks, groups : tuple of str, n long
        Unique id, text, task (``"unknown"`` where not given) and group (the id where not given) of
        each prompt. Prompts of one group never land on two sides of a split.
    candidates : tuple of str, m long
        Sorted, unique.
    quality : ndarray of shape (n, m), float32, in [0, 1]
        NaN where nothing was observed.
    input_tokens, output_tokens : ndarray of shape (n, m), float64, >= 0
        NaN where unknown.
    cost_usd : ndarray of shape (n, m), float64, >= 0
        USD per call; NaN where unknown, which is not zero.
    sources : tuple of Source
        Where the rows came from.

    Raises
    ------
    ValueError
        If the shapes disagree or the candidates are not sorted and unique.
    """

    prompt_ids: tuple[str, ...]
    prompts: tuple[str, ...]
    tasks: tuple[str, ...]
    groups: tuple[str, ...]
    candidates: tuple[str, ...]
    quality: Quality
    input_tokens: Amounts
    output_tokens: Amounts
    cost_usd: Amounts
    sources: tuple[Source, ...]

    def __post_init__(self) -> None:
        """Refuse shapes that disagree; contents are the business of ``validate``."""
        n, m = len(self.prompt_ids), len(self.candidates)
        for name in ("prompts", "tasks", "groups"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries; expected {n}")
        for name in ("quality", "input_tokens", "output_tokens", "cost_usd"):
            if getattr(self, name).shape != (n, m):
                raise ValueError(f"{name} has shape {getattr(self, name).shape}; expected {(n, m)}")
        if list(self.candidates) != sorted(set(self.candidates)):
            raise ValueError(f"candidates are {self.candidates}; expected sorted, unique names")

    @property
    def simulated(self) -> bool:
        """Tell whether any source of these rows holds simulated outcomes."""
        return any(source.simulated for source in self.sources)

    def select(self, rows: Rows | None = None, candidates: Sequence[str] | None = None) -> OutcomeTable:
        """Return the table cut down to some rows and some candidates.

        Parameters
        ----------
        rows : ndarray or sequence of int, or ndarray of shape (n,), bool, optional
            Positions to keep, in the order given, or a mask; all rows by default.
        candidates : sequence of str, optional
            Names to keep, in any order (the result is sorted); all candidates by default.

        Returns
        -------
        OutcomeTable
            A copy; the sources are unchanged.

        Raises
        ------
        UnknownName
            If a candidate is not in the table.
        ValueError
            If a mask is not n long.
        """
        kept = np.arange(len(self.prompt_ids)) if rows is None else np.asarray(rows)
        if kept.dtype == np.bool_:
            if kept.shape != (len(self.prompt_ids),):
                raise ValueError(f"mask has shape {kept.shape}; expected ({len(self.prompt_ids)},)")
            kept = np.flatnonzero(kept)
        kept = kept.astype(np.intp)
        names = self.candidates if candidates is None else tuple(sorted(set(candidates)))
        position = {name: column for column, name in enumerate(self.candidates)}
        for name in names:
            if name not in position:
                raise UnknownName("candidate", name, self.candidates)
        cells = np.ix_(kept, np.array([position[name] for name in names], dtype=np.intp))
        return replace(
            self,
            prompt_ids=tuple(self.prompt_ids[i] for i in kept),
            prompts=tuple(self.prompts[i] for i in kept),
            tasks=tuple(self.tasks[i] for i in kept),
            groups=tuple(self.groups[i] for i in kept),
            candidates=names,
            quality=self.quality[cells],
            input_tokens=self.input_tokens[cells],
            output_tokens=self.output_tokens[cells],
            cost_usd=self.cost_usd[cells],
        )
