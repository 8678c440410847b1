from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import replace

import numpy as np
import pytest

from routing_data import SOURCES, ChecksumMismatch, DownloadFailed, RemoteFile, UnknownName, fetch
from routing_data.download import download

BODY = b"hello, routers"


def remote(url: str, body: bytes = BODY, name: str = "file.csv") -> RemoteFile:
    return RemoteFile(name, url, hashlib.sha256(body).hexdigest(), len(body))


# ---- one file -----------------------------------------------------------------------------------


def test_a_file_is_downloaded_once_and_then_taken_from_the_cache(server, tmp_path):
    file = remote(server.put("/file.csv", (200, BODY)))
    first = download(file, tmp_path / "cache")
    assert first.read_bytes() == BODY and first.stat().st_size == len(BODY)
    assert download(file, tmp_path / "cache") == first
    assert server.asked == ["/file.csv"]


def test_redirects_are_followed(server, tmp_path):
    server.put("/there", (200, BODY))
    assert download(remote(server.put("/here", (302, b"/there"))), tmp_path).read_bytes() == BODY


def test_a_file_that_is_not_the_pinned_one_is_refused_and_not_kept(server, tmp_path):
    file = remote(server.put("/file.csv", (200, b"hello, rooters")))
    expected = f"file.csv: sha256 is {hashlib.sha256(b'hello, rooters').hexdigest()}; expected {file.sha256}"
    with pytest.raises(ChecksumMismatch, match=expected):
        download(file, tmp_path)
    assert list(tmp_path.iterdir()) == [] and len(server.asked) == 1  # a retry would not help


