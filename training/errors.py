"""The errors of training, one tree.

::

    TrainingError
      + InvalidSettings    the configuration cannot be: names the key, the value, what was expected
      + NotEnoughData      too few prompts, candidates or observations to fit and to measure
      + ExportMismatch     the exported graph gives other numbers than the estimators
      + LogUnreadable      an exported decision log is absent, lacks a column or cannot be read
      + ExtraMissing       a package of an extra is not installed; says how to install it
"""

from __future__ import annotations


class TrainingError(Exception):
    """Anything that stops a training run."""


class InvalidSettings(TrainingError):
    """A configuration that cannot be."""


class NotEnoughData(TrainingError):
    """Too little data to fit and to measure."""


class ExportMismatch(TrainingError):
    """The exported graph and the estimators disagree."""


class LogUnreadable(TrainingError):
    """An exported decision log that cannot be read."""


class ExtraMissing(TrainingError):
    """A package that only an extra brings is absent."""
