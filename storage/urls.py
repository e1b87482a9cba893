"""What the URLs of all stores have in common. No message here or of who reads on tells a password.

What is special in a login is %-encoded. Whatever a URL still has of a password after `split` is in
`netloc`, before its last `@`.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import SplitResult, parse_qsl, urlsplit


def split(url: str) -> SplitResult:
    """The parts of a URL. Raises `ValueError` where they are not what its author meant.

    A password with a bare `/`, `?` or `#` would else be taken for a path, options or a fragment;
    and what follows a `#` would not be looked at, an option that asks for TLS among it.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # its words are the URL's
        raise ValueError("the URL cannot be read: is what is special in it %-encoded?") from None
    if "#" in url:
        raise ValueError("the URL has a #, which is written as %23")
    if "@" in parts.path + parts.query:
        raise ValueError(
            "the URL has an @ after its hosts: in a login, / is written as %2F and ? as %3F; and"
            " elsewhere @ as %40"
        )
    return parts


def options(query: str, allowed: Collection[str]) -> dict[str, str]:
    """What stands after the `?`. Raises `ValueError`."""
    pairs = parse_qsl(query, keep_blank_values=True)
    found = dict(pairs)
    if unknown := sorted(found.keys() - set(allowed)):
        raise ValueError(f"{unknown[0]}: no such option; there are {', '.join(sorted(allowed))}")
    if len(found) < len(pairs):
        raise ValueError("an option is given twice")
    return found
