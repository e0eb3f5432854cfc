"""Scripts that send packets, on a host that lacks a program."""

from pathlib import Path

from diagnosis.packet_scripts import SEND_SCRIPT
from tests.unit.pretend_host import PretendHost


def test_send_script_without_ping(tmp_path: Path) -> None:
    host = PretendHost(tmp_path)
    # This PATH has no folder with the ping of the machine that runs the tests.
    done = host.run(
        SEND_SCRIPT,
        {"CONTAINER": "c", "DESTINATION": "192.0.2.1", "PROTOCOL": "icmp", "PORT": "", "DURATION": "0"},
        instead={"set -eu": f"set -eu; PATH={host.path('/programs')}"},
    )
    assert done.returncode == 1
    assert done.stderr == "ping is not installed: apt-get install iputils-ping\n"
