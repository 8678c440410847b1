"""Command-line agents, unchanged, do a task with their own tools, over an upstream of each dialect.

The emulated provider plays the model: it asks for the agent's tools by name, then tells. What the tools do is real.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from serving.emulated_faults import Fault

pytestmark = [pytest.mark.clients]

SCENARIO = json.loads(Path(__file__).parents[1].joinpath("python", "scenario.json").read_text("utf-8"))
NOWHERE = "http://127.0.0.1:9"
WORD = "heron"
ASKED = "Read note.txt and copy the secret word into made.txt."
TOLD = "Done, the word is copied."
STATE = "b3BhcXVlIHN0YXRlIG9mIHJlYXNvbmluZw=="
#: Neither command holds the word: it reaches the provider only in what a tool gave back.
READS = "sed 's/.* //' note.txt"
COPIES = f"{READS} > made.txt"
#: What Codex is told of a model; one it does not know gets no editor.
CODEX_MODEL = {
    "apply_patch_tool_type": "freeform",
    "base_instructions": "You work in a folder.",
    "experimental_supported_tools": [],
    "priority": 1,
    "shell_type": "unified_exec",
    "support_verbosity": False,
    "supported_in_api": True,
    "supported_reasoning_levels": [],
    "truncation_policy": {"mode": "tokens", "limit": 10000},
    "visibility": "list",
}


@dataclass(frozen=True)
class Visit:
    """Where an agent runs, and what it is pointed at."""

    folder: Path
    home: Path
    origin: str
    key: str
    model: str
    n_retries: int = 0


@dataclass(frozen=True)
class Agent:
    """A command-line agent: how it is started, and how its tools are called.

    ``start`` writes the agent's configuration and gives its command line and environment.
    """

    name: str
    start: Callable[[Visit], tuple[list[str], dict[str, str]]]
    steps: list[dict[str, object]]


def claude_code(visit: Visit) -> tuple[list[str], dict[str, str]]:
    # The one is sent as x-api-key, the other as a bearer's.
    key = "ANTHROPIC_API_KEY" if visit.model == "auto" else "ANTHROPIC_AUTH_TOKEN"
    env = {
        "ANTHROPIC_BASE_URL": visit.origin,
        key: visit.key,
        "ANTHROPIC_MODEL": visit.model,
        "ANTHROPIC_SMALL_FAST_MODEL": visit.model,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": visit.model,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": str(visit.n_retries),
        "DISABLE_AUTOUPDATER": "1",
    }
    return ["-p", ASKED, "--allowedTools", "Bash Read"], env


def codex(visit: Visit) -> tuple[list[str], dict[str, str]]:
    known = {**CODEX_MODEL, "slug": visit.model, "display_name": visit.model}
    (visit.home / "models.json").write_text(json.dumps({"models": [known]}), "utf-8")
    (visit.home / "config.toml").write_text(
        f"""
model = "{visit.model}"
model_provider = "gateway"
model_catalog_json = "{visit.home}/models.json"
check_for_update_on_startup = false

[analytics]
enabled = false

[model_providers.gateway]
name = "gateway"
base_url = "{visit.origin}/v1"
env_key = "GATEWAY_KEY"
wire_api = "responses"
request_max_retries = {visit.n_retries}
stream_max_retries = {visit.n_retries}
""",
        "utf-8",
    )
    # Its own sandbox needs rights that a container seldom has.
    options = ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
    return ["exec", *options, ASKED], {"CODEX_HOME": str(visit.home), "GATEWAY_KEY": visit.key}


def opencode(visit: Visit) -> tuple[list[str], dict[str, str]]:
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "options": {"baseURL": f"{visit.origin}/v1", "apiKey": visit.key},
        "models": {visit.model: {"name": visit.model}},
    }
    config = {"share": "disabled", "autoupdate": False, "provider": {"gateway": provider}}
    (visit.folder / "opencode.json").write_text(json.dumps(config), "utf-8")
    env = {
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
        "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
        "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
        "OPENCODE_PURE": "1",
        "npm_config_registry": NOWHERE,
        "npm_config_offline": "true",
    }
    return ["run", "-m", f"gateway/{visit.model}", ASKED], env


def calls(*named: tuple[str, dict[str, str]]) -> dict[str, object]:
    return {"calls": [{"name": name, "arguments": arguments} for name, arguments in named]}


CLAUDE_CODE = Agent(
    "claude-code",
    claude_code,
    [
        calls(("Read", {"file_path": "note.txt"}), ("Bash", {"command": READS, "description": "Read the word"})),
        calls(("Bash", {"command": COPIES, "description": "Copy the word"})),
        {"text": TOLD},
    ],
)
CODEX = Agent(
    "codex",
    codex,
    [calls(("exec_command", {"cmd": READS})), calls(("exec_command", {"cmd": COPIES})), {"text": TOLD}],
)
OPENCODE = Agent(
    "opencode",
    opencode,
    [
        calls(("bash", {"command": READS, "description": "Read the word"})),
        calls(("bash", {"command": COPIES, "description": "Copy the word"})),
        {"text": TOLD},
    ],
)


@pytest.fixture
def scripted(gateways) -> Iterator[Callable[[str, list[dict[str, object]]], object]]:
    """Return a function (upstream, steps) that gives a gateway whose provider takes these steps for the test's time."""
    touched = []

    def script(upstream: str, steps: list[dict[str, object]]):
        gateway = gateways[upstream]
        gateway.provider.received = []
        gateway.provider.scripts.put("*", steps)
        touched.append(gateway)
        return gateway

    yield script
    for gateway in touched:
        gateway.provider.scripts.put("*", SCENARIO["steps"])


