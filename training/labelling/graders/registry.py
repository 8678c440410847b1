"""The graders by name."""

from __future__ import annotations

from collections.abc import Mapping

from training.labelling.confinement import Confinement
from training.labelling.graders.code import Code
from training.labelling.graders.exact import Exact
from training.labelling.graders.grader import Grader
from training.labelling.graders.json_schema import JsonSchema
from training.labelling.graders.numeric import Numeric
from training.labelling.graders.regex import Regex
from training.labelling.graders.similarity import Similarity, measure_of


def graders_of(similarity: str, confinement: Confinement) -> Mapping[str, Grader]:
    """Make one of each.

    Parameters
    ----------
    similarity : str
        A method of :class:`~training.labelling.graders.similarity.Similarity`.
    confinement : Confinement
        Where programs and patterns run.

    Returns
    -------
    Mapping of str to Grader

    Raises
    ------
    InvalidSettings, ExtraMissing, TrainingError
        The method of similarity cannot be had.
    """
    rows: tuple[Grader, ...] = (
        Exact(),
        Numeric(),
        Regex(confinement),
        JsonSchema(),
        Code(confinement),
        Similarity(similarity, measure_of(similarity)),
    )
    return {row.name: row for row in rows}
