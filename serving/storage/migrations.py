"""The schema of the database, as the steps that made it.

Entry point: :func:`migrate`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable


def migrate(database: sqlite3.Connection) -> None:
    """Apply the migrations the file has not seen, in order, each in the transaction that notes it."""
    with database:
        database.execute("BEGIN IMMEDIATE")
        database.execute("CREATE TABLE IF NOT EXISTS migration (name TEXT PRIMARY KEY)")
        applied = {name for (name,) in database.execute("SELECT name FROM migration")}
        for migration in MIGRATIONS:
            if migration.__name__ not in applied:
                migration(database)
                database.execute("INSERT INTO migration VALUES (?)", (migration.__name__,))


def m001_request(database: sqlite3.Connection) -> None:
    """Make the table of requests. No column can hold content."""
    database.execute(
        """
        CREATE TABLE request (
            id TEXT PRIMARY KEY, time_unix_s REAL NOT NULL, key TEXT NOT NULL, requested_model TEXT NOT NULL,
            status INTEGER NOT NULL, outcome TEXT NOT NULL, is_stream INTEGER NOT NULL,
            candidate TEXT, deployment TEXT, policy_kind TEXT, policy_value REAL, policy_name TEXT, binding TEXT,
            propensity REAL, bundle TEXT, predicted_quality REAL, expected_cost_usd REAL,
            input_tokens INTEGER, output_tokens INTEGER, cache_read_tokens INTEGER, cache_write_tokens INTEGER,
            reasoning_tokens INTEGER, cost_usd REAL, first_byte_s REAL, total_s REAL
        )
        """
    )
    database.execute("CREATE INDEX request_by_time ON request (time_unix_s)")


def m002_translation(database: sqlite3.Connection) -> None:
    """Add what was spoken on both sides, and what was lost between (paths of fields, never a value)."""
    for column in ("api", "upstream_dialect", "losses"):
        database.execute(f"ALTER TABLE request ADD COLUMN {column} TEXT")


def m003_attempts(database: sqlite3.Connection) -> None:
    """Add the attempts that failed before the one that counted: configured names and outcomes."""
    database.execute("ALTER TABLE request ADD COLUMN attempts TEXT")


def m004_estimates(database: sqlite3.Connection) -> None:
    """Add whether the tokens are an estimate, of answers that were cut off."""
    database.execute("ALTER TABLE request ADD COLUMN is_usage_estimated INTEGER")


def m005_scenarios(database: sqlite3.Connection) -> None:
    """Add the scenario that decided and the rule that led to it."""
    for column in ("scenario", "rule"):
        database.execute(f"ALTER TABLE request ADD COLUMN {column} TEXT")


def m006_loop(database: sqlite3.Connection) -> None:
    """Add what learning from requests needs: what was predicted, who was chosen how probably, what it replaced."""
    for column, kind in (
        ("chosen", "TEXT"),
        ("is_explored", "INTEGER"),
        ("outlook", "TEXT"),
        ("reference", "TEXT"),
        ("reference_cost_usd", "REAL"),
        ("policy_version", "TEXT"),
        ("retention", "TEXT"),
        ("task", "TEXT"),
        ("is_emulated", "INTEGER"),
        ("signals", "TEXT"),
        ("experiment", "TEXT"),
        ("arm", "TEXT"),
        ("arm_share", "REAL"),
        ("unit", "TEXT"),
        ("shadow_bundle", "TEXT"),
        ("shadow_candidate", "TEXT"),
        ("shadow_quality", "REAL"),
        ("shadow_cost_usd", "REAL"),
    ):
        database.execute(f"ALTER TABLE request ADD COLUMN {column} {kind}")


def m007_retained(database: sqlite3.Connection) -> None:
    """Make the table of what keys want kept of their prompts, apart from the records, so that it can expire."""
    database.execute(
        """
        CREATE TABLE retained (
            request_id TEXT PRIMARY KEY, time_unix_s REAL NOT NULL, level TEXT NOT NULL,
            prompt TEXT, features BLOB, encoder TEXT, task_probability REAL
        )
        """
    )
    database.execute("CREATE INDEX retained_by_time ON retained (time_unix_s)")


def m008_feedback(database: sqlite3.Connection) -> None:
    """Make the table of what callers say of answers: numbers and short words, one row for each request, key, source."""
    database.execute(
        """
        CREATE TABLE feedback (
            request_id TEXT NOT NULL, key TEXT NOT NULL, source TEXT NOT NULL, kind TEXT NOT NULL,
            score REAL, grader TEXT, tags TEXT, time_unix_s REAL NOT NULL,
            PRIMARY KEY (request_id, key, source)
        )
        """
    )
    database.execute("CREATE INDEX feedback_by_time ON feedback (time_unix_s)")


def m009_experiment(database: sqlite3.Connection) -> None:
    """Make the table of experiments, at most one of them in force on anything, and find their requests quickly."""
    database.execute(
        """
        CREATE TABLE experiment (
            name TEXT PRIMARY KEY, acts_on TEXT NOT NULL, definition TEXT NOT NULL, state TEXT NOT NULL, salt BLOB,
            halted TEXT NOT NULL, promoted TEXT, why TEXT NOT NULL, created_unix_s REAL NOT NULL, ended_unix_s REAL,
            changed_unix_s REAL NOT NULL
        )
        """
    )
    database.execute("CREATE UNIQUE INDEX experiment_in_force ON experiment (acts_on) WHERE state != 'stopped'")
    database.execute("CREATE INDEX request_by_experiment ON request (experiment) WHERE experiment IS NOT NULL")


def m010_exploration(database: sqlite3.Connection) -> None:
    """Add among whom chance could choose, and what that cost; configured names and USD."""
    database.execute("ALTER TABLE request ADD COLUMN explorable TEXT")
    database.execute("ALTER TABLE request ADD COLUMN explore_usd REAL")
    database.execute("CREATE INDEX request_explored ON request (time_unix_s) WHERE is_explored = 1")


#: Append only: what has been released is never edited, a change is a new function at the end.
MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (
    m001_request,
    m002_translation,
    m003_attempts,
    m004_estimates,
    m005_scenarios,
    m006_loop,
    m007_retained,
    m008_feedback,
    m009_experiment,
    m010_exploration,
)
