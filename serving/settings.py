"""Settings: one TOML file, read once into one frozen object.

Every table of the file is a dataclass here; every key is a field with its check, unit and help, so the
reader, the errors and the reference table (``turnout settings``) come from one description. A file is judged
as a whole: all its problems are reported together, each with the key's path. Secrets are only ever *named*
(``api_key_env``): this is the one module that reads the environment, and what it read stays out of
:class:`Settings`. Whether the bundle agrees (a preset's or a ``like``'s name) is judged where the bundle is
loaded, in :mod:`serving.state`.

Entry points: :func:`load`, :func:`credentials`, :func:`reference`.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from router.domain import Policy
from router.errors import InvalidPolicy
from router.policy import check as check_policy
from serving import tables
from serving.candidate_settings import CandidateSettings
from serving.demand import Demand
from serving.errors import KeysRequired, SettingsError
from serving.feedback_settings import FeedbackSettings
from serving.keys import PRIORITIES
from serving.log_settings import LogSettings
from serving.provider_settings import ProviderSettings
from serving.records import RETENTIONS
from serving.references import is_auto, misled
from serving.routing_settings import RoutingSettings
from serving.scenario_settings import SCENARIO, RuleSettings, ScenarioSettings
from serving.server_settings import ServerSettings
from serving.shadow_settings import ShadowSettings
from serving.tables import about
from serving.toml_lines import lines_of, located

DEMO = Path(__file__).with_name("demo.toml")
SHIPPED_BUNDLE = Path(__file__).resolve().parent.parent / "models" / "default"


@dataclass(frozen=True, slots=True)
class ResponsesSettings:
    """``[responses]``: what is kept for clients that refer to earlier responses."""

    keep_for_s: float = field(
        default=0.0,
        metadata=about(
            tables.number(0),
            "How long responses are kept in memory, per key, for previous_response_id; 0 keeps none and refuses it.",
            "s",
        ),
    )


@dataclass(frozen=True, slots=True)
class KeySettings:
    """``[[keys]]``: a client, known by the hash of its key."""

    name: str = field(metadata=about(tables.name, "Who it is; stands in records, never the key."))
    sha256: str = field(metadata=about(tables.sha256, "Hash of the key, as `turnout key new` prints it."))
    models: tuple[str, ...] = field(
        default=("*",),
        metadata=about(tables.globs, "Globs on the candidates it may use, by name or through auto."),
    )
    project: str = field(default="", metadata=about(tables.path, "Whose it is, for rules."))
    team: str = field(default="", metadata=about(tables.path, "The same, one level up."))
    regions: tuple[str, ...] = field(
        default=(),
        metadata=about(tables.labels, "Only deployments known to be in one of these regions serve it."),
    )
    data_policies: tuple[str, ...] = field(
        default=(),
        metadata=about(tables.labels, "Only deployments known to keep all of these data policies serve it."),
    )
    priority: str = field(
        default="normal",
        metadata=about(tables.choice(*PRIORITIES), "The highest of high, normal and batch that it may ask for."),
    )
    admin: bool = field(default=False, metadata=about(tables.flag, "Whether it may see and change experiments."))
    retention: str | None = field(
        default=None,
        metadata=about(tables.choice(*RETENTIONS), "What is kept of its prompts; absent: log.retention."),
    )
    grades: tuple[str, ...] = field(
        default=(),
        metadata=about(tables.key_globs, "Globs on the names of keys on whose requests it may give feedback too."),
    )

    def demand(self) -> Demand:
        """Return what it demands of deployments."""
        return Demand.of(self.regions, self.data_policies)


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole file. ``source`` is where it was read from; relative paths were resolved against ``root``."""

    server: ServerSettings = field(
        default_factory=ServerSettings,
        metadata={"table": ServerSettings, "help": "Listening, loading, waiting."},
    )
    routing: RoutingSettings = field(
        default_factory=RoutingSettings, metadata={"table": RoutingSettings, "help": "What auto means."}
    )
    aliases: Mapping[str, str] = field(
        default_factory=dict,
        metadata=about(
            tables.renames,
            "Model names that tools insist on, or globs of them, and what is meant: auto, auto:PRESET, "
            "scenario:NAME or a candidate.",
        ),
    )
    scenarios: Mapping[str, ScenarioSettings] = field(
        default_factory=dict,
        metadata={"by_name": ScenarioSettings, "help": "Pools and policies under a name."},
    )
    rules: tuple[RuleSettings, ...] = field(
        default=(), metadata={"rows": RuleSettings, "help": "Which requests go to which scenario; the first counts."}
    )
    responses: ResponsesSettings = field(
        default_factory=ResponsesSettings,
        metadata={"table": ResponsesSettings, "help": "What is kept for clients that refer to earlier responses."},
    )
    feedback: FeedbackSettings = field(
        default_factory=FeedbackSettings,
        metadata={"table": FeedbackSettings, "help": "What callers say of answers, and for how long."},
    )
    log: LogSettings = field(
        default_factory=LogSettings,
        metadata={"table": LogSettings, "help": "What is kept of requests and their prompts, and for how long."},
    )
    shadow: ShadowSettings = field(
        default_factory=ShadowSettings,
        metadata={"table": ShadowSettings, "help": "A challenger that decides beside the champion."},
    )
    providers: tuple[ProviderSettings, ...] = field(
        default=(), metadata={"rows": ProviderSettings, "help": "Who answers."}
    )
    candidates: tuple[CandidateSettings, ...] = field(
        default=(), metadata={"rows": CandidateSettings, "help": "Who may be chosen."}
    )
    keys: tuple[KeySettings, ...] = field(default=(), metadata={"rows": KeySettings, "help": "Who may ask."})
    source: Path = DEMO
    root: Path = Path()

    def bundle_directory(self) -> Path:
        """Return the directory that holds the bundle's manifest, by the settings alone (no file is read)."""
        return self.root / self.server.bundle if self.server.bundle else SHIPPED_BUNDLE

    def shadow_directory(self) -> Path | None:
        """Return the directory of the challenger's bundle, or None where there is none."""
        return self.root / self.shadow.bundle if self.shadow.bundle else None

    def database_path(self) -> Path | None:
        """Return where records are kept, or None where they are not."""
        return self.root / self.server.database if self.server.database else None

    def policies(self) -> Mapping[str, Policy]:
        """Return the presets the file states, by name."""
        return {name: Policy(preset.kind, preset.value, name) for name, preset in self.routing.presets.items()}


