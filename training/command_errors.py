"""What goes wrong in a command, as one line for a person. Entry point: :class:`errors`."""

from __future__ import annotations

from contextlib import AbstractContextManager

import click


class errors(AbstractContextManager[None]):
    """Turn our own errors into one line for a person; anything else is a defect and keeps its traceback."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Raise ClickException in the place of an error of ours."""
        from router.errors import RouterError
        from routing_data import DataError
        from training.errors import TrainingError

        if isinstance(error, RouterError | DataError | TrainingError | OSError):
            raise click.ClickException(str(error)) from error
