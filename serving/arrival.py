"""The uvicorn protocol with a deadline for request heads that never finish arriving.

``uvicorn.Config(app, http=protocol_of(limits), ...)``.
"""

from __future__ import annotations

from serving.edge import Limits


def protocol_of(limits: Limits) -> type:
    """Return the protocol class to give uvicorn as ``http=``."""
    raise NotImplementedError
