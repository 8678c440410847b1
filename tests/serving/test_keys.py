from __future__ import annotations

import hashlib
import re

import pytest

from serving.errors import NotLocal, Unauthenticated
from serving.keys import ANONYMOUS, Key, KeyRing, Principal, digest_of, new_key

ALICE, BOB = "sk-turnout-" + "a" * 43, "sk-turnout-" + "b" * 43


@pytest.fixture
def ring() -> KeyRing:
    return KeyRing([Key("alice", digest_of(ALICE)), Key("bob", digest_of(BOB), ("gpt-*", "auto"))])


def test_a_new_key_has_256_random_bits_and_its_digest() -> None:
    secret, sha256 = new_key()
    assert re.fullmatch(r"sk-turnout-[A-Za-z0-9_-]{43}", secret)
    assert sha256 == hashlib.sha256(secret.encode()).hexdigest()
    assert new_key()[0] != secret


@pytest.mark.parametrize(
    "header",
    [
        (b"authorization", b"Bearer " + ALICE.encode()),
        (b"authorization", b"bearer  " + ALICE.encode() + b" "),
        (b"x-api-key", ALICE.encode()),
        (b"api-key", ALICE.encode()),
    ],
)
def test_a_key_is_accepted_wherever_clients_show_it(ring: KeyRing, header: tuple[bytes, bytes]) -> None:
    assert ring.authenticate([(b"host", b"x"), header]) == Principal("alice")


def test_of_two_keys_shown_the_valid_one_counts(ring: KeyRing) -> None:
    wrong = b"Bearer sk-turnout-" + b"z" * 43
    assert ring.authenticate([(b"authorization", wrong), (b"x-api-key", BOB.encode())]).name == "bob"
    assert ring.authenticate([(b"x-api-key", wrong), (b"authorization", b"Bearer " + BOB.encode())]).name == "bob"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Basic " + ALICE.encode())],
        [(b"authorization", ALICE.encode())],
        [(b"x-api-key", b"' OR '1'='1")],
        [(b"x-api-key", b"sk-turnout-" + b"z" * 43)],
        [(b"x-api-key", ALICE.encode()[:-1])],
        [(b"x-api-key", ALICE.encode() + b"a")],
        [(b"x-api-key", digest_of(ALICE).encode())],
        [(b"cookie", ALICE.encode())],
        [(b"x-api-key", b"sk-" + b"a" * 10_000)],
        [(b"x-api-key", b"\xff\xfe")],
    ],
)
def test_everything_else_is_unauthenticated_and_not_repeated(ring: KeyRing, headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Unauthenticated) as caught:
        ring.authenticate(headers)
    assert caught.value.status == 401
    assert "aaaa" not in str(caught.value) and "zzzz" not in str(caught.value) and "OR" not in str(caught.value)


def test_without_keys_nobody_enters_unless_the_ring_is_open() -> None:
    with pytest.raises(Unauthenticated):
        KeyRing([]).authenticate([])
    assert KeyRing([], allow_anonymous=True).authenticate([]) is ANONYMOUS
    assert KeyRing([], allow_anonymous=True).authenticate([(b"x-api-key", b"anything")]) is ANONYMOUS


LOCAL = [
    "127.0.0.1",
    "127.0.0.1:8080",
    "127.0.0.2:1",
    "localhost",
    "LocalHost:80",
    "[::1]",
    "[::1]:8080",
    "a.localhost",
]
FOREIGN = [
    *("", "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "notlocalhost"),
    *("10.0.0.1", "0.0.0.0", "[::2]", "[::1].evil.example", "localhost@evil.example", "127.0.0.1 evil.example"),
    *("evil.example\nlocalhost", "localhost\n", "\xff.localhost"),
]


@pytest.mark.parametrize("host", LOCAL)
def test_an_open_ring_serves_whoever_names_this_machine(host: str) -> None:
    ring = KeyRing([], allow_anonymous=True)
    assert ring.authenticate([(b"host", host.encode())]) is ANONYMOUS
    assert ring.authenticate([(b"host", b"localhost"), (b"origin", b"http://" + host.encode())]) is ANONYMOUS


@pytest.mark.parametrize("host", FOREIGN)
def test_an_open_ring_refuses_rebound_names_and_web_pages(host: str) -> None:
    ring = KeyRing([], allow_anonymous=True)
    for headers in (
        [(b"host", host.encode("latin-1"))],
        [(b"host", b"127.0.0.1"), (b"origin", b"https://" + host.encode("latin-1"))],
        [(b"host", b"127.0.0.1"), (b"origin", b"http://localhost"), (b"origin", host.encode("latin-1"))],
    ):
        with pytest.raises(NotLocal) as caught:
            ring.authenticate(headers)
        assert (caught.value.status, caught.value.code) == (403, "not_local")
        assert "evil" not in str(caught.value)


@pytest.mark.parametrize("origin", [b"null", b"", b"localhost", b"http://", b"file://", b"http://localhost/evil"])
def test_an_origin_that_is_no_local_page_is_refused(origin: bytes) -> None:
    with pytest.raises(NotLocal):
        KeyRing([], allow_anonymous=True).authenticate([(b"origin", origin)])


def test_with_keys_the_key_is_what_counts(ring: KeyRing) -> None:
    headers = [(b"host", b"turnout.example"), (b"origin", b"https://turnout.example"), (b"api-key", ALICE.encode())]
    assert ring.authenticate(headers).name == "alice"


def test_one_key_closes_an_open_ring() -> None:
    with pytest.raises(Unauthenticated):
        KeyRing([Key("alice", digest_of(ALICE))], allow_anonymous=True).authenticate([])


def test_globs_say_what_a_key_may_ask_for(ring: KeyRing) -> None:
    bob = ring.authenticate([(b"x-api-key", BOB.encode())])
    assert bob.may_use("gpt-4o") and bob.may_use("auto")
    assert not bob.may_use("auto:price") and not bob.may_use("GPT-4o") and not bob.may_use("my-gpt-4o")
    assert ANONYMOUS.may_use("whatever")


def test_a_star_is_no_limit() -> None:
    ring = KeyRing([Key("a", digest_of(ALICE), ("gpt-*", "*"))])
    principal = ring.authenticate([(b"api-key", ALICE.encode())])
    assert principal.models == () and principal.may_use("anything")
