"""How connections are taken when the loop's turns are long."""

from __future__ import annotations

import asyncio
import socket

import uvicorn
import uvloop

from serving.drain import Drain
from serving.server import N_LISTENERS, Server

N_CALLERS = 8 * N_LISTENERS


async def nothing(scope: object, receive: object, send: object) -> None:
    await asyncio.sleep(60)


async def turns_until_all_are_taken() -> int:
    ready = asyncio.get_running_loop().create_future()
    config = uvicorn.Config(nothing, host="127.0.0.1", port=0, lifespan="off", log_config=None)
    server = Server(config, Drain(), 1.0, ready.set_result)
    serving = asyncio.create_task(server._serve())
    port = await ready
    # Connected by the kernel, while this loop does something else.
    callers = [socket.create_connection(("127.0.0.1", port)) for _ in range(N_CALLERS)]
    n_turns = 0
    while len(server.server_state.connections) < N_CALLERS and n_turns < 10 * N_CALLERS:
        n_turns += 1
        await asyncio.sleep(0)
    for caller in callers:
        caller.close()
    server.should_exit = True
    await serving
    return n_turns


def test_many_connections_are_taken_in_one_turn_of_uvloop() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        n_turns = runner.run(turns_until_all_are_taken())
    assert n_turns <= N_CALLERS // 4, "one at a time would take a turn each"
