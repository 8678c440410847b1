"""The bare pass-through: the gateway's server and upstream client; it parses, sets ``model``, forwards, no more."""

from __future__ import annotations

import orjson
import uvicorn
from processes import say_port

from serving.edge import Message, Receive, Scope, Send
from serving.providers.upstream import AiohttpUpstream, UpstreamRequest

_SENT_HEADERS = {"content-type": "application/json"}


def serve(url: str, model: str) -> None:
    """Serve until told to end; every POST goes to ``url``."""
    upstream = AiohttpUpstream()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] == "lifespan.startup":
                await upstream.open()
                await send({"type": "lifespan.startup.complete"})
            await upstream.close()
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["method"] != "POST":
            await _reply(send, 200, b"{}")
            return
        message: Message = await receive()
        body = message["body"]
        while message["more_body"]:
            message = await receive()
            body += message["body"]
        request = orjson.loads(body)
        request["model"] = model
        response = await upstream.send(UpstreamRequest(url, _SENT_HEADERS, orjson.dumps(request)))
        if request.get("stream"):
            headers = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            async for chunk in response.chunks():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        else:
            await _reply(send, response.status, await response.read())
        await response.close()

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[object] | None = None) -> None:
            await super().startup(sockets)
            say_port(self.servers[0].sockets[0].getsockname()[1])

    options = {"loop": "uvloop", "http": "httptools", "ws": "none", "access_log": False, "log_config": None}
    Announcing(uvicorn.Config(app, port=0, lifespan="on", server_header=False, **options)).run()


async def _reply(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
