"""The errors of training, one tree.

::

    TrainingError
      + InvalidSettings    the configuration cannot be: names the key, the value, what was expected
      + NotEnoughData      too few prompts, candidates or observations to fit and to measure
      + NoOverlap          the log says nothing of a policy: what it does was never done; names the numbers
      + GoalUnreachable    no setting is known to give the wanted quality or budget; says what comes nearest
      + GatewayRefused     a gateway cannot be reached or says no; its own words
      + ExportMismatch     the exported graph gives other numbers than the estimators
      + LogUnreadable      an exported decision log is absent, lacks a column or cannot be read
      + ExtraMissing       a package of an extra is not installed; says how to install it
      + TrackingFailed     the MLflow store refuses or cannot be reached; its address without a password
      + NoSuchVersion      the store of versions has none of that number or alias
      + StoreDamaged       the store holds what it may not: other bytes than were judged, unreadable gates
      + PromotionRefused   a gate failed, none was judged, or there is nothing to go back to
      + GatewayFailed      a gateway to label with cannot be reached, did not start, or takes no calls of ours
      + AnswersInUse       another run adds to the same folder of labels
      + NotConfined        this machine cannot limit a tested program enough to run it
"""

from __future__ import annotations


class TrainingError(Exception):
    """Anything that stops a training run."""


class InvalidSettings(TrainingError):
    """A configuration that cannot be."""


class NotEnoughData(TrainingError):
    """Too little data to fit and to measure."""


class NoOverlap(TrainingError):
    """A decision log says nothing of a policy, since what that does was never done, or hardly ever."""


class GoalUnreachable(TrainingError):
    """No setting is known to give what is wanted."""


class GatewayRefused(TrainingError):
    """A gateway cannot be reached, or refuses what it is asked for."""


class ExportMismatch(TrainingError):
    """The exported graph and the estimators disagree."""


class LogUnreadable(TrainingError):
    """An exported decision log that cannot be read."""


class ExtraMissing(TrainingError):
    """A package that only an extra brings is absent."""


class TrackingFailed(TrainingError):
    """The tracking store refuses or cannot be reached."""


class NoSuchVersion(TrainingError):
    """A number or an alias that the store of versions does not know."""


class StoreDamaged(TrainingError):
    """The store of versions holds what it may not."""


class PromotionRefused(TrainingError):
    """A version that may not become champion."""


class GatewayFailed(TrainingError):
    """The gateway cannot be reached, did not start, or takes no calls of ours."""


class AnswersInUse(TrainingError):
    """Another process is adding to the same answers."""


class NotConfined(TrainingError):
    """The machine cannot limit a program enough to run it."""
