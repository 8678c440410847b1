"""What it saves to price a switch inside a conversation, against switching freely and against never switching.

Run with ``python benchmarks/conversations.py --data DIR [--seeds 5] [--conversations 300]``. No public data holds
conversations with the outcome of every candidate at every turn, so they are **constructed**: chains of held-out
prompts with the real outcome and the real token counts of every candidate, as if an answer depended on its prompt
alone. History grows by what was really asked and answered; each provider keeps what it read for five minutes; pauses
are drawn. One bundle is trained per seed; presets come from its validation rows. Seeds begin at 1: the rule of the
router was picked after a look at seed 0.

Kinds of conversation: ``chat`` opens with 300 tokens of instructions, ``document`` with 8,000 more, ``agent`` with
12,000 of instructions and tools, and each of its human turns is followed by three to ten calls of tools.

Ways of choosing at one setting of a dial differ in cost and in quality, so they are compared at equal quality: the dial
is swept, and of each way the cost is read off the hull of its points, at 95, 97 and 99 % of the quality of the best
single candidate. That is the candidate that answers conversations of validation rows best when it answers all of them
alone; its quality and its cost are those of doing the same on the conversations of the test rows. The hull is one of
test rows for every way alike: nobody knows beforehand which stop of the dial reaches a level. Prints tables and writes
``benchmarks/results/conversations_NAME.json``.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import exp
from pathlib import Path
from time import perf_counter

import click
import numpy as np

from router.domain import Policy, Price
from router.history import History, effective_costs_usd, n_requests_bound, prefixes
from router.policy import order
from router.pricing import Usage, charge_usd, expected_costs_usd

CACHE_LIFE_S = 300.0
LEAST_CACHED_TOKENS = 1_024
#: Price of reading a cache and of writing to it, as shares of the price of input.
CACHE_PRICES = ((0.1, 1.25), (0.25, 1.25), (0.5, 1.25), (0.1, 1.0), (0.25, 1.0), (0.5, 1.0))
KINDS = {"chat": 300, "document": 8_300, "agent": 12_000}
PRESETS = ("quality", "balanced", "price")
LEVELS = (0.95, 0.97, 0.99)
#: Stops of the dial, in USD per unit of quality: from the cheapest candidate to the best predicted, whatever it costs.
STOPS = np.geomspace(1e-3, 1e2, 17)
#: Mean number of human turns, and the chance that the next is of the same kind of task.
MEAN_TURNS, STAY = 6.0, 0.8
TOOL_RESULT_TOKENS, TOOL_CALL_TOKENS = (100, 1_500), (40, 160)


@dataclass(frozen=True, slots=True)
class Call:
    """One request of a conversation: a human's (``row`` is its prompt), or the result of a tool."""

    row: int
    is_human: bool
    n_new_tokens: int
    n_output_tokens: int  # of a tool call; a human's request has its own per candidate
    pause_s: float


@dataclass(frozen=True, slots=True)
class World:
    """Held-out rows: what is predicted, and what happened."""

    names: tuple[str, ...]
    prices: list[Price]
    tasks: Sequence[str]
    quality: list[list[float]]
    predicted: list[list[float]]
    output_tokens: list[list[float]]
    predicted_output: list[list[float]]
    input_tokens: list[float]
    predicted_input: list[list[float]]


def conversations(world: World, kind: str, n: int, rng: random.Random) -> list[list[Call]]:
    """Construct n conversations."""
    of_task: dict[str, list[int]] = {}
    for i, task in enumerate(world.tasks):
        of_task.setdefault(task, []).append(i)
    tasks = list(world.tasks)  # drawn as often as it occurs
    made = []
    for _ in range(n):
        task, calls = rng.choice(tasks), []
        while True:
            row = rng.choice(of_task[task])
            opening = 0 if calls else KINDS[kind]
            pause_s = exp(rng.gauss(3.8, 1.2))
            calls.append(Call(row, True, opening + int(world.input_tokens[row]), 0, pause_s))
            for _ in range(rng.randint(3, 10) if kind == "agent" else 0):
                calls.append(Call(row, False, rng.randint(*TOOL_RESULT_TOKENS), rng.randint(*TOOL_CALL_TOKENS), 5.0))
            if rng.random() < 1 / MEAN_TURNS:
                break
            if rng.random() > STAY:
                task = rng.choice(tasks)
        made.append(calls)
    return made