@pytest.fixture
def work(scripted, program_of, run_program, tmp_path: Path):
    """Return a function (agent, upstream, model, steps, …) that lets an agent work in a folder, to a good end."""
    folder, home = tmp_path / "work", tmp_path / "agent"

    def start(agent: Agent, upstream: str, model: str, steps: list[dict[str, object]], fault: Fault | None = None):
        program = program_of(agent.name)
        gateway = scripted(upstream, steps)
        folder.mkdir()
        home.mkdir()
        (folder / "note.txt").write_text(f"the secret word is {WORD}\n", "utf-8")
        if fault is not None:
            gateway.provider.faults.put("*", fault, times=1)
        visit = Visit(folder, home, gateway.origin, gateway.key, model, n_retries=0 if fault is None else 1)
        arguments, env = agent.start(visit)
        finished = run_program(program, *arguments, folder=folder, env=env)
        assert finished.status == 0, finished
        assert TOLD in finished.said, finished
        files = {file.name: file.read_text("utf-8") for file in folder.iterdir()}
        return files, [received.body.decode() for received in gateway.provider.received], finished

    return start


@pytest.mark.parametrize("model", ["auto", "large"])
@pytest.mark.parametrize("upstream", ["chat", "responses", "messages", "gemini"])
@pytest.mark.parametrize("agent", [CLAUDE_CODE, CODEX, OPENCODE], ids=lambda agent: agent.name)
def test_it_does_a_task_with_its_tools(work, noted, agent: Agent, upstream: str, model: str) -> None:
    with noted(agent.name, upstream, model):
        files, bodies, finished = work(agent, upstream, model, agent.steps)
        assert files.get("made.txt") == f"{WORD}\n", finished
        assert any(WORD in body for body in bodies)


@pytest.mark.parametrize("upstream", ["responses", "messages", "gemini"])
@pytest.mark.parametrize("agent", [CLAUDE_CODE, CODEX], ids=lambda agent: agent.name)
def test_a_provider_gets_its_reasoning_state_back(work, agent: Agent, upstream: str) -> None:
    first, *others = agent.steps
    thought = {**first, "reasoning": "The word stands in the note.", "state": STATE}
    _, bodies, _ = work(agent, upstream, "large", [thought, *others])
    assert STATE not in bodies[0]
    assert STATE in bodies[-1]


@pytest.mark.parametrize("upstream", ["chat", "responses", "messages", "gemini"])
def test_codex_edits_with_a_tool_that_takes_no_json(work, upstream: str) -> None:
    patch = f"*** Begin Patch\n*** Add File: made.txt\n+{WORD}\n*** End Patch"
    is_native = upstream == "responses"
    edit = {"name": "apply_patch", "arguments": patch if is_native else {"input": patch}}
    files, _, finished = work(CODEX, upstream, "large", [{"calls": [edit]}, {"text": TOLD}])
    assert files.get("made.txt") == f"{WORD}\n", finished


@pytest.mark.parametrize("upstream", ["chat", "responses", "messages", "gemini"])
def test_codex_calls_a_tool_of_a_namespace(work, upstream: str) -> None:
    name = "close_agent" if upstream == "responses" else "multi_agent_v1__close_agent"
    _, bodies, finished = work(CODEX, upstream, "large", [calls((name, {"target": "nobody"})), {"text": TOLD}])
    # Which only the tool itself says, and only it can have been asked: there is no agent of that name to close.
    assert "invalid agent id nobody" in bodies[-1], finished


@pytest.mark.parametrize("upstream", ["chat", "responses", "messages", "gemini"])
@pytest.mark.parametrize("agent", [CLAUDE_CODE, CODEX], ids=lambda agent: agent.name)
def test_it_asks_again_when_a_stream_breaks(work, agent: Agent, upstream: str) -> None:
    first, *others = agent.steps
    steps = [{**first, "text": "Let me look into the note first, it is not long."}, *others]
    files, bodies, finished = work(agent, upstream, "large", steps, Fault(cut_after_events=2))
    assert files.get("made.txt") == f"{WORD}\n", finished
    assert len(bodies) == len(steps) + 1
