"""Problems to think through: orderings, tables, short programs.

As in ``quantities``, the level from 1 to 5 sets the number of steps and the size.

Entry point: ``logic_puzzle`` and its neighbours, gathered in ``sample.KINDS``.
"""

from __future__ import annotations

import itertools
from random import Random

from routing_data.sample.instance import Instance

_NAMES = (
    "Ada", "Bruno", "Clara", "Dario", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kira", "Leon",
    "Mira", "Noel", "Olga", "Paul", "Rosa", "Sven", "Tara", "Yuri",
)  # fmt: skip
_GOODS = (
    "apples", "bolts", "chairs", "drums", "envelopes", "filters", "gloves", "hats", "inks", "jars", "kites",
    "lamps",
)  # fmt: skip


def logic_puzzle(rng: Random, level: int) -> Instance:
    """Make a riddle about who is taller than whom.

    Parameters
    ----------
    rng : Random
        Where chance comes from.
    level : int
        1 to 5: 3 to 7 people.

    Returns
    -------
    Instance
        The answer is a name.
    """
    people = rng.sample(_NAMES, level + 2)
    clues = [
        f"{high} is taller than {low}" if rng.random() < 0.5 else f"{low} is shorter than {high}"
        for high, low in itertools.pairwise(people)
    ]
    rng.shuffle(clues)
    place = rng.randrange(len(people)) if level > 1 else 0
    rank = (
        "tallest",
        "second tallest",
        "third tallest",
        "fourth tallest",
        "fifth tallest",
        "sixth tallest",
        "shortest",
    )
    asked = "shortest" if place == len(people) - 1 else rank[place]
    told = ". ".join(clues)
    return Instance(
        (
            f"{told}. Who is the {asked}?",
            f"Consider these facts. {told}. Name the {asked} of the {len(people)} people.",
            f"{len(people)} friends compare their heights. {told}. Which of them is the {asked}?",
        ),
        people[place],
    )


def table_lookup(rng: Random, level: int) -> Instance:
    """Make a small table and a question about it.

    Parameters
    ----------
    rng : Random
        Where chance comes from.
    level : int
        1 to 5: 3 to 11 rows; look-up, difference, sum, filtered sum, largest product.

    Returns
    -------
    Instance
        The answer is an integer, or an article at level 5.
    """
    goods = rng.sample(_GOODS, 1 + 2 * level)
    stock = {name: rng.randrange(10, 60 * level) for name in goods}
    price = {name: rng.randrange(2, 30) for name in goods}
    table = "\n".join(["article | stock | price", *(f"{name} | {stock[name]} | {price[name]}" for name in goods)])
    one, two = rng.sample(goods, 2)
    if level == 1:
        question, answer = f"How many {one} are in stock?", str(stock[one])
    elif level == 2:
        question = f"What is the absolute difference between the stock of {one} and of {two}?"
        answer = str(abs(stock[one] - stock[two]))
    elif level == 3:
        question, answer = "What is the total stock of all articles?", str(sum(stock.values()))
    elif level == 4:
        limit = sorted(price.values())[len(goods) // 2]
        question = f"What is the total stock of the articles whose price is at least {limit}?"
        answer = str(sum(stock[name] for name in goods if price[name] >= limit))
    else:
        worth = {name: stock[name] * price[name] for name in goods}
        question = "Which article has the greatest stock multiplied by price (the first, if several)?"
        answer = max(goods, key=lambda name: worth[name])
    return Instance(
        (
            f"{table}\n\n{question}",
            f"Use the table below. {question}\n\n{table}",
            f"Our warehouse list:\n{table}\n{question} Just the answer, please.",
        ),
        answer,
    )


def code_tracing(rng: Random, level: int) -> Instance:
    """Make a short Python program and ask what it prints.

    Parameters
    ----------
    rng : Random
        Where chance comes from.
    level : int
        1 to 5: an assignment, a condition, a loop, a loop with a condition, two nested loops.

    Returns
    -------
    Instance
        The answer is an integer.
    """
    a, b, c, d = (rng.randrange(2, 6 + 2 * level) for _ in range(4))
    if level == 1:
        program, answer = f"x = {a}\ny = x * {b} + {c}\nprint(y)", a * b + c
    elif level == 2:
        program = f"x = {a} * {b}\nif x % 2 == 0:\n    x = x + {c}\nelse:\n    x = x - {d}\nprint(x)"
        answer = a * b + c if a * b % 2 == 0 else a * b - d
    elif level == 3:
        program = f"total = {a}\nfor i in range({b}):\n    total += i * {c}\nprint(total)"
        answer = a + sum(i * c for i in range(b))
    elif level == 4:
        program = (
            f"total = {a}\nfor i in range(1, {b + 6}):\n    if i % {c % 3 + 2} == 0:\n        total += i * {d}\n"
            f"    else:\n        total -= i\nprint(total)"
        )
        answer = a + sum(i * d if i % (c % 3 + 2) == 0 else -i for i in range(1, b + 6))
    else:
        loops = f"for i in range({a}):\n    for j in range(i, {b + 3}):\n        if (i + j) % {c % 3 + 2} != 1:\n"
        fill = f"            grid.append(i * j + {d})\n"
        program = (
            f"grid = []\n{loops}{fill}while len(grid) > 1 and grid[-1] > grid[0]:\n    grid.pop()\nprint(sum(grid))"
        )
        grid = [i * j + d for i in range(a) for j in range(i, b + 3) if (i + j) % (c % 3 + 2) != 1]
        while len(grid) > 1 and grid[-1] > grid[0]:
            grid.pop()
        answer = sum(grid)
    return Instance(
        (
            f"What does this Python program print?\n\n```python\n{program}\n```",
            f"Trace the code and state its output.\n\n{program}",
            f"```python\n{program}\n```\nWithout running it, give the printed value.",
        ),
        str(answer),
    )
