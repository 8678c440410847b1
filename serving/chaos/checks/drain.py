"""A gateway that is asked to end while streams are open.

Entry point: :func:`drain`.
"""

from __future__ import annotations

import asyncio

from serving.chaos.api import CHAT
from serving.chaos.client import Reply, endings_of
from serving.chaos.question import asking, is_start_of_one, pieces
from serving.chaos.scratch import MODELS, SERVER, Gateway, Scratch
from serving.chaos.verdict import Measured

N_STREAMS, N_LONG = 50, 10
#: Events: three seconds and a half, and twenty.
_SHORT, _LONG = 35, 200
_EVENT_EVERY_S = 0.1
#: Between SIGTERM and the first look; longer than a loop takes to stop listening.
_NOTICE_S = 0.3
_OPENED_WITHIN_S = 5.0


async def drain(scratch: Scratch) -> Measured:
    """Send SIGTERM amid 50 streams: 40 that end within the grace, and 10 that do not."""
    async with scratch.gateway() as gateway:
        loop = asyncio.get_running_loop()
        # "pair" says much, "plain" little; both are open when the signal comes.
        for model in MODELS:
            await scratch.script(model, "".join(pieces(model, _LONG)))
            await scratch.pace(model, _EVENT_EVERY_S)
        await scratch.script("plain", "".join(pieces("plain", _SHORT)))
        await scratch.pace("plain", _EVENT_EVERY_S)
        watched = [Reply(0.0) for _ in range(N_STREAMS)]
        reading = [
            asyncio.create_task(_read(gateway, "pair" if number < N_LONG else "plain", number, reply))
            for number, reply in enumerate(watched)
        ]
        begun_s = loop.time()
        while not all(reply.first_s for reply in watched) and loop.time() - begun_s < _OPENED_WITHIN_S:
            await asyncio.sleep(0.02)
        n_open = sum(reply.first_s is not None and not reply.ending for reply in watched)
        gateway.process.terminate()
        asked_s = loop.time()
        await asyncio.sleep(_NOTICE_S)
        refused = await asyncio.gather(*(_is_refused(gateway) for _ in range(5)))
        replies = await asyncio.gather(*reading)
        status = await gateway.process.ended()
        took_s = loop.time() - asked_s
        told = [CHAT.told(bytes(reply.body)) for reply in replies]
        endings = endings_of(replies)
        n_clean = sum(
            reply.ending == "whole" and one.ending in ("done", "error")
            for reply, one in zip(replies, told, strict=True)
        )
        n_short_done = sum(one.ending == "done" for one in told[N_LONG:])
        return Measured(
            {
                "resets": endings.get("reset", 0),
                "without_a_clean_end": N_STREAMS - n_clean,
                "short_streams_cut": N_STREAMS - N_LONG - n_short_done,
                "new_connections_taken": len(refused) - sum(refused),
                "beyond_the_grace": max(0.0, took_s - float(SERVER["shutdown_timeout_s"])),
                "mixed_texts": sum(not is_start_of_one(one.text, _LONG, (*MODELS, "plain")) for one in told),
                "open_at_the_signal": n_open,
            },
            f"ended {endings}, statuses {sorted({reply.status for reply in replies})}, exit status {status}",
        )


async def _read(gateway: Gateway, candidate: str, number: int, reply: Reply) -> Reply:
    return await gateway.client.ask(asking(candidate, is_stream=True)(number), reply)


async def _is_refused(gateway: Gateway) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.process.port)
    except OSError:
        return True
    writer.close()
    return False
