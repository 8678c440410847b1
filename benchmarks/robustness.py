"""How much the form of a prompt moves a decision, and how far a short string can drive up the bill.

Run with ``python benchmarks/robustness.py --data DIR [--bundle models/default] [--prompts 600]``. Perturbations change
the form and keep the meaning: for each, the share of decisions that flip, and the true quality lost by it. Attacks are
universal prefixes and suffixes found by greedy random search on some prompts and scored on others: the factor by which
the mean cost of what is chosen rises. Only rows held out from the bundle's training are used. Prints a table and writes
``benchmarks/results/robustness_NAME.json``.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

_TEXT = (
    "the of and to in is that for with proof theorem integral contract statute enzyme voltage protein matrix def "
    "return assert import house clue Alice sqrt frac sum $ ^ ( ) [ ] = A. B. C. (A) (B) 1. 2. ? ! therefore hence "
    "lemma kernel Supreme Court plaintiff neuron photosynthesis derivative eigenvalue python function output dollars "
    "each how many"
)
_WORDS = _TEXT.split()
_POLITE = ("Please answer the following question. ", "I would be grateful for your help with this:\n\n")

PERTURBATIONS: dict[str, Callable[[str, random.Random], str]] = {
    "trailing spaces": lambda text, rng: re.sub("\n", "  \n", text) + "  ",
    "windows line ends": lambda text, rng: text.replace("\n", "\r\n"),
    "doubled spaces": lambda text, rng: text.replace(" ", "  "),
    "option marks (A) for A.": lambda text, rng: re.sub(r"(?m)^([A-J])\. ", r"(\1) ", text),
    "lower case": lambda text, rng: text.lower(),
    "polite prefix": lambda text, rng: rng.choice(_POLITE) + text,
    "polite suffix": lambda text, rng: text + "\n\nThank you very much!",
    "quoted as markdown": lambda text, rng: "> " + text.replace("\n", "\n> "),
    "wrapped in JSON": lambda text, rng: json.dumps({"question": text}),
    "typos, 1 % of letters": lambda text, rng: "".join(
        rng.choice("abcdefghijklmnopqrstuvwxyz") if c.isalpha() and rng.random() < 0.01 else c for c in text
    ),
}
POLICIES = ("quality", "balanced", "price", "safe", "assured")
N_TOKENS, N_ROUNDS, N_TRIES = 8, 8, 16


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--bundle", "directory", type=click.Path(path_type=Path), default=Path("models/default"))
@click.option("--prompts", default=600, show_default=True)
@click.option("--results", type=click.Path(path_type=Path), default=Path(__file__).parent / "results")
def main(data: Path, directory: Path, prompts: int, results: Path) -> None:
    """Perturb, attack, count."""
    from router.bundle import load
    from training.measure import usable
    from training.pipeline import load as load_table

    bundle = load(directory)
    table, _, _ = usable(bundle, load_table([data]))
    names = [name for name in bundle.manifest.metrics["points_of"] if name in table.candidates]
    table = table.select(candidates=names)
    keep = np.flatnonzero(np.isfinite(table.quality).all(axis=1) & np.isfinite(table.cost_usd).all(axis=1))
    table = table.select(np.random.default_rng(0).permutation(keep)[:prompts])
    world = World(bundle, table)
    document = {"data": data.name, "bundle": bundle.manifest.id, "prompts": len(table.prompts), "perturbations": {}}
    click.echo(
        f"{'perturbation':26}" + "".join(f"{p:>22}" for p in world.policies) + "\n" + " " * 26 + "flips, quality lost"
    )
    for name, change in PERTURBATIONS.items():
        rng = random.Random(0)
        entry = world.flips([change(text, rng) for text in table.prompts])
        document["perturbations"][name] = entry
        click.echo(f"{name:26}" + "".join(f"{e['flip_rate']:14.3f} {e['quality_lost']:+7.3f}" for e in entry.values()))
    document["attacks"] = {}
    for policy in world.policies:
        for place in ("prefix", "suffix"):
            found = world.attack(policy, place)
            document["attacks"][f"{policy}, {place}"] = found
            click.echo(
                f"attack on {policy}, {place}: mean cost of who is chosen × {found['cost_factor']:.2f} "
                f"({found['share_dearest_before']:.2f} to {found['share_dearest_after']:.2f} to the dearest)"
            )
    results.mkdir(parents=True, exist_ok=True)
    (results / f"robustness_{data.name}.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


class World:
    """A bundle, prompts with known outcomes, and what is chosen for them."""

    def __init__(self, bundle, table) -> None:
        self.bundle, self.table = bundle, table
        column = {c.name: (j, c) for j, c in enumerate(bundle.manifest.candidates)}
        self.pick = [column[name][0] for name in table.candidates]
        self.prices = [column[name][1].reference_price for name in table.candidates]
        self.policies = {n: p for n in POLICIES if (p := bundle.manifest.presets.get(n)) is not None}
        self.clean = self.chosen(table.prompts)

    def chosen(self, texts) -> dict[str, np.ndarray]:
        """Return the candidate chosen for each text under each policy."""
        from router.policy import choose

        quality, cost = self.predicted(texts)
        names = self.table.candidates
        anchor = {n: names.index(p.anchor) if p.anchor in names else None for n, p in self.policies.items()}
        return {n: choose(quality, cost, p, anchor=anchor[n]) for n, p in self.policies.items()}

    def predicted(self, texts) -> tuple[np.ndarray, np.ndarray]:
        """Return predicted quality and cost, each (n, m)."""
        from router.pricing import expected_cost_usd

        said = self.bundle.predict(texts)
        quality = said.quality[:, self.pick].astype(np.float64)
        return quality, expected_cost_usd(
            self.prices, said.input_tokens[:, self.pick], said.output_tokens[:, self.pick]
        )

    def flips(self, texts) -> dict[str, dict[str, float]]:
        """Compare with the clean decisions: flips, true quality lost over all prompts, and the factor of true cost."""
        found = {}
        every = np.arange(len(texts))
        for name, now in self.chosen(texts).items():
            before, flipped = self.clean[name], now != self.clean[name]
            lost = self.table.quality[every, before] - self.table.quality[every, now]
            found[name] = {
                "flip_rate": float(flipped.mean()),
                "quality_lost": float(lost.mean()),
                "cost_factor": float(
                    self.table.cost_usd[every, now].mean() / self.table.cost_usd[every, before].mean()
                ),
            }
        return found

    def attack(self, policy: str, place: str) -> dict:
        """Search a string that sends prompts to dear candidates, on the first 60 prompts; score it on the others."""
        rng = random.Random(0)
        seen, fresh = self.table.prompts[:60], self.table.prompts[60:]

        def dressed(texts, words):
            extra = " ".join(words)
            return [f"{extra}\n{t}" if place == "prefix" else f"{t}\n{extra}" for t in texts]

        typical = np.nanmean(self.table.cost_usd, axis=0)
        dearest = int(typical.argmax())

        def score(words) -> float:
            return float(typical[self.chosen(dressed(seen, words))[policy]].mean())

        words = [rng.choice(_WORDS) for _ in range(N_TOKENS)]
        best = score(words)
        for _ in range(N_ROUNDS):
            at = rng.randrange(N_TOKENS)
            for _ in range(N_TRIES):
                tried = [*words[:at], rng.choice(_WORDS), *words[at + 1 :]]
                if (value := score(tried)) > best:
                    best, words = value, tried
        before, after = (self.chosen(t)[policy] for t in (fresh, dressed(fresh, words)))
        return {
            "found": " ".join(words),
            "evaluations": N_ROUNDS * N_TRIES + 1,
            "cost_factor": float(typical[after].mean() / typical[before].mean()),
            "share_dearest_before": float((before == dearest).mean()),
            "share_dearest_after": float((after == dearest).mean()),
        }


if __name__ == "__main__":
    main()
