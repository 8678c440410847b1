from __future__ import annotations

import time

import pytest

from router.text import HEAD_CHARACTERS, IMAGE_CHARACTERS, TAIL_CHARACTERS, clip, human, read


def user(content):
    return {"role": "user", "content": content}


def text(value):
    return {"type": "text", "text": value}


def test_the_last_user_turn_is_the_prompt():
    prompt = read([user("first"), {"role": "assistant", "content": "answer"}, user("second")])
    assert prompt.text == "second"
    assert prompt.shape.n_messages == 3
    assert prompt.shape.n_characters == len("first" + "answer" + "second")


def test_reminder_blocks_before_the_prompt_are_not_read():
    reminders = [text(f"<system-reminder>\nnote {i}\n</system-reminder>") for i in range(8)]
    assert read([user([*reminders, text("Fix the bug in parse()")])]).text == "Fix the bug in parse()"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("<system-reminder>x</system-reminder>hello", "hello"),
        ("hello <environment_context cwd='/x'>a\nb</environment_context>world", "hello world"),
        ("<task>do it</task>\n<environment_details>files</environment_details>", "do it"),
        ("is <b> an HTML tag?", "is <b> an HTML tag?"),
        ("what does <system-reminder> mean?", "what does <system-reminder> mean?"),
        ("<system-reminders>mine</system-reminders>", "<system-reminders>mine</system-reminders>"),
        ("a<system-reminder>x</system-reminder>b<system-reminder>y</system-reminder>c", "abc"),
    ],
)
def test_harness_elements_go_and_the_humans_own_stays(given, expected):
    assert read([user(given)]).text == expected


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        # Claude Code: eight reminders before the prompt, a command's traces, a background task that ended.
        ([[*(text(f"<system-reminder>\n{i}\n</system-reminder>\n") for i in range(8)), text("Fix it.")]], "Fix it."),
        (
            [
                [text("Count the files")],
                [
                    text("<local-command-caveat>not for you</local-command-caveat>"),
                    text("<bash-stdout>7</bash-stdout>"),
                ],
                [text("<task-notification>\n<task-id>1</task-id>\n</task-notification>")],
            ],
            "Count the files",
        ),
        # Codex: a project's instructions and the environment stand in user turns of their own, or in one.
        (
            [
                [text("List the files.")],
                [text("# AGENTS.md instructions for /repo\n\n<INSTRUCTIONS>\nBe brief.\n</INSTRUCTIONS>")],
                [text("<environment_context>\n<cwd>/repo</cwd>\n</environment_context>")],
            ],
            "List the files.",
        ),
        (
            [
                [
                    text(
                        "# AGENTS.md instructions for /repo\n\n<INSTRUCTIONS>\nBe brief.\n</INSTRUCTIONS>\n"
                        "<environment_context>\nx\n</environment_context>"
                    )
                ],
                [
                    text(
                        "# Context from my IDE setup:\n\n## Open tabs:\n- a.py\n\n## My request for Codex:\nRename it\n"
                    )
                ],
            ],
            "Rename it",
        ),
        # Cline, as it was and as it is.
        (
            [[text("<task>\nWrite a test\n</task>"), text("<environment_details>\nx\n</environment_details>")]],
            "Write a test",
        ),
        ([[text('<user_input mode="act"><mode_notice>now you may</mode_notice>Do it</user_input>')]], "Do it"),
        ([[text("<feedback>\nNot so\n</feedback>"), text('<file_content path="a.py">\n1\n</file_content>')]], "Not so"),
        # What only looks like it.
        (
            [[text("# AGENTS.md instructions are what I want you to write")]],
            "# AGENTS.md instructions are what I want you to write",
        ),
    ],
)
def test_what_clients_really_send_is_read_down_to_the_humans_words(turns, expected):
    assert read([user(blocks) for blocks in turns]).text == expected


def test_a_turn_of_tool_results_only_is_passed_over():
    messages = [
        user("Count the files"),
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "a.py\nb.py"},
        user([{"type": "tool_result", "content": "a.py"}, text("<system-reminder>be brief</system-reminder>")]),
    ]
    assert read(messages).text == "Count the files"


