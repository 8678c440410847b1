"""The gateway: HTTP in, a decision by :mod:`router`, the chosen provider's answer out.

Composition root: :func:`serving.app.create_app`. The story of one request: :mod:`serving.gateway`.
"""
