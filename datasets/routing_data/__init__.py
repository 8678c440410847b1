"""Routing data: what prompts candidates were given, how good the answers were, what they cost.

It reads, checks, joins, splits, describes and fetches tables. It does not train, score or decide,
and imports nothing else of this project.

Entry point: ``read``.
"""

from __future__ import annotations

from routing_data.description import CandidateSummary, Description, Point, describe
from routing_data.download import RemoteFile, default_cache
from routing_data.errors import (
    ChecksumMismatch,
    DataError,
    DownloadFailed,
    InvalidTable,
    Problem,
    UnknownName,
    UnreadableFile,
)
from routing_data.merging import merge
from routing_data.prices import implied_prices
from routing_data.public_source import PublicSource
from routing_data.reader import read, validate
from routing_data.sources import SOURCES, fetch
from routing_data.splits import split
from routing_data.table import OutcomeTable, Source
from routing_data.writer import write

__all__ = [
    "SOURCES",
    "CandidateSummary",
    "ChecksumMismatch",
    "DataError",
    "Description",
    "DownloadFailed",
    "InvalidTable",
    "OutcomeTable",
    "Point",
    "Problem",
    "PublicSource",
    "RemoteFile",
    "Source",
    "UnknownName",
    "UnreadableFile",
    "default_cache",
    "describe",
    "fetch",
    "implied_prices",
    "merge",
    "read",
    "split",
    "validate",
    "write",
]
