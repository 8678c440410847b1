"""Problems about numbers: arithmetic, units, dates, geometry, probability.

Each function makes one problem of its kind; the level, 1 to 5, sets how many steps it takes and how
large the numbers are, so that the text of a prompt shows how hard it is.

Entry point: ``arithmetic`` and its neighbours, gathered in ``sample.KINDS``.
"""

from __future__ import annotations

from datetime import date, timedelta
from fractions import Fraction
from random import Random

from routing_data.sample.instance import Instance

_UNITS = (
    (("millimetres", 1), ("centimetres", 10), ("metres", 1_000), ("kilometres", 1_000_000)),
    (("seconds", 1), ("minutes", 60), ("hours", 3_600), ("days", 86_400)),
    (("grams", 1), ("kilograms", 1_000), ("tonnes", 1_000_000)),
    (("millilitres", 1), ("centilitres", 10), ("litres", 1_000), ("hectolitres", 100_000)),
)
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_COLOURS = ("red", "blue", "green", "white", "black")


def arithmetic(rng: Random, level: int) -> Instance:
    """Make an expression of `level` operations.

    Parameters
    ----------
    rng : Random
        Where chance comes from.
    level : int
        1 to 5.

    Returns
    -------
    Instance
        The answer is an integer.
    """
    top = (40, 100, 400, 1_000, 5_000)[level - 1]
    value = rng.randrange(5, top)
    text = str(value)
    for step in range(level):
        sign = rng.choice("+-*") if level > 1 else rng.choice("+-")
        other = rng.randrange(2, 4 + 4 * level) if sign == "*" else rng.randrange(2, top)
        value = value + other if sign == "+" else value - other if sign == "-" else value * other
        text = f"({text}) {sign} {other}" if step else f"{text} {sign} {other}"
    return Instance(
        (
            f"What is {text}? Reply with the number only.",
            f"Compute {text} and give just the result.",
            f"Evaluate the following expression exactly: {text}",
            f"I typed {text} into my calculator. Which number should it show?",
        ),
        str(value),
    )


def unit_conversion(rng: Random, level: int) -> Instance:
    """Make a sum of amounts in different units, asked for in the smallest.

    Parameters
    ----------
    rng : Random
        Where chance comes from.
    level : int
        1 to 5.

    Returns
    -------
    Instance
        The answer is an integer.
    """
    units = rng.choice(_UNITS)
    smallest = rng.randrange(0, len(units) - 1)
    total, parts = 0, []
    for _ in range(level):
        name, factor = units[rng.randrange(smallest + 1, len(units))]
        amount = rng.randrange(2, (20, 60, 150, 400, 900)[level - 1])
        total += amount * factor // units[smallest][1]
        parts.append(f"{amount} {name}")
    listed = " plus ".join(parts)
    unit = units[smallest][0]
    return Instance(
        (
            f"How many {unit} are {listed}?",
            f"Convert {listed} to {unit}. Give only the number.",
            f"Express the total of {listed} in {unit}.",
        ),
        str(total),
    )


