"""Runs `firewall.sh` on one host, each time over a new SSH connection."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from components.firewall.payload import pack
from components.hosts.remote import Answer, HostError, run

_RUN_PACKED = Path(__file__).with_name("scripts") / "run-packed.sh"
STEP_SECONDS = 60
"""The bound of one step: enough for ten thousand addresses on a slow host."""


def new_connection(ssh_config: str, destination: str, connect_seconds: int = 10) -> str:
    """An ssh command that does not share a connection.

    A shared connection is established already, so it would not prove that the host can be reached.

    Args:
        ssh_config: Path of the ssh_config(5), relative to the project's folder.
        destination: An alias in it, or an `ssh://` URL.
        connect_seconds: How long to wait for a connection.
    """
    options = "-o ControlMaster=no -o ControlPath=none -o BatchMode=yes"
    return f"ssh -F {shlex.quote(ssh_config)} {options} -o ConnectTimeout={connect_seconds} {destination}"


class HostSession:
    """Runs `firewall.sh` on one host; sends it each time, so that no step depends on files of the host."""

    def __init__(self, host: str, url: str, ssh_config: str) -> None:
        """Make a session.

        Args:
            host: The host's name, for messages.
            url: Its destination for ssh(1).
            ssh_config: Path of the ssh_config(5), relative to the project's folder.
        """
        self.host = host
        self.ssh = new_connection(ssh_config, url)

    def run_verb(
        self,
        verb: str,
        argument: str = "",
        *,
        documents: Mapping[str, str] | None = None,
        seconds: float = STEP_SECONDS,
    ) -> str:
        """Run a verb of `firewall.sh` as root; return its output.

        Raises:
            HostError: The host cannot be reached, or the verb fails.
        """
        variables = {"VERB": verb, "ARGUMENT": argument}
        script = _RUN_PACKED.read_text()
        return self._output(verb, run(self.ssh, script, variables, seconds, stdin=pack(documents or {})))

    def operator_address(self, seconds: float = STEP_SECONDS) -> str:
        """The address from which the host sees this connection (SSH_CONNECTION, sshd(8)).

        Raises:
            HostError: The host cannot be reached.
        """
        answer = run(self.ssh, 'echo "$SSH_CONNECTION"', seconds=seconds)
        return self._output("find the operator's address", answer).split()[0]

    def _output(self, step: str, answer: Answer) -> str:
        if answer.status:
            # Lines that begin with "# " are warnings of iptables about tables of iptables-legacy.
            errors = [line for line in answer.error.splitlines() if line[:2] != "# "]
            cause = "\n".join(errors).strip() or f"exit code {answer.status}"
            raise HostError(f"{self.host}: firewall: {step}: {cause}")
        return answer.text
