"""MLflow: runs that are remembered and the registry of versions. The only importer of mlflow.

The store is a SQLite file below the current folder unless told otherwise; mlflow's own telemetry is turned off. It
takes seconds to import, so it is imported when something is asked of it. Bundles are plain artefacts: nothing is ever
loaded through mlflow's flavours, and nothing is pickled.
Entry points: :func:`record`, :class:`MlflowStore`.
"""

from training.registry.runs import record
from training.registry.store import MlflowStore

__all__ = ["MlflowStore", "record"]
