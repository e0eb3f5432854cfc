"""Shell completion of hosts and containers. It reads the stack's config file, without Pulumi, to be quick."""

from pathlib import Path
from typing import Any

import click
import yaml
from click.shell_completion import CompletionItem

from workspace.outputs import PROJECT

SERVICES = ("notebook", "sshbox")
"""The containers of every lab on the container network, by the names that `lab trace` accepts."""


def complete_host(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete a host."""
    return _starting(_hosts(context), incomplete)


def complete_sender(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the source of `lab why`."""
    return _starting([*_hosts(context), "operator", "visitor"], incomplete)


def complete_container(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete a container."""
    return _starting(_services(context), incomplete)


def complete_target(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the target of `lab trace`."""
    return _starting([*_services(context), *_hosts(context)], incomplete)


def _starting(words: Any, incomplete: str) -> list[CompletionItem]:  # noqa: ANN401
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def _services(context: click.Context) -> list[str]:
    boxes = _config(context).get("calico-lab:sshBoxes")
    return [*SERVICES, *(f"sshbox-{name}" for name in (boxes if isinstance(boxes, dict) else ()))]


def _hosts(context: click.Context) -> list[str]:
    try:
        return list(_config(context)["calico-lab:hosts"]["members"])
    except (LookupError, TypeError):
        return []


def _config(context: click.Context, folder: Path = PROJECT) -> dict[str, Any]:
    """The config; empty if it cannot be read, because completion cannot report an error."""
    stack = str(context.find_root().params["name"]).rpartition("/")[2]
    try:
        document = yaml.safe_load((folder / f"Pulumi.{stack}.yaml").read_text())
        return dict(document["config"])
    except (OSError, yaml.YAMLError, LookupError, TypeError, ValueError):
        return {}
