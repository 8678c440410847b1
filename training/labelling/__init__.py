"""Labels made on purpose: candidates really called through a gateway, their answers graded, a table written.

Nothing is imported here, so that naming the package costs nothing. The story is
:func:`training.labelling.pipeline.label`.
"""
