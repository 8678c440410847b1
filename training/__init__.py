"""The offline pipeline: labelled prompts in, a bundle out.

Nothing is imported here, so that naming the package costs nothing. The story is :func:`training.pipeline.train`.
"""
