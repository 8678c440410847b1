"""The emulated providers of the demo: one server that answers Chat Completions as the world says each candidate would.

No LLM is behind it. ``POST /phase`` with the name of a phase changes what is right from now on. Entry point:
:func:`serve`, in a process of its own.
"""

from __future__ import annotations

import sys

import orjson
import uvicorn
from world import CANDIDATES, PHASES, world_of

from routing_data.sample.world import count_tokens
from serving.edge import Message, Receive, Scope, Send


def serve(n: int, seed: int) -> None:
    """Serve until told to end; says on which port as its first words."""
    world = world_of(n, seed)
    place = {text: i for i, text in enumerate(world.texts)}
    phase = PHASES[0]

    def answer(request: dict[str, object]) -> dict[str, object]:
        text = next(m["content"] for m in reversed(request["messages"]) if m["role"] == "user")  # type: ignore[call-overload]
        i, j = place[text], CANDIDATES.index(str(request["model"]))
        said = world.answers[i] if world.is_right(phase, i, j) else _wrong(world.answers[i])
        n_read, n_written = count_tokens(text), int(world.output_tokens[i, j])
        return {
            "id": "chatcmpl-emulated",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [{"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": n_read,
                "completion_tokens": n_written,
                "total_tokens": n_read + n_written,
            },
        }

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal phase
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        message: Message = {"more_body": True}
        body = b""
        while message["more_body"]:
            message = await receive()
            body += message["body"]
        status = 200
        if scope["path"] == "/phase":
            phase, reply = body.decode(), b"{}"
        elif scope["path"] == "/ready":
            reply = b"{}"
        else:
            try:
                reply = orjson.dumps(answer(orjson.loads(body)))
            except (StopIteration, KeyError, ValueError):
                status, reply = 400, b'{"error": {"message": "a question that is not of this world"}}'
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(reply))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": reply})

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[object] | None = None) -> None:
            await super().startup(sockets)
            sys.stdout.write(f"127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}\n")
            sys.stdout.flush()

    options = {"loop": "uvloop", "http": "httptools", "ws": "none", "access_log": False, "log_config": None}
    Announcing(uvicorn.Config(app, port=0, lifespan="on", server_header=False, **options)).run()


def _wrong(answer: str) -> str:
    """Return something that no grader takes for the answer."""
    return f"not {answer}" if not answer.lstrip("-").isdigit() else str(int(answer) + 1)
