"""Are experiments right when they are looked at all the time, and how many units do they need? A simulation by nature.

Run with ``python benchmarks/experiments.py [--experiments 1000]``; nothing here is data of anybody. Experiments are
drawn from worlds whose truth is known and read by ``router.sequences``, the code that serving and training use, after
every 50 units. Without an effect (A/A), the share of experiments that ever claim one must not exceed alpha; beside it
stands a t-test looked at as often, and the share of experiments in which the interval of one arm's mean ever misses
it. With an effect: the share of experiments that find it within the horizon, and the median of units they needed, both
arms together. Prints tables and writes ``benchmarks/results/experiments.json``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from scipy.stats import binomtest

from router.sequences import ArmTotals, difference, interval, sample_ratio, units_needed

ALPHA, EVERY = 0.05, 50
AA_UNITS, POWER_UNITS = 20_000, 60_000
N_AT_ONCE = 50
T_QUANTILE = 1.959964
SHARES = (0.5, 0.1)


@dataclass(frozen=True)
class World:
    """How units behave; ``draw(rng, is_arm, effect)`` gives requests and sums of the metric, shaped like ``is_arm``."""

    name: str
    draw: Callable[[np.random.Generator, np.ndarray, float], tuple[np.ndarray, np.ndarray]]
    mean: float
    effects: tuple[float, ...] = ()
    is_relative: bool = False


def failures(share: float):
    def draw(rng, is_arm, effect):
        return np.ones(is_arm.shape), (rng.random(is_arm.shape) < share + effect * is_arm).astype(float)

    return draw


def cost(rng, is_arm, effect):
    """One call a unit; log-normal with sigma 1.5, mean 0.002 USD."""
    usd = 0.002 * np.exp(1.5 * rng.standard_normal(is_arm.shape) - 1.5**2 / 2)
    return np.ones(is_arm.shape), usd * (1 + effect * is_arm)


def quality(rng, is_arm, effect):
    """A score in [0, 1], mean 0.7, standard deviation 0.26."""
    mean = 0.7 + effect * is_arm
    return np.ones(is_arm.shape), rng.beta(2 * mean, 2 * (1 - mean))


def latency(rng, is_arm, effect):
    """Half a second and a Pareto tail of index 2.2, whose variance only just exists; mean 2.17 s."""
    return np.ones(is_arm.shape), (0.5 + 2 * rng.pareto(2.2, is_arm.shape)) * (1 + effect * is_arm)


def requests_of(rng, shape):
    """Return 1 to 50 requests a unit, most units few: a tenth of them send half."""
    return np.minimum(np.floor(rng.pareto(1.1, shape) + 1), 50)


def clustered_cost(rng, is_arm, effect):
    """1 to 50 calls a unit; a unit has a level of its own (log-normal, sigma 1), its calls vary by as much again."""
    n = requests_of(rng, is_arm.shape)
    own = np.exp(rng.standard_normal(is_arm.shape) - 0.5)
    shape = n / (np.e - 1)  # a sum of gammas with the mean 1 and the variance of a log-normal with sigma 1
    return n, 0.002 * own * rng.gamma(shape) * (np.e - 1) * (1 + effect * is_arm)


def clustered_failures(rng, is_arm, effect):
    """1 to 50 requests a unit; a few units fail often: beta(0.2, 3.8), mean 0.05."""
    n = requests_of(rng, is_arm.shape)
    share = rng.beta(0.2, 3.8, is_arm.shape)
    return n, rng.binomial(n.astype(int), np.minimum(share + effect * is_arm, 1)).astype(float)


def clustered_quality(rng, is_arm, effect):
    """1 to 50 scored answers a unit; each is right or wrong, and units differ: beta(2.8, 1.2), mean 0.7."""
    n = requests_of(rng, is_arm.shape)
    share = rng.beta(2.8, 1.2, is_arm.shape) + effect * is_arm
    return n, rng.binomial(n.astype(int), np.clip(share, 0, 1)).astype(float)


WORLDS = (
    World("failures 1 %", failures(0.01), 0.01, (0.01, 0.02)),
    World("failures 5 %", failures(0.05), 0.05, (0.01, 0.02)),
    World("cost, log-normal", cost, 0.002, (-0.1, -0.2, -0.3), True),
    World("quality in [0, 1]", quality, 0.7, (-0.01, -0.02, -0.05, 0.01, 0.02, 0.05)),
    World("latency, heavy tail", latency, 0.5 + 2 / 1.2, (0.1, 0.2), True),
    World("clustered cost", clustered_cost, 0.002, (-0.1, -0.2, -0.3), True),
    World("clustered failures", clustered_failures, 0.05, (0.02,)),
    World("clustered quality", clustered_quality, 0.7, (-0.02, -0.05)),
)
# Here no unit is new: 100 keys an arm are there from the first look and send on, 1 to 2,000 requests each.
GROWING = {"the same units send on, all alike": 0.0, "the same units send on, each of its own": 1.0}


def arms(world: World, rng, n_experiments: int, n_units: int, share: float, effect: float):
    """Draw experiments; return both arms' totals at every look, fields of shape (n_experiments, n_looks)."""
    is_arm = rng.random((n_experiments, n_units)) < share
    n, y = world.draw(rng, is_arm, effect)
    parts = (np.ones_like(n), n, y, n * n, y * y, n * y)
    own = [
        (
            (part * is_arm).reshape(n_experiments, -1, EVERY).sum(axis=2),
            part.reshape(n_experiments, -1, EVERY).sum(axis=2),
        )
        for part in parts
    ]
    arm = ArmTotals(*(one.cumsum(axis=1) for one, _ in own))
    control = ArmTotals(*((both - one).cumsum(axis=1) for one, both in own))
    return arm, control


