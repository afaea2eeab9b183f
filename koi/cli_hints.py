"""What to say to a command line that is not understood: the right command for other systems' words, the usage of one command.

The rule it keeps: a hint only ever names commands that there are.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence

HINTS = {
    "switchover": "promote NODE",
    "failover": "promote NODE",
    "standby": "passive NODE",
    "pause": "maintenance on",
    "history": "why",
    "list": "status",
}
"""What other systems call it, and what Koi calls it."""

VALUED = ("-H", "-p", "-f", "-t", "--secret-file", "--id", "--reason", "--timeout", "--nodes")
"""Options that take a value."""


def hint(argv: Sequence[str], commands: Collection[str], grammar: str) -> str:
    """One or two sentences on a command line that the grammar refused."""
    words = _words(argv)
    if not words:
        return "no command is given; see: koi --help"
    word = words[0]
    if word in commands:
        return f"that is not how `{word}` is called: {_usage(word, grammar)}; see: koi --help"
    if word in HINTS:
        return f"there is no `{word}`; what you want is probably: koi {HINTS[word]}; see: koi --help"
    begun = [command for command in commands if len(word) > 1 and command.startswith(word)]
    near = begun or difflib.get_close_matches(word, list(commands), 1)
    return f"there is no command `{word}`{f'; did you mean: koi {near[0]}' if near else ''}; see: koi --help"


def _usage(word: str, grammar: str) -> str:
    """The line of the grammar for one command."""
    start = f"koi [options] {word}"
    return next(line.strip() for line in grammar.splitlines() if line.strip().startswith(start))


def _words(argv: Sequence[str]) -> list[str]:
    """The words of a command line that are neither options nor their values."""
    found, skip = [], False
    for word in argv:
        if not skip and not word.startswith("-"):
            found.append(word)
        skip = not skip and word in VALUED
    return found
