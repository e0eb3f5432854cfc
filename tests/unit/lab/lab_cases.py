"""A healthy lab as its hosts described it, and what the cases change of it."""

import json
from pathlib import Path
from typing import Any

from components.hosts.remote import Answer
from diagnosis import facts, web
from diagnosis.status import Status
from workspace import outputs as stack

HERE = Path(__file__).parent
CASES = sorted((HERE / "cases").glob("*.json"))


def outputs(**changes: Any) -> stack.Outputs:  # noqa: ANN401 - whatever an output holds
    """The outputs of the healthy lab, some of them changed."""
    document = json.loads((HERE / "healthy" / "outputs.json").read_text())
    return stack.parse({**document, **changes}, "lab")


def answer(machine: str) -> Answer:
    """What a machine of the healthy lab said."""
    return Answer(0, (HERE / "healthy" / f"{machine}.txt").read_text(), "")


def edited(original: Answer, changes: dict[str, Any]) -> Answer:
    """An answer without the lines that begin as the case says, and with the case's own."""
    dropped = tuple(changes.get("drop", ["no such line"]))
    kept = [line for line in original.text.splitlines() if not line.startswith(dropped)]
    lines = [*changes.get("lines", []), *kept]
    return Answer(changes.get("status", 0), "\n".join(lines), changes.get("error", ""))


def status(case: dict[str, Any]) -> Status:
    """The status of the healthy lab as a case changes it."""
    said = outputs(**case.get("outputs", {}))
    answers = {machine: answer(machine) for machine in said.ssh}
    for machine, changes in case.get("machines", {}).items():
        answers[machine] = edited(answers[machine], changes)
    silent = web.WebAnswer(None, "Connection refused")
    notebook, kernels = case.get("notebook", 200), case.get("kernels", 403)
    return Status(
        stack="lab",
        outputs=said,
        hosts={machine: facts.parse(one, said.network) for machine, one in answers.items()},
        notebook=web.WebAnswer(notebook) if notebook else silent,
        kernels=web.WebAnswer(kernels) if kernels else silent,
        kernel=case.get("kernel", "the controller's own"),
    )
