"""Streams that break off after so many events of text.

Entry point: :func:`cut_streams`.
"""

from __future__ import annotations

from collections import Counter

from serving.chaos.api import APIS, Api
from serving.chaos.client import Reply
from serving.chaos.fault import ProxyFault
from serving.chaos.question import PIECE_MARK, asking, is_start_of_one, pieces
from serving.chaos.scratch import MODELS, Gateway, Scratch
from serving.chaos.verdict import Measured

N_PIECES = 24
_EVENT_EVERY_S = 0.002


async def cut_streams(scratch: Scratch) -> Measured:
    """Cut a stream after k = 0 … 20 events of text, by closing and by resetting, on all three APIs."""
    async with scratch.gateway() as gateway:
        for model in MODELS:
            await scratch.script(model, "".join(pieces(model, N_PIECES)))
            await scratch.pace(model, _EVENT_EVERY_S)
        wrong: Counter[str] = Counter()
        n = n_seen_at_0 = n_duplicated = n_unclean = 0
        for k in range(0, 21, int(scratch.of(5, 1))):
            for api in APIS:
                for is_reset in (False, True):
                    scratch.once.append(ProxyFault(cut_after_events=k, mark=PIECE_MARK, is_reset=is_reset))
                    reply = await _asked(gateway, api, n)
                    told = api.told(bytes(reply.body))
                    n += 1
                    n_duplicated += not is_start_of_one(told.text, N_PIECES)
                    if k == 0:
                        is_unseen = told.ending == "done" and len(told.text) == 4 * N_PIECES
                        n_seen_at_0 += not is_unseen
                    is_clean = reply.ending == "whole" and (k == 0 or told.ending == "error")
                    n_unclean += not is_clean
                    if not is_clean:
                        wrong[f"{api.name} k={k}: {told.ending}, {reply.ending}"] += 1
                    # A good one between, so that breaking off is no habit of anybody.
                    await _asked(gateway, api, n)
        return Measured(
            {
                "seen_at_k_0": n_seen_at_0,
                "without_a_clean_error_event": n_unclean,
                "duplicated_or_mixed_texts": n_duplicated,
                "streams_cut": n,
            },
            ", ".join(f"{count} × {what}" for what, count in wrong.most_common(3)),
        )


async def _asked(gateway: Gateway, api: Api, number: int) -> Reply:
    return await gateway.client.ask(asking(api=api, is_stream=True)(number))
