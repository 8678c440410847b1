"""Providers that say nothing, for ever, or say what is no answer.

Entry point: :func:`hung`.
"""

from __future__ import annotations

from collections import Counter

from serving.chaos.api import CHAT, is_answer_to
from serving.chaos.client import Reply
from serving.chaos.fault import ProxyFault, always
from serving.chaos.question import asking
from serving.chaos.scratch import MODELS, SERVER, Scratch
from serving.chaos.verdict import Measured

#: Longer than three attempts at the scratch gateway's limits: who has not ended by then hangs.
_PATIENCE_S = 15.0
_HALF_JSON = b'{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assis'
COMMENTS = ProxyFault(comments_every_s=0.2)
#: By name; what can befall whole answers, then streams. None of them is an answer.
WHOLE = {
    "half-open": ProxyFault(is_half_open=True),
    "a page of HTML": ProxyFault(status=200, content_type="text/html", body=b"<html>Welcome</html>"),
    "half a JSON text": ProxyFault(status=200, body=_HALF_JSON),
    "reset amid the head": ProxyFault(reset_after_bytes=40),
    "reset amid the body": ProxyFault(reset_after_bytes=500),
}
STREAMED = {
    "comments for ever": COMMENTS,
    "half-open": ProxyFault(is_half_open=True),
    "a page of HTML": ProxyFault(status=200, content_type="text/html", body=b"<html>Welcome</html>"),
    "JSON in the place of a stream": ProxyFault(status=200, body=b'{"choices":[]}'),
    "an empty stream": ProxyFault(status=200, content_type="text/event-stream", body=b""),
    "half an event": ProxyFault(status=200, content_type="text/event-stream", body=b'data: {"choices":[{"del'),
}
_DRIP = ProxyFault(drip_bytes=16, drip_every_s=0.02)


async def hung(scratch: Scratch) -> Measured:
    """Let one provider do so, then both; whole answers and streams."""
    async with scratch.gateway() as gateway:
        wrong: Counter[str] = Counter()
        idle_s = float(SERVER["idle_timeout_s"])
        n = n_not_failed_over = n_hangs = n_unclear = 0
        comments_s = 0.0
        for is_stream, faults in ((False, WHOLE), (True, STREAMED)):
            for name, fault in faults.items():
                ask = asking(is_stream=is_stream, timeout_s=_PATIENCE_S)
                scratch.once.append(fault)
                n += 1
                reply = await gateway.client.ask(ask(n))
                if fault is COMMENTS:
                    comments_s = reply.total_s
                if not _is_answered(reply, n, is_stream):
                    n_not_failed_over += 1
                    wrong[f"{name}: {_ending(reply, is_stream)}"] += 1
                await gateway.client.ask(ask(n))
        for is_stream, faults in ((False, WHOLE), (True, STREAMED)):
            for name, fault in faults.items():
                n += 1
                scratch.alpha.weather = scratch.beta.weather = always(fault)
                reply = await gateway.client.ask(asking(is_stream=is_stream, timeout_s=_PATIENCE_S)(n))
                n_hangs += reply.ending == "timeout"
                if not _is_clear_error(reply, is_stream):
                    n_unclear += 1
                    wrong[f"everywhere {name}: {_ending(reply, is_stream)}"] += 1
        scratch.alpha.weather = scratch.beta.weather = always(_DRIP)
        dripped = await gateway.client.ask(asking(timeout_s=2 * _PATIENCE_S)(n))
        return Measured(
            {
                "not_failed_over": n_not_failed_over,
                "hangs": n_hangs,
                "unclear_ends": n_unclear,
                "comments_beyond_the_idle_limit": max(0.0, comments_s - idle_s),
                "dripped_answers_lost": float(not _is_answered(dripped, n, False)),
                "dripped_answer_took": dripped.total_s,
                "faults_tried": 2 * (len(WHOLE) + len(STREAMED)),
            },
            ", ".join(wrong),
        )


def _is_answered(reply: Reply, number: int, is_stream: bool) -> bool:
    """Say whether the right answer came, whole."""
    if reply.status != 200 or reply.ending != "whole":
        return False
    if not is_stream:
        return is_answer_to(CHAT.said(bytes(reply.body)), number, MODELS)
    told = CHAT.told(bytes(reply.body))
    return told.ending == "done" and is_answer_to(told.text, number, MODELS)


def _is_clear_error(reply: Reply, is_stream: bool) -> bool:
    """Say whether the caller was told of an error, in the form of its API."""
    if reply.ending != "whole":
        return False
    if reply.status >= 500:
        return b'"error"' in reply.body
    return is_stream and CHAT.told(bytes(reply.body)).ending == "error"


def _ending(reply: Reply, is_stream: bool) -> str:
    told = f", {CHAT.told(bytes(reply.body)).ending}" if is_stream and reply.status == 200 else ""
    return f"{reply.status} {reply.ending}{told}"