@dataclass(slots=True)
class Spent:
    """What one way of choosing came to, over all conversations."""

    usd: list[float]
    quality: list[float]
    n_switches: int = 0
    n_turns: int = 0


#: (conversation, number of the call) -> requests over which a switch is spread.
Bound = Callable[[list[Call], int], float]


def _n_human(calls: list[Call]) -> int:
    return sum(call.is_human for call in calls)


#: The rule of the router, and what else might be assumed of the requests to come.
PRICED: dict[str, Bound] = {
    "priced": lambda calls, i: n_requests_bound(i, _n_human(calls[:i])),
    "priced over 1 request": lambda calls, i: 1,
    "priced over as many as so far": lambda calls, i: max(1, min(i, 8)),
    "priced over all to come": lambda calls, i: len(calls) - i,
}
MAIN = ("free", "stick", "priced")
#: Somebody who routes on what stands last in a request decides anew at every result of a tool.
BREAKING = "free, also at tool results"


#: A policy that is never asked.
UNASKED = Policy("willingness_to_pay_usd", 0.0)


def play(
    world: World, prices: list[Price], chains: list[list[Call]], policy: Policy, way: str, alone: int | None = None
) -> Spent:
    """Let one way of choosing, or one candidate ``alone``, answer all conversations."""
    spent, bound = Spent([], []), PRICED.get(way)
    names, n = world.names, len(world.names)
    anchor = names.index(policy.anchor) if policy.anchor in names else None
    rates, allowed = [0.25] * n, [True] * n
    rng = random.Random(0)
    for calls in chains:
        usd, quality, tokens, now = 0.0, 0.0, 0, 0.0
        caches: dict[int, tuple[int, float]] = {}
        incumbent: int | None = None
        for i, call in enumerate(calls):
            now += call.pause_s
            warm = {j: n_tokens for j, (n_tokens, at) in caches.items() if now - at <= CACHE_LIFE_S}
            # What the result of a tool reads like is unknown: like some prompt or other.
            row = call.row if call.is_human else rng.randrange(len(world.tasks))
            if alone is not None:
                chosen = alone
            elif incumbent is not None and (way == "stick" or not (call.is_human or way == BREAKING)):
                chosen = incumbent
            else:
                before = tokens + call.n_new_tokens - (world.input_tokens[row] if call.is_human else 0)
                given = [before + (x if call.is_human else 0) for x in world.predicted_input[row]]
                cost = expected_costs_usd(prices, given, world.predicted_output[row])
                if bound is not None and incumbent is not None and warm:
                    kept = {names[j]: n_tokens for j, n_tokens in warm.items()}
                    history = History(names[incumbent], False, kept, bound(calls, i), is_marked=True)
                    cost = effective_costs_usd(history, prices, cost, prefixes(history, names, rates, given))
                chosen = order(world.predicted[row], cost, policy, allowed=allowed, latency_s=cost, anchor=anchor)[0]
            tokens += call.n_new_tokens
            read = warm.get(chosen, 0)
            is_kept = tokens >= LEAST_CACHED_TOKENS
            output = int(world.output_tokens[call.row][chosen]) if call.is_human else call.n_output_tokens
            usd += charge_usd(Usage(tokens, output, read, tokens - read if is_kept else 0), prices[chosen])
            if is_kept:
                caches[chosen] = (tokens, now)
            tokens += output
            spent.n_switches += incumbent is not None and chosen != incumbent
            incumbent = chosen
            if call.is_human:
                quality += world.quality[call.row][chosen]
                spent.n_turns += 1
        spent.usd.append(usd)
        spent.quality.append(quality)
    return spent


