"""Problems about text: string operations, number words, sorting, counting letters.

As in ``quantities``, the level from 1 to 5 sets the number of steps and the size.

Entry point: ``string_manipulation`` and its neighbours, gathered in ``sample.KINDS``.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from routing_data.sample.instance import Instance

WORDS = (
    "anchor", "basket", "candle", "dragon", "engine", "forest", "garden", "hammer", "island", "jacket",
    "kettle", "ladder", "marble", "needle", "orange", "pencil", "quartz", "ribbon", "saddle", "temple",
    "umbrella", "violin", "window", "yellow", "zipper", "bridge", "copper", "desert", "eagle", "feather",
    "glacier", "harbour", "ivory", "jungle", "kitchen", "lantern", "meadow", "notebook", "oyster", "planet",
    "rocket", "silver", "thunder", "valley", "walnut", "blanket", "compass", "daisy", "elbow", "flute",
    "goblin", "hazel", "insect", "jigsaw", "kernel", "lemon", "magnet", "nutmeg", "octopus",
)  # fmt: skip
"""Common words the problems are made of."""

_STEPS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("reverse it", lambda s: s[::-1]),
    ("write it in capitals", lambda s: s.upper()),
    ("remove every vowel", lambda s: "".join(c for c in s if c.lower() not in "aeiou")),
    ("double its last letter", lambda s: s + s[-1:]),
    ("swap its first and last letters", lambda s: s[-1] + s[1:-1] + s[0] if len(s) > 1 else s),
    ("move its first two letters to the end", lambda s: s[2:] + s[:2]),
    ("keep only every second letter, starting with the first", lambda s: s[::2]),
    ("put a hyphen between all letters", lambda s: "-".join(s)),
)
_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def string_manipulation(rng: Random, level: int) -> Instance:
    """Make a chain of `level` operations on a word.

    Parameters
    ----------
    rng : Random
        Where chance comes from.
    level : int
        1 to 5.

    Returns
    -------
    Instance
        The answer is the resulting text.
    """
    start = "".join(rng.sample(WORDS, 1 + level // 3))
    result, told = start, []
    for name, step in rng.sample(_STEPS, level):
        result = step(result)
        told.append(name)
    steps = ", then ".join(told)
    return Instance(
        (
            f'Take the word "{start}": {steps}. What do you get?',
            f'Start with "{start}". Do this: {steps}. Output only the final text.',
            f'Apply these steps in order to the string "{start}": {steps}.',
        ),
        result,
    )


def number_words(rng: Random, level: int) -> Instance:
    """Make a translation between digits and English words.

    Parameters
    ----------
    rng : Random
        Where chance comes from.
    level : int
        1 to 5: up to one, two, three, six and nine digits.

    Returns
    -------
    Instance
        The answer is in digits or in words, whichever the question is not.
    """
    low, high = ((11, 100), (100, 1_000), (1_000, 10_000), (10_000, 10**6), (10**6, 10**9))[level - 1]
    number = rng.randrange(low, high)
    spelled = in_words(number)
    if rng.random() < 0.5:
        return Instance(
            (
                f'Write the number "{spelled}" in digits, without separators.',
                f"Which figure is meant by {spelled}? Use digits only.",
            ),
            str(number),
        )
    return Instance(
        (
            f"Spell out {number} in English words, without 'and' or commas.",
            f"How do you write {number} in words? Leave out 'and' and commas.",
        ),
        spelled,
    )


def in_words(number: int) -> str:
    """Spell a number in English, without 'and'.

    Parameters
    ----------
    number : int
        0 to 999,999,999.

    Returns
    -------
    str
        For example ``"two hundred forty-one"``.
    """
    for size, name in ((10**6, "million"), (1_000, "thousand"), (100, "hundred")):
        if number >= size:
            rest = f" {in_words(number % size)}" if number % size else ""
            return f"{in_words(number // size)} {name}{rest}"
    if number < 20:
        return _ONES[number]
    return _TENS[number // 10] + (f"-{_ONES[number % 10]}" if number % 10 else "")


def sorting(rng: Random, level: int) -> Instance:
    """Make a list to put in order.

    Parameters
    ----------
    rng : Random
        Where chance comes from.
    level : int
        1 to 5: 4 to 16 entries; words at even levels, numbers at odd ones.

    Returns
    -------
    Instance
        The answer is the sorted list, separated by commas.
    """
    size = 1 + 3 * level
    down = rng.random() < 0.5
    if level % 2:
        numbers = rng.sample(range(10, 10 ** (1 + (level + 1) // 2)), size)
        listed = ", ".join(map(str, numbers))
        answer = ", ".join(map(str, sorted(numbers, reverse=down)))
        order = "from largest to smallest" if down else "from smallest to largest"
    else:
        words = rng.sample(WORDS, size)
        listed = ", ".join(words)
        answer = ", ".join(sorted(words, reverse=down))
        order = "in reverse alphabetical order" if down else "in alphabetical order"
    return Instance(
        (
            f"Sort {order}: {listed}. Separate the entries with commas.",
            f"Here is a list: {listed}. Please return it {order}, comma separated.",
            f"Arrange these {order}, with commas between them: {listed}",
        ),
        answer,
    )


def letter_counting(rng: Random, level: int) -> Instance:
    """Make a question of how often a letter occurs in some words.

    Parameters
    ----------
    rng : Random
        Where chance comes from.
    level : int
        1 to 5: 2 to 18 words.

    Returns
    -------
    Instance
        The answer is an integer.
    """
    words = rng.sample(WORDS, 4 * level - 2)
    text = " ".join(words)
    letter = rng.choice(sorted(set(text) - {" "}))
    return Instance(
        (
            f'How many times does the letter "{letter}" occur in: {text}?',
            f'Count every "{letter}" in the text "{text}" and reply with the number.',
        ),
        str(text.count(letter)),
    )