def load(path: Path | None = None, *, host: str | None = None, port: int | None = None) -> Settings:
    """Read and judge one file.

    Parameters
    ----------
    path : Path or None
        The TOML file; None reads the demo config that comes with the program.
    host, port : str, int, optional
        Stand in the place of the file's.

    Returns
    -------
    Settings
        Relative paths in it are relative to the file's folder, the demo's to the working directory.

    Raises
    ------
    SettingsError
        With one line for everything wrong.
    KeysRequired
        It would listen beyond loopback with no key to ask for.
    """
    source = DEMO if path is None else path
    try:
        raw = tomllib.loads(source.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise refused(source, [f"cannot be read: {error}"]) from error
    problems: list[str] = []
    settings = tables.read(Settings, raw, "", problems)
    if settings is None:
        raise refused(source, problems)
    root = Path.cwd() if path is None else source.resolve().parent
    server = settings.server
    server = replace(server, host=host or server.host, port=server.port if port is None else port)
    settings = replace(settings, server=server, source=source, root=root)
    if problems := _contradictions(settings):
        raise refused(source, problems)
    if not is_loopback(server.host) and not settings.keys:
        raise KeysRequired(
            f"server.host = {server.host!r} is reachable from other machines, so [[keys]] must name at least "
            "one key: make one with `turnout key new`, or listen on 127.0.0.1"
        )
    return settings


def credentials(settings: Settings) -> Mapping[str, str]:
    """Read the providers' API keys out of the environment.

    Returns
    -------
    Mapping[str, str]
        Provider name to key, for the providers that name a variable.

    Raises
    ------
    SettingsError
        A variable that a provider names is not set; says which.
    """
    found: dict[str, str] = {}
    problems: list[str] = []
    for i, provider in enumerate(settings.providers):
        variable = provider.key_variable()
        if not variable:
            continue
        key = os.environ.get(variable, "").strip()
        if key:
            found[provider.name] = key
        else:
            problems.append(
                f"providers.{i}.api_key_env: the environment variable {variable} is not set "
                f"(the API key of provider {provider.name!r})"
            )
    if problems:
        raise refused(settings.source, problems)
    return found


def state_secret(settings: Settings) -> bytes | None:
    """Read the secret that seals reasoning state out of the environment; None where none is named.

    Raises
    ------
    SettingsError
        The variable is not set, or holds fewer than 16 characters.
    """
    variable = settings.server.state_secret_env
    if variable is None:
        return None
    secret = os.environ.get(variable, "").strip()
    if len(secret) < 16:
        raise refused(
            settings.source,
            [f"server.state_secret_env: expected at least 16 characters in the environment variable {variable}"],
        )
    return secret.encode()


def client_key(variable: str) -> str:
    """Read the key that a command shows a gateway out of the environment.

    Raises
    ------
    SettingsError
        The variable is not set; names it.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        raise SettingsError(f"--key-env: the environment variable {variable} is not set (a key of the gateway)")
    return key


def reference() -> tuple[tables.Row, ...]:
    """Return every key with default, unit and help: the table that ``turnout settings`` prints."""
    return tuple(tables.described(Settings))


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach an address; other names than localhost count as reachable."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def refused(source: Path, problems: list[str]) -> SettingsError:
    """Make the error that lists everything wrong with a file, one line each, with its place where that is found."""
    try:
        lines = lines_of(source.read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        lines = {}
    return SettingsError("\n  ".join((f"{source} cannot be used:", *(located(problem, lines) for problem in problems))))


def _contradictions(settings: Settings) -> list[str]:
    """Say what single keys cannot: names that clash or lead nowhere, prices cut in half."""
    problems: list[str] = []
    providers = {provider.name for provider in settings.providers}
    for i, provider in enumerate(settings.providers):
        problems.extend(f"providers.{i}{problem}" for problem in provider.contradictions())
    embeds = {candidate.name: candidate.embeddings for candidate in settings.candidates}
    for i, candidate in enumerate(settings.candidates):
        at = f"candidates.{i}"
        if is_auto(candidate.name) or candidate.name.startswith(SCENARIO):
            problems.append(f"{at}.name = {candidate.name!r}: expected a name other than auto, auto:… and scenario:…")
        if (candidate.input_usd_per_mtok is None) != (candidate.output_usd_per_mtok is None):
            problems.append(f"{at}: input_usd_per_mtok and output_usd_per_mtok are given together or not at all")
        if not candidate.deployments:
            problems.append(f"{at}.deployments = []: expected at least one {{provider, model}}")
        pairs = [(deployment.provider, deployment.model) for deployment in candidate.deployments]
        problems.extend(
            f"{at}.deployments.{j}: expected a provider and model not used before"
            for j, pair in enumerate(pairs)
            if pair in pairs[:j]
        )
        problems.extend(
            f"{at}.deployments.{j}.provider = {deployment.provider!r}: expected the name of a provider "
            f"({', '.join(sorted(providers)) or 'there is none'})"
            for j, deployment in enumerate(candidate.deployments)
            if deployment.provider not in providers
        )
        problems.extend(
            f"{at}.failover: {name!r} is not another candidate of the same kind"
            for name in candidate.failover
            if name == candidate.name or embeds.get(name) is not candidate.embeddings
        )
    for table, names in (
        ("providers", [provider.name for provider in settings.providers]),
        ("candidates", [candidate.name for candidate in settings.candidates]),
        ("keys", [key.name for key in settings.keys]),
    ):
        problems.extend(
            f"{table}.{i}.name = {name!r}: expected a name not used before"
            for i, name in enumerate(names)
            if name in names[:i]
        )
    for alias, meant in settings.aliases.items():
        at = f"aliases.{alias!r} = {meant!r}"
        if alias in embeds or is_auto(alias) or alias.startswith(SCENARIO):
            problems.append(f"{at}: this name means something already")
        elif meant not in embeds and not is_auto(meant) and not meant.startswith(SCENARIO):
            problems.append(f"{at}: expected auto, auto:PRESET, scenario:NAME or the name of a candidate")
    reference = settings.routing.reference
    if reference is not None and embeds.get(reference) is not False:
        problems.append(f"routing.reference = {reference!r}: expected the name of a candidate that answers")
    if all(candidate.embeddings for candidate in settings.candidates):
        problems.append("candidates: expected at least one [[candidates]] table that answers")
    for name, policy in settings.policies().items():
        try:
            check_policy(policy)
        except InvalidPolicy as error:
            problems.append(f"routing.presets.{name}: {error}")
        if not tables.is_name(name):
            problems.append(f"routing.presets.{name!r}: expected {tables.NAME_EXPECTED}")
    problems += [f"routing{problem}" for problem in settings.routing.contradictions()]
    hashes = [key.sha256 for key in settings.keys]
    problems.extend(
        f"keys.{i}.sha256: keys.{hashes.index(digest)} has the same; expected a key of its own"
        for i, digest in enumerate(hashes)
        if digest in hashes[:i]
    )
    demands = {f"keys.{i}": key.demand() for i, key in enumerate(settings.keys)}
    return problems + misled(
        settings.providers,
        settings.candidates,
        settings.scenarios,
        settings.rules,
        demands,
        settings.aliases,
        settings.keys,
    )
