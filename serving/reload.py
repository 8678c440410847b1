"""Hot reload: settings and bundle are read again, and served only if all of it is good.

Asked for by SIGHUP or noticed as a change in the bundle's folder. The new state is built whole in a thread beside the
one that serves; any error is logged and the last good state stays. Requests in flight keep the state they began with.
A challenger's folder is watched by itself.

Entry point: :class:`Reloader`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from router.errors import RouterError
from serving import heap, logs
from serving.bundle_folder import Fingerprint, fingerprint
from serving.errors import GatewayError
from serving.gateway import Gateway
from serving.state import State, challenged
from serving.turns import quick_turns

#: ``[server]`` keys that only a restart changes.
_NEEDS_RESTART = (
    "host",
    "port",
    "database",
    "max_body_bytes",
    "receive_timeout_s",
    "shutdown_timeout_s",
    "state_secret_env",
)


class Reloader:
    """Swap the gateway's state for a newer one, or leave it alone.

    Parameters
    ----------
    gateway : Gateway
        Has its first state already.
    rebuild : callable
        Reads everything again and returns a new state, or raises.
    """

    def __init__(self, gateway: Gateway, rebuild: Callable[[], Awaitable[State]]) -> None:
        self._gateway = gateway
        self._rebuild = rebuild
        self._is_asked = asyncio.Event()

    def ask(self) -> None:
        """Ask :meth:`run` to reload now; fit to be a signal handler of the loop."""
        self._is_asked.set()

    async def run(self) -> None:
        """Reload whenever asked, and whenever the bundle's folder has changed; until cancelled."""
        # What the state was loaded from, not what is there now: that may have changed meanwhile.
        seen = self._gateway.ready().fingerprint
        while True:
            watch_s = self._gateway.ready().settings.server.watch_bundle_s
            try:
                async with asyncio.timeout(watch_s or None):
                    await self._is_asked.wait()
            except TimeoutError:
                await self._follow_challenger()
                present = await asyncio.to_thread(self._present)
                # A folder being replaced is absent for a moment: nothing to load yet.
                if not present or present == seen:
                    continue
            self._is_asked.clear()
            seen = await asyncio.to_thread(self._present)
            if await self.reload():
                seen = self._gateway.ready().fingerprint
            # Else what was refused is not tried again until something in the folder changes, or somebody asks.

    async def _follow_challenger(self) -> None:
        """Let another challenger decide in the shadow where its folder has changed; the rest of the state stays."""
        state = self._gateway.ready()
        directory = state.settings.shadow_directory()
        if state.challenger is None or directory is None:
            return
        if await asyncio.to_thread(fingerprint, directory) == state.challenger.fingerprint:
            return
        try:
            with quick_turns():
                changed = await asyncio.to_thread(challenged, state)
        except Exception as error:  # nothing that lies there may end the watch
            logs.failure("shadow_failed", error)
            return
        if self._gateway.state is state:
            self._gateway.swap(changed)
        await asyncio.to_thread(heap.trim)

    async def reload(self) -> bool:
        """Build the new state and swap it in; say whether that worked."""
        before = self._gateway.ready()
        try:
            state = await self._rebuild()
        except (GatewayError, RouterError) as error:
            # The message names keys, files and numbers; neither tree ever quotes a secret or a request.
            logs.event(
                "reload_refused",
                {"error": type(error).__name__, "problem": str(error), "bundle": before.bundle_id},
                level="error",
            )
            return False
        except Exception as error:
            logs.failure("reload_failed", error, {"bundle": before.bundle_id})
            return False
        self._gateway.swap(state)
        await asyncio.to_thread(heap.trim)
        logs.event(
            "reloaded",
            {"bundle": state.bundle_id, "n_candidates": len(state.candidates), "n_keys": len(state.settings.keys)},
        )
        for key in _NEEDS_RESTART:
            if getattr(before.settings.server, key) != getattr(state.settings.server, key):
                logs.event("restart_needed", {"settings": f"server.{key}"}, level="warning")
        return True

    def _present(self) -> Fingerprint:
        return fingerprint(self._gateway.ready().settings.bundle_directory())
