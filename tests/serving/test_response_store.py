"""``previous_response_id``: from an opt-in store, of one key, that expires; else a clear error."""

from __future__ import annotations

import orjson
import pytest

from serving.response_store import ResponseStore

KEYS = (
    ("alice", "sk-turnout-" + "a" * 43, "a"),
    ("bob", "sk-turnout-" + "b" * 43, "b"),
)


def server_of(api: str, keep_for_s: float) -> str:
    import hashlib

    keys = "".join(
        f'[[keys]]\nname = "{name}"\nsha256 = "{hashlib.sha256(secret.encode()).hexdigest()}"\n'
        for name, secret, _ in KEYS
    )
    return (
        '[server]\nport = 0\nbundle = "{bundle}"\ndatabase = ""\nwatch_bundle_s = {watch_bundle_s}\n{settings}\n'
        f"[responses]\nkeep_for_s = {keep_for_s}\n{keys}"
        f'[[providers]]\nname = "emulator"\nemulated = true\napis = ["{api}"]\n'
    )


def of(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


ALICE, BOB = (of(secret) for _, secret, _ in KEYS)


async def first_id(gateway, *, is_stream: bool, **more: object) -> str:
    asked = {"model": "large", "input": "Remember the number 7.", "stream": is_stream, **more}
    response = await gateway.client.post("/v1/responses", json=asked, headers=ALICE)
    assert response.status_code == 200, response.text
    if not is_stream:
        return response.json()["id"]
    (line,) = [line for line in response.text.split("\n") if line.startswith('data: {"type":"response.completed"')]
    return orjson.loads(line[6:])["response"]["id"]


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("api", ["responses", "chat"])
async def test_a_conversation_goes_on_from_what_is_kept(start, pool_toml, api: str, is_stream: bool) -> None:
    async with start(pool_toml, server=server_of(api, 60)) as gateway:
        before = await first_id(gateway, is_stream=is_stream)
        asked = {"model": "large", "input": "Which one?", "previous_response_id": before}
        response = await gateway.client.post("/v1/responses", json=asked, headers=ALICE)
        assert response.status_code == 200, response.text
        sent = gateway.provider.received[-1].body
        assert b"previous_response_id" not in sent
        order = [sent.index(words) for words in (b"Remember the number 7.", b"[emulated", b"Which one?")]
        assert order == sorted(order)
        assert response.json()["previous_response_id"] == before
        streamed = await gateway.client.post("/v1/responses", json={**asked, "stream": True}, headers=ALICE)
        assert streamed.text.count(f'"previous_response_id":"{before}"') == 3  # created, in progress, completed
        kept = await gateway.client.get(f"/v1/responses/{before}", headers=ALICE)
        assert kept.json()["id"] == before
        # A third turn knows both of the others.
        again = {"model": "large", "input": "Sure?", "previous_response_id": response.json()["id"]}
        await gateway.client.post("/v1/responses", json=again, headers=ALICE)
        assert all(words in gateway.provider.received[-1].body for words in (b"number 7.", b"Which one?", b"Sure?"))


async def test_it_is_nobody_elses_and_can_be_forgotten(start, pool_toml) -> None:
    async with start(pool_toml, server=server_of("chat", 60)) as gateway:
        before = await first_id(gateway, is_stream=False)
        asked = {"model": "large", "input": "Which one?", "previous_response_id": before}
        stranger = await gateway.client.post("/v1/responses", json=asked, headers=BOB)
        assert (stranger.status_code, stranger.json()["error"]["code"]) == (400, "previous_response_not_found")
        assert (await gateway.client.get(f"/v1/responses/{before}", headers=BOB)).status_code == 404
        assert (await gateway.client.delete(f"/v1/responses/{before}", headers=BOB)).status_code == 404
        forgotten = await gateway.client.delete(f"/v1/responses/{before}", headers=ALICE)
        assert forgotten.json() == {"id": before, "object": "response", "deleted": True}
        assert (await gateway.client.post("/v1/responses", json=asked, headers=ALICE)).status_code == 400


async def test_nothing_is_kept_unless_asked_for(start, pool_toml) -> None:
    async with start(pool_toml, server=server_of("chat", 0)) as gateway:
        before = await first_id(gateway, is_stream=False)
        asked = {"model": "large", "input": "Which one?", "previous_response_id": before}
        refused = await gateway.client.post("/v1/responses", json=asked, headers=ALICE)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "previous_response_not_found")
        assert refused.json()["error"]["param"] == "previous_response_id"
    async with start(pool_toml, server=server_of("chat", 60)) as gateway:
        unkept = await first_id(gateway, is_stream=False, store=False)
        assert (await gateway.client.get(f"/v1/responses/{unkept}", headers=ALICE)).status_code == 404


def test_it_expires_and_is_bounded() -> None:
    now = [0.0]
    store = ResponseStore(n_bytes=1_000, clock=lambda: now[0])
    for n in range(5):
        store.put("k", [{"text": "x" * 250}], {"id": f"resp_{n}", "output": []}, 10)
    assert [store.get("k", f"resp_{n}") is not None for n in range(5)] == [False, False, True, True, True]
    store.put("k", [{"text": "x" * 2_000}], {"id": "too large"}, 10)
    assert store.get("k", "too large") is None
    now[0] = 11
    assert store.get("k", "resp_4") is None


async def test_a_reference_to_an_item_gives_way_to_the_item(start, pool_toml) -> None:
    """Vercel's AI SDK sends one for every earlier answer, as if responses were always stored."""
    async with start(pool_toml, server=server_of("chat", 60)) as gateway:
        asked = {"model": "large", "input": "Remember the number 7."}
        first = (await gateway.client.post("/v1/responses", json=asked, headers=ALICE)).json()
        reference = {"type": "item_reference", "id": first["output"][0]["id"]}
        said = [{"role": "user", "content": words} for words in ("Remember the number 7.", "Which?")]
        turns = [said[0], reference, said[1]]
        again = await gateway.client.post("/v1/responses", json={**asked, "input": turns}, headers=ALICE)
        assert again.status_code == 200, again.text
        sent = orjson.loads(gateway.provider.received[-1].body)["messages"]
        assert [message["role"] for message in sent] == ["user", "assistant", "user"]
        stranger = await gateway.client.post("/v1/responses", json={**asked, "input": turns}, headers=BOB)
        assert (stranger.status_code, stranger.json()["error"]["param"]) == (400, "input[1]")
        assert "store: false" in stranger.json()["error"]["message"]