def cached(prices: list[Price], read: float, write: float) -> list[Price]:
    """Give candidates prices of caching; writing at the price of input has none of its own."""
    return [
        replace(
            p,
            cache_read_usd_per_mtok=read * p.input_usd_per_mtok,
            cache_write_usd_per_mtok=None if write == 1 else write * p.input_usd_per_mtok,
        )
        for p in prices
    ]


def worlds_of(data: Path, seed: int, config: Path | None) -> tuple[World, World, dict[str, Policy]]:
    """Train on one split; return its validation rows, its test rows and its presets.

    Validation rows are the validation and the calibration part together, as where presets are chosen.
    """
    from router import Router
    from routing_data import split
    from training.pipeline import load, train
    from training.settings import read_settings

    settings = replace(read_settings(config), seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        trained = train([data], Path(folder) / "bundle" / str(seed), settings)
        router = Router.load(trained.directory)
    whole = load([data], settings.candidates)
    parts = split(whole.groups, asdict(settings.split), settings.seed)
    known = np.isfinite(whole.quality).all(axis=1) & np.isfinite(whole.output_tokens).all(axis=1)
    names = tuple(c.name for c in router.candidates)
    assert names == whole.candidates

    def world(*of: str) -> World:
        table = whole.select(np.flatnonzero(np.isin(parts, of) & known))
        said = router.predict(table.prompts)
        return World(
            names,
            [c.price for c in router.candidates],
            table.tasks,
            table.quality.astype(float).tolist(),
            said.quality.astype(float).tolist(),
            table.output_tokens.tolist(),
            said.output_tokens.astype(float).tolist(),
            table.input_tokens[:, 0].tolist(),
            said.input_tokens.astype(float).tolist(),
        )

    return world("validation", "calibration"), world("test"), dict(router.presets)


def chains_of(world: World, n: int, seed: str) -> dict[str, list[list[Call]]]:
    """Construct n conversations of every kind, half as many with an agent, which are much longer."""
    return {
        kind: conversations(world, kind, n if kind != "agent" else n // 2, random.Random(f"{seed} {kind}"))
        for kind in KINDS
    }


def best_single(world: World, n: int, seed: int) -> int:
    """Return the column of the candidate that alone answers conversations of every kind best; the cheaper of equals."""
    of_kind = chains_of(world, n, f"{seed} validation")

    def worth(j: int) -> tuple[float, float]:
        spent = [play(world, world.prices, chains, UNASKED, "alone", j) for chains in of_kind.values()]
        return sum(sum(of.quality) for of in spent), -sum(sum(of.usd) for of in spent)

    return max(range(len(world.names)), key=worth)


def figures(validation: World, world: World, policies: dict[str, Policy], n: int, seed: int) -> list[dict]:
    """Play every kind of conversation at every price of caching."""
    found = []
    single = best_single(validation, n, seed)
    for kind, chains in chains_of(world, n, str(seed)).items():
        n_turns = sum(map(_n_human, chains))
        for read, write in CACHE_PRICES:
            prices = cached(world.prices, read, write)
            is_first = (read, write) == CACHE_PRICES[0]
            ways = (*MAIN, *(way for way in PRICED if way != "priced" and is_first))
            if kind == "agent" and is_first:
                ways = (*ways, BREAKING)

            def told(policy: Policy, way: str, alone=None, prices=prices, n_turns=n_turns, chains=chains) -> dict:
                spent = play(world, prices, chains, policy, way, alone)
                return {
                    "usd_per_turn": sum(spent.usd) / n_turns,
                    "quality": sum(spent.quality) / n_turns,
                    "switches_per_turn": spent.n_switches / n_turns,
                    "usd": spent.usd,
                }

            swept = {way: [told(Policy("willingness_to_pay_usd", float(stop)), way) for stop in STOPS] for way in ways}
            alone = told(UNASKED, "alone", single)
            for level in LEVELS:
                usd = {way: at_quality(points, level * alone["quality"]) for way, points in swept.items()}
                found.append(
                    {
                        "seed": seed, "kind": kind, "read": read, "write": write, "level": level,
                        "n_conversations": len(chains), "n_human_turns": n_turns, "usd_per_turn": usd,
                        "best_single": world.names[single], "best_single_quality": alone["quality"],
                        "best_single_usd_per_turn": alone["usd_per_turn"],
                        "saving_vs_best_single": {w: 1 - u / alone["usd_per_turn"] for w, u in usd.items()},
                    }
                )  # fmt: skip
            for preset in PRESETS:
                played = {way: told(policies[preset], way) for way in MAIN}
                # In hindsight the cheapest of the three, conversation by conversation: at its own quality.
                cheapest = np.min([played[way]["usd"] for way in MAIN], axis=0).sum() / n_turns
                for row in played.values():
                    del row["usd"]
                found.append(
                    {
                        "seed": seed, "kind": kind, "read": read, "write": write, "preset": preset,
                        "policy": policies[preset].kind, "value": policies[preset].value, "ways": played,
                        "usd_per_turn_cheapest_of_three": float(cheapest),
                    }
                )  # fmt: skip
    return found


def at_quality(points: list[dict], quality: float) -> float:
    """Read the cost of a quality off the hull of some points; NaN where none of them reaches it."""
    from training.metrics import hull

    usd, reached = hull(np.array([p["usd_per_turn"] for p in points]), np.array([p["quality"] for p in points]))
    return float(np.interp(quality, reached, usd)) if quality <= reached.max() else float("nan")


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--config", type=click.Path(path_type=Path))
@click.option("--seeds", default=5, show_default=True, help="How many, from 1.")
@click.option("--conversations", "n", default=300, show_default=True, help="Of each kind; half as many with an agent.")
@click.option("--results", type=click.Path(path_type=Path), default=Path(__file__).parent / "results")
def main(data: Path, config: Path | None, seeds: int, n: int, results: Path) -> None:
    """Train, construct, play, count."""
    from training.pipeline import finite

    began, rows = perf_counter(), []
    for seed in range(1, seeds + 1):
        rows += figures(*worlds_of(data, seed, config), n, seed)
        click.echo(f"seed {seed} done after {perf_counter() - began:.0f} s")
    levels = [row for row in rows if "level" in row]
    document = {
        "data": data.name,
        "conversations": "constructed: chains of held-out prompts with real outcomes and real token counts",
        "seeds": list(range(1, seeds + 1)),
        "cache_life_s": CACHE_LIFE_S,
        "mean_human_turns": MEAN_TURNS,
        "share_same_task": STAY,
        "best_single": {str(row["seed"]): row["best_single"] for row in levels},
        "equal_quality": equal_quality(levels),
        "presets": presets([row for row in rows if "preset" in row]),
    }
    results.mkdir(parents=True, exist_ok=True)
    (results / f"conversations_{data.name}.json").write_text(json.dumps(finite(document), indent=1) + "\n")
    show(document)


def equal_quality(rows: list[dict]) -> list[dict]:
    """Return, per kind, price and level, what each way costs and saves against others of the same seed, over seeds."""
    cases: dict[tuple, list[dict]] = {}
    for row in rows:
        cases.setdefault((row["kind"], row["read"], row["write"], row["level"]), []).append(row)
    found = []
    for (kind, read, write, level), same in cases.items():
        ways = {}
        for way in same[0]["usd_per_turn"]:
            usd = [row["usd_per_turn"][way] for row in same]
            ways[way] = {
                "usd_per_turn": spread(usd),
                "n_seeds_reached": int(np.isfinite(usd).sum()),
                "saving_vs_free": spread(
                    [1 - u / row["usd_per_turn"]["free"] for u, row in zip(usd, same, strict=True)]
                ),
                "saving_vs_stick": spread(
                    [1 - u / row["usd_per_turn"]["stick"] for u, row in zip(usd, same, strict=True)]
                ),
                "saving_vs_best_single": spread([row["saving_vs_best_single"][way] for row in same]),
            }
        n = sum(row["n_conversations"] for row in same)
        found.append(
            {
                "kind": kind, "read": read, "write": write, "level": level, "n_conversations": n,
                "best_single_quality": spread([row["best_single_quality"] for row in same]),
                "best_single_usd_per_turn": spread([row["best_single_usd_per_turn"] for row in same]),
                "ways": ways,
            }
        )  # fmt: skip
    return found


def presets(rows: list[dict]) -> list[dict]:
    """Return, per kind, price and preset, what each way comes to over seeds, each at its own quality."""
    cases: dict[tuple, list[dict]] = {}
    for row in rows:
        cases.setdefault((row["kind"], row["read"], row["write"], row["preset"]), []).append(row)
    return [
        {
            "kind": kind, "read": read, "write": write, "preset": preset,
            "policies": sorted({row["policy"] for row in same}),
            "ways": {
                way: {key: spread([row["ways"][way][key] for row in same]) for key in same[0]["ways"][way]}
                for way in MAIN
            },
            "usd_per_turn_cheapest_of_three": spread([row["usd_per_turn_cheapest_of_three"] for row in same]),
        }
        for (kind, read, write, preset), same in cases.items()
    ]  # fmt: skip


def spread(values: list[float]) -> dict[str, float] | None:
    """Return mean, least and most of the seeds that have a value; None where none has."""
    known = [v for v in values if np.isfinite(v)]
    return {"mean": float(np.mean(known)), "least": min(known), "most": max(known)} if known else None


def show(document: dict) -> None:
    """Print."""
    cases = {(c["kind"], c["read"], c["write"], c["level"]): c["ways"] for c in document["equal_quality"]}
    n_seeds = len(document["seeds"])

    def share(ways: dict, way: str, other: str) -> str:
        value = ways[way][f"saving_vs_{other}"]
        if value is None:
            return f"{'not reached':>20}"
        n = min(ways[way]["n_seeds_reached"], ways.get(other, ways[way])["n_seeds_reached"])
        of = "" if n == n_seeds else f" [{n}]"
        return f"{value['mean']:4.0%} ({value['least']:.0%} to {value['most']:.0%}){of}".rjust(20)

    click.echo("\nConversations are CONSTRUCTED: chains of held-out prompts with real outcomes and token counts.")
    click.echo(
        f"What pricing a switch saves at equal quality: mean (least to most) of {n_seeds} seeds; [n]: of n seeds,"
    )
    click.echo("where one of the two does not reach the quality on the others.")
    for level in LEVELS:
        click.echo(f"\nat {level:.0%} of the quality of the best single candidate")
        click.echo(f"{'kind':9}{'read':>5}{'write':>6}{'of free':>21}{'of stick':>21}{'of best single':>21}")
        for kind in KINDS:
            for read, write in CACHE_PRICES:
                ways = cases[kind, read, write, level]
                cells = " ".join(share(ways, "priced", other) for other in ("free", "stick", "best_single"))
                click.echo(f"{kind:9}{read:5g}{write:6g} {cells}")
    read, write = CACHE_PRICES[0]
    click.echo(f"\nother rules, read at {read:g} and written at {write:g}: saved of free")
    for kind in KINDS:
        for way in cases[kind, read, write, LEVELS[0]]:
            cells = " ".join(share(cases[kind, read, write, level], way, "free") for level in LEVELS)
            click.echo(f"{kind:9}{way:31} {cells}")
    click.echo("\npresets, the same prices, mean over seeds: USD per 1,000 turns, quality, switches a turn")
    for case in document["presets"]:
        if (case["read"], case["write"]) != CACHE_PRICES[0]:
            continue
        cells = []
        for way in MAIN:
            at = {key: value["mean"] for key, value in case["ways"][way].items()}
            cells.append(f"{way} {1e3 * at['usd_per_turn']:.3f}, {at['quality']:.4f}, {at['switches_per_turn']:.2f}")
        least = 1e3 * case["usd_per_turn_cheapest_of_three"]["mean"]
        click.echo(f"  {case['kind']}, {case['preset']}: {'; '.join(cells)}; cheapest of the three {least:.3f}")


if __name__ == "__main__":
    main()
