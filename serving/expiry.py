"""What was kept for long enough is deleted, beside the traffic. Entry point: :class:`Expiry`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from serving import logs
from serving.errors import StorageUnavailable
from serving.log_settings import LogSettings
from serving.storage.storage import Storage

EVERY_S = 600.0


class Expiry:
    """Deletes old rows now and then.

    Parameters
    ----------
    storage : Storage
    settings : callable () -> LogSettings
        Says how long rows stay, as it is set now.
    """

    def __init__(self, storage: Storage, settings: Callable[[], LogSettings]) -> None:
        self._storage = storage
        self._settings = settings

    async def run(self) -> None:
        """Look every ten minutes, at once to begin with; until cancelled."""
        while True:
            await self.expire(time.time())
            await asyncio.sleep(EVERY_S)

    async def expire(self, now_unix_s: float) -> int:
        """Delete what is too old now; return how many rows went. What cannot be deleted now is the next round's."""
        records, retained = self._settings().before(now_unix_s)
        try:
            n_rows = await self._storage.expire(records_before_unix_s=records, retained_before_unix_s=retained)
        except StorageUnavailable as error:
            logs.event("expiry_failing", {"error": type(error).__name__}, level="warning")
            return 0
        if n_rows:
            logs.event("expired", {"n_expired": n_rows})
        return n_rows