def test_without_a_user_turn_the_last_text_is_read():
    assert read([{"role": "system", "content": "Say hello"}]).text == "Say hello"


def test_nothing_to_read_is_the_empty_text():
    assert read([]).text == ""


def test_images_are_counted_not_read():
    prompt = read([user([text("what is this?"), {"type": "image_url", "image_url": {"url": "https://x"}}])])
    assert prompt.text == "what is this?"
    assert prompt.shape.has_images
    assert prompt.shape.n_characters == len("what is this?") + IMAGE_CHARACTERS


def test_tools_and_limits_reach_the_shape():
    shape = read([user("x")], n_extra_characters=100, n_tools=2, needs_json_schema=True, max_output_tokens=5).shape
    assert (shape.n_characters, shape.n_tools, shape.needs_json_schema, shape.max_output_tokens) == (101, 2, True, 5)


def test_many_unclosed_elements_stay_and_take_linear_time():
    # A hundred thousand openings: anything quadratic would take minutes here.
    nested = "<system-reminder>" * 100_000
    assert read([user(nested)]).text == nested
    others = "<system-reminderX" * 100_000 + "</system-reminder>"
    assert read([user(others)]).text == others


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("# AGENTS.md instructions for /repo\n\n<INSTRUCTIONS>\nBe brief.\n</INSTRUCTIONS>", ""),
        ("# AGENTS.md instructions <INSTRUCTIONS>x</INSTRUCTIONS>\nGo on.", "Go on."),
        ("# AGENTS.md instructions\nmine <INSTRUCTIONS>x</INSTRUCTIONS>", None),
        ("# AGENTS.md instructions: what is <b>?", None),
    ],
)
def test_an_agents_file_goes_and_what_only_begins_like_one_stays(said, left):
    assert human([said]) == (said if left is None else left)


MEBI = 2**20


@pytest.mark.parametrize(
    "hostile",
    [
        "# AGENTS.md instructions" + " " * MEBI + "<",
        "# AGENTS.md instructions" + " \n" * (MEBI // 2) + "<",
        "<INSTRUCTIONS>" + "# AGENTS.md instructions\n" * (MEBI // 25),
        "<task " * (MEBI // 6),
        ("<task " + "x" * 201) * (MEBI // 207),
        "<system-reminder>" * (MEBI // 17),
        "<system-reminder></system-reminder" * (MEBI // 34),
        "</system-reminder>" * (MEBI // 18) + "<system-reminder>",
        "<" * MEBI,
        "## My request for Codex:" * (MEBI // 24),
    ],
)
def test_no_text_takes_more_than_linear_time(hostile):
    # A mebibyte: what is quadratic takes an hour, what is linear some milliseconds.
    began = time.process_time()
    read([user(hostile), user([text(hostile)])])
    assert time.process_time() - began < 5


def test_a_long_text_is_read_head_and_tail():
    clipped = clip("h" * 10_000 + "t" * 10_000)
    assert clipped.startswith("h" * HEAD_CHARACTERS)
    assert clipped.endswith("t" * TAIL_CHARACTERS)
    assert len(clipped) < 8_100
    assert clip(clipped) == clipped
    assert clip("short") == "short"


def test_calls_made_earlier_and_attachments_are_paid_for():
    call = {"id": "1", "type": "function", "function": {"name": "read", "arguments": "x" * 1_000}}
    assert read([{"role": "assistant", "content": None, "tool_calls": [call]}]).shape.n_characters == 1_000 + 13
    assert read([user([{"type": "input_audio", "input_audio": {"data": "AA=="}}])]).shape.n_characters == 4_000


def test_parts_of_no_known_kind_are_passed_over():
    parts = [{"type": ["text"], "text": "x"}, {"type": {}}, {"text": "y"}, 7, {"type": "text", "text": "Hello."}]
    assert read([{"role": "user", "content": parts}]).text == "Hello."
