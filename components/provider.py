"""What the dynamic providers of the components share: how they compare, and how they speak in a preview."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any


def differ(keys: Iterable[str], olds: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
    """Whether some properties are others than before.

    A provider names the keys that count. Left to itself the engine would compare all of them, the pickled
    provider among them, and how a host is reached.
    """
    return any(olds.get(key) != news.get(key) for key in keys)


def tell(sentences: Iterable[str]) -> None:
    """Say something with the diagnostics of a resource, a sentence a line, in a preview and in an update.

    Pulumi shows there what a provider writes to its standard error.
    """
    for sentence in sentences:
        print(sentence, file=sys.stderr, flush=True)
