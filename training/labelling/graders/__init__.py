"""How good one answer is: a row per grader, found by name in :mod:`training.labelling.graders.registry`."""