def date_arithmetic(rng: Random, level: int) -> Instance:
    """Make a question about a date some days away.

    Parameters
    ----------
    rng : Random
        Where chance comes from.
    level : int
        1 to 5.

    Returns
    -------
    Instance
        The answer is an ISO date at levels 1, 2 and 4, a weekday at 3 and 5.
    """
    start = date(2000, 1, 1) + timedelta(days=rng.randrange(9_000))
    steps = [rng.randrange(1, (9, 30, 120, 700, 4_000)[level - 1]) for _ in range(1 + level // 3)]
    end, moves = start, []
    for number, days in enumerate(steps):
        back = number % 2 == 1
        end += timedelta(days=-days if back else days)
        moves.append(f"{days} days {'earlier' if back else 'later'}")
    told = f"{start.day} {_MONTHS[start.month - 1]} {start.year}"
    moved = ", then ".join(moves)
    if level in (3, 5):
        weekday = _WEEKDAYS[start.weekday()]
        return Instance(
            (
                f"{told} is a {weekday}. Which day of the week is it {moved}?",
                f"Starting from {weekday}, {told}, go {moved}. Name the weekday.",
            ),
            _WEEKDAYS[end.weekday()],
        )
    return Instance(
        (
            f"Which date is {moved} than {told}? Write it as YYYY-MM-DD.",
            f"Take {told} and go {moved}. Answer in the form YYYY-MM-DD.",
            f"A contract is signed on {told} and ends {moved}. Give the end date as YYYY-MM-DD.",
        ),
        end.isoformat(),
    )


def geometry(rng: Random, level: int) -> Instance:
    """Make a question about lengths, areas or surfaces.

    Parameters
    ----------
    rng : Random
        Where chance comes from.
    level : int
        1 to 5.

    Returns
    -------
    Instance
        The answer is an integer.
    """
    a, b, c = (rng.randrange(3, (20, 40, 40, 60, 90)[level - 1]) for _ in range(3))
    if level == 1:
        what, answer = f"the area of a rectangle {a} cm wide and {b} cm long, in square centimetres", a * b
    elif level == 2:
        what = f"the length of fence around a rectangular garden of {a} m by {b} m that has a gate {c % 3 + 1} m wide"
        answer = 2 * (a + b) - (c % 3 + 1)
    elif level == 3:
        m, n = max(a, b) + 1, min(a, b)
        legs = (m * m - n * n, 2 * m * n)
        what = f"the hypotenuse of a right triangle whose legs are {legs[0]} mm and {legs[1]} mm"
        answer = m * m + n * n
    elif level == 4:
        what = f"the total surface in square centimetres of a closed box measuring {a} cm by {b} cm by {c} cm"
        answer = 2 * (a * b + b * c + a * c)
    else:
        w = c % 5 + 2
        what = (
            f"the paved area in square metres when a path {w} m wide runs all around the outside of a pool of "
            f"{a} m by {b} m, and a square kiosk of side {w} m stands on the path and is not paved"
        )
        answer = (a + 2 * w) * (b + 2 * w) - a * b - w * w
    return Instance((f"Find {what}.", f"Please work out {what}.", f"What is {what}?"), str(answer))


def probability(rng: Random, level: int) -> Instance:
    """Make a question about drawing balls from a bag.

    Parameters
    ----------
    rng : Random
        Where chance comes from.
    level : int
        1 to 5.

    Returns
    -------
    Instance
        The answer is a fraction in lowest terms.
    """
    colours = rng.sample(_COLOURS, min(5, 1 + level))
    counts = [rng.randrange(2, 6 + 3 * level) for _ in colours]
    total, first = sum(counts), counts[0]
    bag = ", ".join(f"{count} {colour}" for count, colour in zip(counts, colours, strict=True))
    wanted = colours[0]
    if level == 1:
        event, chance = f"one ball drawn at random is {wanted}", Fraction(first, total)
    elif level == 2:
        event, chance = f"one ball drawn at random is not {wanted}", 1 - Fraction(first, total)
    elif level == 3:
        event = f"two balls drawn one after the other, the first being put back, are both {wanted}"
        chance = Fraction(first, total) ** 2
    elif level == 4:
        event = "two balls drawn without putting any back have the same colour"
        chance = sum((Fraction(n * (n - 1), total * (total - 1)) for n in counts), Fraction(0))
    else:
        event = f"at least one of three balls drawn without putting any back is {wanted}"
        rest = total - first
        chance = 1 - Fraction(rest * (rest - 1) * (rest - 2), total * (total - 1) * (total - 2))
    return Instance(
        (
            f"A bag holds balls: {bag}. What is the probability that {event}? Answer as a fraction in lowest terms.",
            f"There are {bag} balls in a bag. Give, as a reduced fraction, the chance that {event}.",
        ),
        str(chance),
    )
