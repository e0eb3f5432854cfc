"""Scripts on all hosts at once, and the health of the whole lab."""

from components.hosts import remote
from diagnosis import status
from tests.live.program import Program
from tests.live.waiting import eventually
from workspace import outputs as stack
from workspace.outputs import Outputs

CONTAINERS = "docker ps --no-trunc --format '{{.ID}} {{.Names}}'"
"""Lists the containers that run on a host: another one of the same name has another ID."""


def everywhere(outputs: Outputs, script: str, seconds: float = 120) -> dict[str, str]:
    """What a script prints on each host."""
    answers = remote.ask({host: outputs.ssh[host] for host in outputs.hosts}, script, {}, seconds)
    assert all(answer.status == 0 for answer in answers.values()), answers
    return {host: answer.text for host, answer in answers.items()}


def healthy(program: Program) -> Outputs:
    """What the stack says of the lab, which `lab status` finds nothing wrong with."""
    outputs = stack.read(program.stack)

    def well() -> None:
        assert status.findings(status.look(outputs, program.stack)) == []

    # What answers late once, on a busy machine, is well.
    eventually(well, seconds=30, pause=2)
    return outputs