def test_an_answer_longer_than_pinned_is_cut_off(server, tmp_path):
    file = remote(server.put("/file.csv", (200, BODY + b"x" * 500_000)))
    with pytest.raises(DownloadFailed, match="more than 14 bytes came"):
        download(file, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_downloaded_again(server, tmp_path):
    file = remote(server.put("/file.csv", (200, BODY)))
    download(file, tmp_path).write_bytes(b"damaged")
    assert download(file, tmp_path).read_bytes() == BODY
    assert len(server.asked) == 2


def test_a_missing_file_says_so_and_is_not_asked_for_twice(server, tmp_path):
    with pytest.raises(DownloadFailed, match=r"^file\.csv: the server answered 404; expected 200$"):
        download(remote(server.url + "/no"), tmp_path)
    assert list(tmp_path.iterdir()) == [] and len(server.asked) == 1


def test_a_server_in_trouble_is_asked_once_more(server, tmp_path):
    file = remote(server.put("/file.csv", (503, b""), (200, BODY)))
    assert download(file, tmp_path).read_bytes() == BODY
    file = remote(server.put("/down.csv", (503, b"")), name="down.csv")
    with pytest.raises(DownloadFailed, match="the server answered 503"):
        download(file, tmp_path)
    assert server.asked == ["/file.csv"] * 2 + ["/down.csv"] * 2


def test_a_server_that_never_answers_times_out(server, tmp_path):
    never = threading.Event()
    file = remote(server.put("/slow.csv", never), name="slow.csv")
    try:
        with pytest.raises(DownloadFailed, match=r"^slow\.csv: no answer within 0\.2 s$"):
            download(file, tmp_path, timeout_s=0.2)
    finally:
        never.set()
    assert list(tmp_path.iterdir()) == [] and len(server.asked) == 2


def test_nobody_listening_is_a_clear_error(server, tmp_path):
    file = remote("http://127.0.0.1:1/file.csv")
    with pytest.raises(DownloadFailed, match=r"^file\.csv: ConnectError"):
        download(file, tmp_path)


# ---- whole sources, in the format of the real ones ------------------------------------------------

ROUTERBENCH_CSV = b"""\
,sample_id,prompt,eval_name,big/model,small/model,big/model|model_response,big/model|total_cost,small/model|total_cost
0,arc.1,"['Which one?\\nA) x']",arc,1.0,0.0,['A'],0.002,0.0001
1,arc.2,"[""It's"", 'so']",arc,0.5,,['B'],0.004,0.0002
"""
ROUTERBENCH_MORE_CSV = ROUTERBENCH_CSV.replace(b"arc.1", b"arc.3")


def test_routerbench_rows_are_converted(server, tmp_path):
    files = tuple(
        remote(server.put(f"/{name}", (200, body)), body, name)
        for name, body in (("a.csv", ROUTERBENCH_CSV), ("b.csv", ROUTERBENCH_MORE_CSV))
    )
    table = fetch(replace(SOURCES["routerbench"], files=files), tmp_path)
    assert table.prompt_ids == ("rb:arc.1", "rb:arc.2", "rb:arc.3")  # arc.2 is in both files
    assert table.prompts[:2] == ("Which one?\nA) x", "It's\nso")
    assert table.candidates == ("big/model", "small/model") and set(table.tasks) == {"arc"}
    np.testing.assert_array_equal(table.quality, np.array([[1, 0], [0.5, np.nan], [1, 0]], np.float32))
    np.testing.assert_array_equal(table.cost_usd, [[0.002, 0.0001], [0.004, np.nan], [0.002, 0.0001]])
    assert np.isnan(table.output_tokens).all()
    assert table.sources[0].licence is None and not table.simulated


def crux(number: int, answer: str, output: str) -> dict[str, object]:
    return {"id": f"#{number}", "question": f"crux {number}?", "answer": answer, "output": [output]}


CRUX = [
    crux(1, "[1, 2]", '```json\n{"reasoning": "r",\n "answer": "[1,2]"\n}\n```'),  # the same literal
    crux(2, "'ab'", '{\n "answer": "ab"\n}'),  # a string without quotes of its own
    crux(3, "'ab'", '{"answer": "\'ab\'"}'),
    crux(4, "7", '{"answer": 7}'),
    crux(5, "7", '{"answer": 8}'),
    crux(6, "7", "I cannot say."),
    crux(7, "'ab '", '{"answer": "ab"}'),  # white space counts
    crux(8, "{1}", '{"answer": "{{1: 2}}"}'),  # not a literal, and no crash
]
GSM = [
    {"id": "1", "question": "gsm 1?", "answer": "# 1,234", "output": ['{"answer": "$1234.0"}']},
    {"id": "2", "question": "gsm 2?", "answer": "# 18", "output": ['{"answer": "19 dollars"}']},
]


def test_zeroeval_answers_are_graded(server, tmp_path):
    bodies = {"crux-m.json": json.dumps(CRUX).encode(), "gsm-m.json": json.dumps(GSM).encode()}
    files = tuple(remote(server.put(f"/{name}", (200, body)), body, name) for name, body in bodies.items())
    table = fetch(replace(SOURCES["zeroeval"], files=files), tmp_path)
    assert table.candidates == ("m",) and table.tasks == ("crux",) * 8 + ("gsm",) * 2
    assert table.quality[:, 0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 1, 0]
    assert table.prompt_ids[0] == "crux:#1" and table.prompts[0] == "crux 1?"
    assert table.sources[0].licence == "Apache-2.0"


def test_an_unknown_source_names_the_nearest():
    with pytest.raises(UnknownName, match="unknown source 'zero-eval'; did you mean 'zeroeval'"):
        fetch("zero-eval")


@pytest.mark.parametrize("source", SOURCES.values(), ids=lambda source: source.name)
def test_every_source_is_pinned_to_a_commit_and_a_checksum(source):
    assert source.files and len({file.name for file in source.files}) == len(source.files)
    for file in source.files:
        assert re.search(r"^https://.*/[0-9a-f]{40}/", file.url)
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256) and file.n_bytes > 0
        assert "/" not in file.name and not file.name.endswith((".pkl", ".pickle"))
