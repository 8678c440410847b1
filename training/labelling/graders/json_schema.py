"""Right where the answer is JSON that a schema accepts."""

from __future__ import annotations

import json
import re
from typing import Any

from training.labelling.grade import Grade
from training.labelling.question import Question

_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)


class JsonSchema:
    """JSON Schema, draft 2020-12 unless ``$schema`` says otherwise. A ``$ref`` is never fetched."""

    name = "json_schema"
    needs = "schema"

    def problem(self, question: Question) -> str | None:
        """See :class:`~training.labelling.graders.grader.Grader`."""
        from jsonschema.exceptions import SchemaError

        if not question.schema:
            return "a JSON Schema, as an object"
        try:
            _validator_class(question.schema).check_schema(question.schema)
        except SchemaError:
            return "a valid JSON Schema"
        return None

    def grade(self, text: str, question: Question) -> Grade:
        """See :class:`~training.labelling.graders.grader.Grader`."""
        import referencing
        from referencing.exceptions import Unresolvable

        assert question.schema is not None
        blocks = _FENCED.findall(text)
        try:
            value = json.loads(blocks[-1] if blocks else text)
        except (ValueError, RecursionError):
            return Grade(0.0, None, "not JSON", self.name)
        # An empty registry: the library would otherwise fetch what a $ref names.
        validator = _validator_class(question.schema)(question.schema, registry=referencing.Registry())
        try:
            errors = list(validator.iter_errors(value))
        except (Unresolvable, RecursionError):
            return Grade(None, None, "the schema refers to what is not in it", self.name)
        if not errors:
            return Grade(1.0, 0.0, "valid", self.name)
        # The path and the keyword, not the message: it quotes the answer.
        where = "/".join(map(str, errors[0].absolute_path)) or "the top"
        return Grade(
            0.0, float(len(errors)), f"{len(errors)} errors; first at {where}: {errors[0].validator}", self.name
        )


def _validator_class(schema: Any) -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for

    return validator_for(schema, default=Draft202012Validator)
