"""A healthy lab as its hosts describe it, and cases that change it."""

import json
from pathlib import Path
from typing import Any

from components.hosts.remote import Answer
from diagnosis import facts, web
from diagnosis.status import Status
from workspace import outputs as stack

FOLDER = Path(__file__).parent
CASES = sorted((FOLDER / "cases").glob("*.json"))


def outputs(**changes: Any) -> stack.Outputs:  # noqa: ANN401 - any value of an output
    """The outputs of the healthy lab, some of them changed."""
    document = json.loads((FOLDER / "healthy" / "outputs.json").read_text())
    return stack.parse({**document, **changes}, "lab")


def answer(host: str) -> Answer:
    """The answer of a host of the healthy lab."""
    return Answer(0, (FOLDER / "healthy" / f"{host}.txt").read_text(), "")


def edited(original: Answer, changes: dict[str, Any]) -> Answer:
    """An answer without the lines that begin with one of `drop`, and with `lines`."""
    dropped = tuple(changes.get("drop", ["no such line"]))
    kept = [line for line in original.text.splitlines() if not line.startswith(dropped)]
    lines = [*changes.get("lines", []), *kept]
    return Answer(changes.get("status", 0), "\n".join(lines), changes.get("error", ""))


def status(case: dict[str, Any]) -> Status:
    """The status of the healthy lab, changed by a case."""
    changed = outputs(**case.get("outputs", {}))
    answers = {host: answer(host) for host in changed.ssh}
    for host, changes in case.get("machines", {}).items():
        answers[host] = edited(answers[host], changes)
    silent = web.WebAnswer(None, "Connection refused")
    hosts = {host: facts.parse(one, changed.network) for host, one in answers.items()}
    unhealthy = {
        host: one.member.error for host, one in hosts.items() if one.member and not one.member.healthy
    }
    notebook, kernels = case.get("notebook", 200), case.get("kernels", 403)
    return Status(
        stack="lab",
        outputs=changed,
        hosts=hosts,
        notebook=web.WebAnswer(notebook) if notebook else silent,
        kernels=web.WebAnswer(kernels) if kernels else silent,
        controller_kernel=case.get("kernel", "the controller's own"),
        causes={host: (error, "journalctl") for host, error in unhealthy.items()},
    )