def growing_arms(deviation: float, rng, n_experiments: int):
    """Return the totals of 100 units an arm that only send more, at 60 looks."""
    steps = np.unique(np.geomspace(1, 2_000, 60).astype(int))
    blocks = np.diff(steps, prepend=0)
    shape = (n_experiments, 2, 100)
    own = 3 + deviation * rng.standard_normal((*shape, 1))
    y = np.cumsum(own * blocks + np.sqrt(blocks) * rng.standard_normal((*shape, len(steps))), axis=3)
    n = np.broadcast_to(steps.astype(float), y.shape)
    return tuple(ArmTotals.of(n[:, k].swapaxes(1, 2), y[:, k].swapaxes(1, 2)) for k in (0, 1))


def false_claims(draw, mean: float, n_experiments: int) -> dict:
    """Count A/A experiments that ever claim a difference; ``draw(rng, n)`` makes n of them."""
    claimed, naive, missed = 0, 0, 0
    for chunk in range(n_experiments // N_AT_ONCE):
        arm, control = draw(np.random.default_rng([1, chunk]), N_AT_ONCE)
        claimed += int(difference(arm, control, ALPHA).excludes(0).any(axis=1).sum())
        missed += int(interval(control, ALPHA).excludes(mean).any(axis=1).sum())
        # The t-test waits as long as we do before it speaks; waiting less would only make it worse.
        with np.errstate(invalid="ignore"):
            crossed = np.abs(arm.mean - control.mean) > T_QUANTILE * np.sqrt(arm.variance + control.variance)
        naive += int((crossed & difference(arm, control, ALPHA).is_said).any(axis=1).sum())
    return {
        "false_positive_share": rate(claimed, n_experiments),
        "t_test_false_positive_share": rate(naive, n_experiments),
        "one_arm_missed_share": rate(missed, n_experiments),
    }


def found(world: World, effect: float, n_experiments: int) -> dict:
    """Return how often and how soon an effect is found, and what the plan said."""
    first = []
    for chunk in range(n_experiments // N_AT_ONCE):
        arm, control = arms(world, np.random.default_rng([2, chunk]), N_AT_ONCE, POWER_UNITS, 0.5, effect)
        said = difference(arm, control, ALPHA)
        right_way = said.excludes(0) & (np.sign(said.value) == np.sign(effect))
        first.append(np.where(right_way.any(axis=1), (right_way.argmax(axis=1) + 1.0) * EVERY, np.inf))
    units = np.concatenate(first)
    n, y = world.draw(np.random.default_rng(3), np.zeros(20_000, bool), 0.0)
    difference_wanted = effect * world.mean if world.is_relative else effect
    median, most = (float(np.quantile(units, q, method="higher")) for q in (0.5, 0.8))
    return {
        "effect": effect,
        "is_relative": world.is_relative,
        "found_share": rate(int(np.isfinite(units).sum()), len(units)),
        "median_units": median if np.isfinite(median) else None,
        "units_for_80_percent": most if np.isfinite(most) else None,
        "planned_units_for_80_percent": units_needed(ArmTotals.of(n, y), difference_wanted, alpha=ALPHA),
    }


def ratio_check(n_experiments: int) -> list[dict]:
    """Look at the sample-ratio test after every 50 units."""
    rows = []
    for meant, true in (((0.5, 0.5), 0.5), ((0.1, 0.9), 0.1), ((0.5, 0.5), 0.52), ((0.5, 0.5), 0.55)):
        first = []
        for seed in range(n_experiments):
            at = (np.random.default_rng([4, seed]).random(AA_UNITS) < true).cumsum()[EVERY - 1 :: EVERY]
            alarm = np.inf
            for look, n in enumerate(at.tolist(), 1):
                if sample_ratio((n, look * EVERY - n), meant).p_value < 0.001:
                    alarm = look * EVERY
                    break
            first.append(alarm)
        median = float(np.median(first))
        rows.append(
            {
                "meant": meant[0],
                "true": true,
                "alarm_share": rate(int(np.isfinite(first).sum()), n_experiments),
                "median_units": median if np.isfinite(median) else None,
            }
        )
    return rows


def rate(k: int, n: int) -> dict:
    """Return a share with its exact 95 % interval."""
    bounds = binomtest(k, n).proportion_ci(0.95)
    return {"value": k / n, "low": float(bounds.low), "high": float(bounds.high)}


def shown(entry: dict) -> str:
    return f"{entry['value']:.3f} ({entry['low']:.3f}–{entry['high']:.3f})"


@click.command()
@click.option("--experiments", default=1_000, show_default=True, type=click.IntRange(N_AT_ONCE), help="Per A/A world.")
@click.option("--power-experiments", default=200, show_default=True, type=click.IntRange(N_AT_ONCE))
@click.option("--results", type=click.Path(path_type=Path), default=Path(__file__).parent / "results")
def main(experiments: int, power_experiments: int, results: Path) -> None:
    """Simulate, look, count."""
    started = time.process_time()
    document: dict = {
        "what": "simulated experiments, read by router.sequences after every 50 units",
        "alpha": ALPHA,
        "experiments": experiments,
        "units": AA_UNITS,
        "power_experiments": power_experiments,
        "power_units": POWER_UNITS,
        "no_effect": [],
        "power": [],
    }
    click.echo(f"no effect: share of {experiments} experiments that ever claim one (alpha {ALPHA})")
    click.echo(f"{'world':42}{'arm':>5} {'claims':>22} {'t-test peeked at':>22} {'one arm missed':>22}")
    for world in WORLDS:
        for share in SHARES:

            def draw(rng, n, world=world, share=share):
                return arms(world, rng, n, AA_UNITS, share, 0.0)

            _report(document, world.name, share, false_claims(draw, world.mean, experiments))
    for name, deviation in GROWING.items():
        entry = false_claims(lambda rng, n, d=deviation: growing_arms(d, rng, n), 3.0, experiments)
        _report(document, name, 0.5, entry)
    click.echo(f"\neffects: found within {POWER_UNITS} units, half of them in the arm")
    click.echo(f"{'world':24}{'effect':>8} {'found':>22} {'median units':>14} {'for 80 %':>10} {'planned':>10}")
    for world in WORLDS:
        for effect in world.effects:
            entry = {"world": world.name, **found(world, effect, power_experiments)}
            document["power"].append(entry)
            median, most = (
                "more" if entry[key] is None else f"{entry[key]:,.0f}"
                for key in ("median_units", "units_for_80_percent")
            )
            size = f"{effect:+.0%}" if world.is_relative else f"{effect:+.2f}"
            planned = entry["planned_units_for_80_percent"]
            click.echo(
                f"{world.name:24}{size:>8} {shown(entry['found_share']):>22} {median:>14} {most:>10} {planned:>10,}"
            )
    document["sample_ratio"] = ratio_check(experiments // 5)
    click.echo("\nsample ratio, alarm at 0.001")
    for row in document["sample_ratio"]:
        median = "none" if row["median_units"] is None else f"{row['median_units']:,.0f}"
        click.echo(
            f"meant {row['meant']:.2f}, is {row['true']:.2f}: {shown(row['alarm_share'])}, median units {median}"
        )
    worst = max(document["no_effect"], key=lambda row: row["false_positive_share"]["value"])
    document["worst_false_positive_share"] = worst["false_positive_share"]
    document["cpu_s"] = round(time.process_time() - started, 1)
    click.echo(f"\nworst: {worst['world']}, {shown(worst['false_positive_share'])}; {document['cpu_s']} s of CPU")
    results.mkdir(parents=True, exist_ok=True)
    (results / "experiments.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def _report(document: dict, name: str, share: float, entry: dict) -> None:
    document["no_effect"].append({"world": name, "arm_share": share, **entry})
    click.echo(f"{name:42}{share:5.2f} " + " ".join(f"{shown(part):>22}" for part in entry.values()))


if __name__ == "__main__":
    main()
