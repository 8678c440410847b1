"""State: everything one request needs to know, as one frozen value.

Made whole from settings and a bundle by :func:`build`, swapped whole by :mod:`serving.reload`; a request keeps the
one it began with. It opens files (the bundle) but no connections.

Entry point: :func:`build`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from router import Candidate, Router
from router.bundle import load
from router.errors import RouterError
from serving.bundle_folder import Fingerprint, bundle_folder, fingerprint, resolved
from serving.candidate_settings import CandidateSettings, DeploymentSettings
from serving.challenger import Challenger, challenger_of
from serving.deployment import Deployment, line_of
from serving.dialects.parameters import parameters_in
from serving.errors import KeysRequired, SettingsError
from serving.exploration import ExploreRate
from serving.keys import Key, KeyRing
from serving.policy_version import policy_version
from serving.provider_settings import ProviderSettings
from serving.providers.quirks import NO_QUIRKS
from serving.reference import reference_of
from serving.references import AUTO, is_reserved
from serving.rules import Rule, compiled
from serving.scenario_settings import SCENARIO, Scenario
from serving.settings import Settings, credentials, is_loopback, refused
from serving.trial import Trial


@dataclass(frozen=True, slots=True)
class State:
    """What requests are served with.

    Parameters
    ----------
    deployments : Mapping of str to Deployment
        By their own name, in the order of the file.
    candidates : Mapping of str to Candidate
        The pool, in the order of the file, at the prices of the file or of the catalogue.
    embedders : Mapping of str to Candidate
        Those that embed text instead of answering; nothing decides between them.
    failover : Mapping of str to tuple of str
        Candidate to those that stand in for it where it was asked for by name.
    aliases : tuple of str
        The model names that ask for a decision: ``auto``, one per preset, one per scenario.
    loaded_unix_s : float
        When it was made.
    fingerprint : tuple
        Of the bundle's folder before it was loaded.
    policy_version : str
        Digest of the settings that decide: :mod:`serving.policy_version`.
    reference : str or None
        The candidate that savings are measured against.
    scenarios : Mapping of str to Scenario
    rules : tuple of Rule
        Where ``auto`` goes, in the order of the file.
    language_of : callable (text) -> str or None
        Tells languages apart, where a rule asks for them.
    explores : Mapping of str to ExploreRate
        How often is explored, by scenario, "" for requests without one; who is not in it never.
    challenger : Challenger or None
        Who decides in the shadow; None where the settings name nobody.
    trials : Mapping of str to Trial
        The experiments in force, by what they act on: auto, auto:PRESET, scenario:NAME.
    """

    settings: Settings
    router: Router
    keys: KeyRing
    candidates: Mapping[str, Candidate]
    embedders: Mapping[str, Candidate]
    deployments: Mapping[str, Deployment]
    failover: Mapping[str, tuple[str, ...]]
    aliases: tuple[str, ...]
    loaded_unix_s: float
    fingerprint: Fingerprint
    policy_version: str = ""
    reference: str | None = None
    scenarios: Mapping[str, Scenario] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    language_of: Callable[[str], str | None] = lambda text: None
    explores: Mapping[str, ExploreRate] = field(default_factory=dict)
    challenger: Challenger | None = None
    trials: Mapping[str, Trial] = field(default_factory=dict)

    @property
    def bundle_id(self) -> str:
        """Return ``name@version`` of the bundle."""
        return self.router.bundle.manifest.id

    def meant(self, model: str) -> str:
        """Return what a model name stands for: itself where it means something, else by the aliases of the file.

        An exact alias goes before a glob, of globs the first in the file. What begins as presets and scenarios do and
        names none is a mistake that no glob covers up: a scenario may be a limit.
        """
        if model in self.candidates or model in self.aliases or model in self.embedders:
            return model
        named = self.settings.aliases
        if is_reserved(model):
            return named.get(model, model)
        return named.get(model) or next((to for glob, to in named.items() if fnmatchcase(model, glob)), model)

    @property
    def everyone(self) -> Mapping[str, Candidate]:
        """Return candidates and embedders together."""
        return {**self.candidates, **self.embedders} if self.embedders else self.candidates

    def candidate(self, name: str) -> Candidate:
        """Return a candidate or an embedder by its name."""
        return self.candidates.get(name) or self.embedders[name]

    def candidate_of(self) -> dict[str, str]:
        """Return deployment name to candidate name, as the pool wants it."""
        return {name: deployment.candidate for name, deployment in self.deployments.items()}


def build(
    settings: Settings,
    emulator_url: str | None = None,
    *,
    host: str | None = None,
    is_offline: bool = False,
    before: State | None = None,
) -> State:
    """Make the state that some settings and their bundle describe.

    Parameters
    ----------
    settings : Settings
    emulator_url : str or None
        Where the built-in emulator listens; needed when a provider is emulated.
    host : str or None
        The address the process listens on already, which a reload does not change; None takes the settings'.
    is_offline : bool, default=False
        Nobody will be called: providers need neither keys nor an emulator.
    before : State or None
        The one that serves: its challenger stays where a worse one came.

    Returns
    -------
    State

    Raises
    ------
    SettingsError
        The settings name a variable, preset or bundle candidate that does not exist.
    KeysRequired
        Others can reach the address, and the settings name no key.
    BundleError
        See :func:`router.bundle.load`.
    """
    host = settings.server.host if host is None else host
    if not settings.keys and not is_loopback(host):
        raise KeysRequired(
            f"{settings.source} names no [[keys]], but the gateway listens on {host}, which other machines reach: "
            "keep a key, or restart it on 127.0.0.1"
        )
    secrets = {} if is_offline else credentials(settings)
    if is_offline:
        emulator_url = "http://127.0.0.1/v1"
    folder = resolved(settings.bundle_directory())
    seen = fingerprint(folder)
    bundle = load(bundle_folder(folder))
    known = {column.name for column in bundle.manifest.candidates}
    problems = [
        f"candidates.{i}.like = {candidate.like!r}: expected a candidate of bundle {bundle.manifest.id} "
        f"({', '.join(sorted(known))})"
        for i, candidate in enumerate(settings.candidates)
        if candidate.like is not None and candidate.like not in known
    ]
    if problems:
        raise refused(settings.source, problems)
    providers = {provider.name: provider for provider in settings.providers}
    made = {row.name: _candidate_of(row, providers) for row in settings.candidates}
    embedders = {row.name: made.pop(row.name) for row in settings.candidates if row.embeddings}
    candidates = made
    try:
        router = Router(bundle, tuple(candidates.values()), settings.policies())
    except RouterError as error:
        raise SettingsError(f"{settings.source} does not fit bundle {bundle.manifest.id}: {error}") from error
    if settings.routing.default not in router.presets:
        raise refused(
            settings.source,
            [f"routing.default = {settings.routing.default!r}: expected one of {', '.join(router.presets)}"],
        )
    if problems := list(_unknown(settings, router)):
        raise refused(settings.source, problems)
    rules = compiled(settings.rules)
    asks_for_language = any(rule.asks_for("languages") for rule in rules)
    deployments = {}
    for row in settings.candidates:
        for way in row.deployments:
            deployment = _deployment_of(row, way, providers[way.provider], secrets, emulator_url)
            deployments[deployment.name] = deployment
    return State(
        settings=settings,
        router=router,
        keys=KeyRing(
            [
                Key(
                    key.name,
                    key.sha256,
                    key.models,
                    key.project,
                    key.team,
                    key.demand(),
                    key.priority,
                    key.grades,
                    key.retention,
                    key.admin,
                )
                for key in settings.keys
            ],
            allow_anonymous=is_loopback(host),
        ),
        candidates=candidates,
        embedders=embedders,
        deployments=deployments,
        failover={row.name: row.failover for row in settings.candidates if row.failover},
        aliases=(AUTO, *(f"{AUTO}:{preset}" for preset in router.presets), *(SCENARIO + s for s in settings.scenarios)),
        loaded_unix_s=time.time(),
        fingerprint=seen,
        policy_version=policy_version(settings, candidates.values(), deployments.values(), router.presets),
        reference=reference_of(router, settings.routing.reference),
        scenarios={name: scenario.over(name, candidates) for name, scenario in settings.scenarios.items()},
        rules=rules,
        language_of=_detector_for(settings) if asks_for_language else lambda text: None,
        explores={name: rate for name, rate in _rates(settings) if rate.share},
        challenger=challenger_of(settings, candidates.values(), bundle, _challenger_of(before, settings)),
    )


def _unknown(settings: Settings, router: Router) -> Iterator[str]:
    """Say which presets and tasks of the file the bundle does not know."""
    presets = {f"{AUTO}:{preset}" for preset in router.presets}
    among = f"expected a preset of {', '.join(router.presets)}"
    names = {candidate.name for candidate in settings.candidates}
    for alias, meant in settings.aliases.items():
        if meant.startswith(f"{AUTO}:") and meant not in presets and meant not in names:
            yield f"aliases.{alias!r} = {meant!r}: {among}"
    for name, scenario in settings.scenarios.items():
        if scenario.preset is not None and scenario.preset not in router.presets:
            yield f"scenarios.{name}.preset = {scenario.preset!r}: {among}"
        if scenario.candidate is None and not any(map(scenario.admits, _predicted(settings, router))):
            yield (
                f"scenarios.{name}: its pool is empty: bundle {router.bundle.manifest.id} predicts nothing for any of "
                "its candidates; expected one that it knows, or that says whom it is like"
            )
    reference = settings.routing.reference
    known = _predicted(settings, router)
    if reference is not None and reference not in known:
        yield (
            f"routing.reference = {reference!r}: bundle {router.bundle.manifest.id} predicts nothing for it; expected "
            f"one of {', '.join(sorted(known))}"
        )
    tasks = router.bundle.manifest.tasks
    for i, rule in enumerate(settings.rules):
        if rule.scenario.startswith(f"{AUTO}:") and rule.scenario not in presets:
            yield f"rules.{i}.scenario = {rule.scenario!r}: {among}"
        for glob in rule.tasks or ():
            if not any(task == glob or fnmatchcase(task, glob) for task in tasks):
                knows = f"knows {', '.join(tasks)}" if tasks else "tells no kinds of task apart"
                yield f"rules.{i}.tasks: {glob!r} matches no kind of task; bundle {router.bundle.manifest.id} {knows}"


def challenged(state: State) -> State:
    """Return the state with the challenger that is there now; all else is the same."""
    found = challenger_of(
        state.settings, state.candidates.values(), state.router.bundle, _challenger_of(state, state.settings)
    )
    return replace(state, challenger=found)


def _challenger_of(before: State | None, settings: Settings) -> Challenger | None:
    """Return the former challenger, where it came from the same directory."""
    if before is None or before.settings.shadow_directory() != settings.shadow_directory():
        return None
    return before.challenger


def _rates(settings: Settings) -> Iterator[tuple[str, ExploreRate]]:
    routing = settings.routing
    yield "", ExploreRate(routing.explore_share, routing.explore_max_usd_per_day)
    for name, scenario in settings.scenarios.items():
        yield name, ExploreRate(scenario.explore_share, scenario.explore_max_usd_per_day)


def _predicted(settings: Settings, router: Router) -> set[str]:
    """Return the candidates that the bundle predicts for."""
    known = {column.name for column in router.bundle.manifest.candidates}
    return {one.name for one in settings.candidates if not one.embeddings and (one.like or one.name in known)}


def _detector_for(settings: Settings) -> Callable[[str], str | None]:
    """Load what tells languages apart, for the languages that rules name."""
    from serving.languages import detector, unknown_among

    problems = [
        f"rules.{i}.languages: {code!r} cannot be told: expected an ISO 639-1 code such as en or de"
        for i, rule in enumerate(settings.rules)
        for code in unknown_among(rule.languages or ())
    ]
    if problems:
        raise refused(settings.source, problems)
    return detector(code for rule in settings.rules for code in rule.languages or ())


def _candidate_of(row: CandidateSettings, providers: Mapping[str, ProviderSettings]) -> Candidate:
    """Make a candidate of its table; what the table leaves open, the price catalogue may know."""
    price, capabilities = row.price(), row.capabilities()
    if price is None or capabilities.context_window_tokens is None:
        from serving.providers.catalogue import lookup

        for way in row.deployments:
            entry = lookup(way.provider, way.model, base_url=providers[way.provider].url() or None)
            if entry is not None:
                price = price or entry.price
                window = capabilities.context_window_tokens or entry.context_window_tokens
                capabilities = replace(capabilities, context_window_tokens=window)
                break
    return Candidate(row.name, price, capabilities, row.like, row.parameters)


def _deployment_of(
    row: CandidateSettings,
    way: DeploymentSettings,
    provider: ProviderSettings,
    secrets: Mapping[str, str],
    emulator_url: str | None,
) -> Deployment:
    if provider.emulated and emulator_url is None:
        raise SettingsError(f"provider {provider.name!r} is emulated, but the emulator does not run")
    known, key, model = provider.known(), secrets.get(provider.name), way.model
    region, data_policies = way.conditions(provider)
    marks = [(b"x-turnout-candidate", row.name.encode("latin-1"))]
    if provider.emulated:
        marks.append((b"x-turnout-emulated", b"true"))
    return Deployment(
        name=f"{row.name}@{provider.name}/{model}",
        candidate=row.name,
        provider=provider.name,
        model=model,
        is_emulated=provider.emulated,
        quirks=known.quirks if known else NO_QUIRKS,
        lines={
            api.dialect: line_of(
                api.dialect,
                api.root,
                model,
                {"content-type": "application/json", **api.headers, **(api.credential(key) if key else {})},
                parameters_in(api.dialect, row.parameters, model),
            )
            for api in provider.ways(emulator_url).values()
        },
        marks=tuple(marks),
        kind=known.name if known else "",
        region=region,
        data_policies=data_policies,
    )
