"""Names for people: what to say to a node's name that nobody has, and an address as it is written."""

from __future__ import annotations

from collections.abc import Collection

Address = tuple[str, int]


def unknown_node(name: str, known: Collection[str]) -> str:
    """`there is no node named bb; did you mean b? Nodes: a, b, c`."""
    from difflib import get_close_matches  # only who mistypes pays for it

    folded = {one.lower(): one for one in known}
    near = get_close_matches(name.lower(), list(folded), 1)
    hint = f"did you mean {folded[near[0]]}? " if near else ""
    return f"there is no node named {name}; {hint}{'N' if hint else 'n'}odes: {', '.join(sorted(known)) or 'none is known'}"


def written(address: Address) -> str:
    """An address as people write it: an IPv6 host in brackets."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
