"""Shared by dynamic providers: unknown inputs, property comparison for `diff`, diagnostics on stderr."""

import atexit
import gc
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from pulumi import dynamic
from pulumi.output import contains_unknowns

# Pulumi waits until the program and the process of the providers have ended. Without this the interpreter's
# last collection visits each object of all modules, which takes a tenth of a second.
atexit.register(gc.freeze)


def is_known(value: object) -> bool:
    """Whether an input that the engine gave a provider is known, with all that it contains.

    At a preview the engine does not know what only an update produces. A dynamic provider's `check` and
    `diff` get an instance of `pulumi.output.Unknown` in its place, alone or in a list or an object, and not
    the text `rpc.UNKNOWN` that travels over gRPC. `str()` makes it a text like any other, so ask before.
    """
    return not contains_unknowns(value)


def differ(keys: Iterable[str], olds: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
    """Whether one of the properties has changed; an unknown one counts as changed.

    A provider names the keys that count, because the engine would compare all of them, also the pickled
    provider and the ssh commands.
    """
    return any(olds.get(key) != news.get(key) for key in keys)


def tell(sentences: Iterable[str]) -> None:
    """Show sentences in the diagnostics of a resource, one a line, in a preview and in an update.

    Pulumi shows a provider's standard error there.
    """
    for sentence in sentences:
        print(sentence, file=sys.stderr, flush=True)


class StoringProvider(dynamic.ResourceProvider):
    """Stores the inputs of a resource that only compares them, at preview or at deletion."""

    compared: ClassVar[Sequence[str]]
    """The inputs whose change is an update."""

    def create(self, props: Mapping[str, Any]) -> dynamic.CreateResult:
        """Store the inputs."""
        return dynamic.CreateResult("stored", dict(props))

    def diff(self, _id: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.DiffResult:
        """Compare the inputs that count."""
        return dynamic.DiffResult(changes=differ(self.compared, olds, news))

    def update(self, _id: str, _olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.UpdateResult:
        """Store the new inputs."""
        return dynamic.UpdateResult(dict(news))
