"""Texts for a bundle's self-test, written for this project: never rows of any data set.

They cover what encoders treat differently: short and long, prose, numbers, options, code, LaTeX, lists, other scripts,
an empty line, and one long enough to be cut.
"""

from __future__ import annotations

TEXTS: tuple[str, ...] = (
    "Hello!",
    "What is 17 * 23?",
    "Write a short apology to a neighbour whose ladder you borrowed and forgot to return for a month.",
    "A tram leaves the depot every 12 minutes, the first at 05:08. How many trams have left by 09:00?",
    "Which of these is a noble gas?\nA. Chlorine\nB. Neon\nC. Nitrogen\nD. Boron",
    "Which clause makes the lease void?\n(A) the rent\n(B) the term\n(C) the deposit\n(D) none of these",
    "Find all integers $n$ with $n^2 + \\frac{n}{2} < 40$ and prove that there are no others.",
    "def twice(xs):\n    return [2 * x for x in xs if x > 3]\n\nassert twice([1, 4, 9]) == ??",
    "Fix this query: SELECT name, COUNT(*) FROM visits WHERE year = 2024 ORDER BY name;",
    "There are 4 lockers in a row. Each holds a different fruit.\n1. The pear is left of the plum.\n"
    "2. The fig is not at an end.\n3. The plum is next to the lime.\nWhere is the fig?",
    "Summarise in two sentences why bridges have expansion joints.",
    "Übersetze ins Englische: Der Zug fährt heute wegen Bauarbeiten von Gleis 7 ab.",
    "解释一下为什么天空是蓝色的。",
    "Q: Is a whale a fish?\nA: No.\nQ: Is a bat a bird?\nA:",
    "\n\n   \n",
    "A patient reports three days of fever, a stiff neck and a rash. "
    "List the differential diagnosis, most urgent first, and "
    "say which examination separates the first two.",
    "The lighthouse keeper wrote one line every night. " * 200 + "How many words had the shortest line?",
)
