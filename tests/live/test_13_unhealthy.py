"""An etcd member that is not healthy: `lab status` names the cause, and its next step mends it."""

import re
import subprocess

import pytest

from components.hosts import remote
from diagnosis import status
from diagnosis.finding import Finding
from tests.live.look import healthy
from tests.live.program import QUIET, Program
from tests.live.waiting import eventually
from workspace.outputs import PROJECT, Outputs

HOST, PEER = "a1", "a0"
DATA = "/var/lib/calico-lab/etcd"
PKI = "/etc/calico-lab/pki"
START = "systemctl start --no-block calico-lab-etcd"
RESTART = "systemctl restart --no-block calico-lab-etcd"
STOP = "systemctl stop calico-lab-etcd"
RULE = "INPUT -p tcp -m multiport --ports 2380 -j REJECT --reject-with icmp-port-unreachable"
CAUSES = {
    "stopped": (STOP, r"its process does not run \(inactive\)", START),
    "rule": (f"iptables -I {RULE}; {RESTART}", re.escape(f"rule -t filter -A {RULE}"), f"iptables -D {RULE}"),
    "full": (
        f"{STOP}; mount -t tmpfs -o size=40m full {DATA}; {START}",
        r"its disk has \d+ MiB left, and etcd needs 64",
        f"{STOP}; umount {DATA}; {START}",
    ),
    "certificate": (
        f"cp -p {PKI}/etcd.crt {PKI}/kept\n"
        f"openssl req -x509 -key {PKI}/etcd.key -subj /CN=x >{PKI}/etcd.crt; {RESTART}",
        "a certificate is refused: .*tls: ",
        f"mv {PKI}/kept {PKI}/etcd.crt; {RESTART}",
    ),
}
"""By cause: what provokes it on the host, how the finding says it, what mends it."""


def finding(outputs: Outputs, program: Program, said: str) -> Finding:
    """What `lab status` finds of the member, once it is this."""
    seen: list[Finding] = []

    def found() -> None:
        all_findings = status.findings(status.look(outputs, program.stack))
        seen[:] = [one for one in all_findings if one.where == HOST and re.search(said, one.what)]
        assert seen, all_findings

    eventually(found, 60)
    return seen[0]


def run(outputs: Outputs, host: str, script: str) -> None:
    answer = remote.run(outputs.ssh[host], script, seconds=60)
    assert answer.status == 0, answer


@pytest.mark.timeout(240)
@pytest.mark.parametrize("cause", CAUSES)
def test_cause_is_named(cause: str, outputs: Outputs, program: Program) -> None:
    provoke, said, mend = CAUSES[cause]
    run(outputs, HOST, provoke)
    try:
        finding(outputs, program, said)
    finally:
        run(outputs, HOST, mend)
    eventually(lambda: _is_healthy(program), 60)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("host", "script", "said"),
    [
        (HOST, f"{STOP}; rm -rf {DATA}; {START}", "its data are lost"),
        (
            PEER,
            # etcd refuses it until all members have been connected for a while.
            f"id=$(etcdctl member list | awk -F ', ' '$3 == \"{HOST}\" {{ print $1 }}')\n"
            'until etcdctl member remove "$id"; do sleep 1; done',
            "have removed it",
        ),
    ],
    ids=["lost", "removed"],
)
def test_next_step_has_the_member_join_again(
    host: str, script: str, said: str, outputs: Outputs, program: Program
) -> None:
    run(outputs, host, script)
    command = finding(outputs, program, said).next.partition(",")[0]
    subprocess.run(["bash", "-c", f"{command} {' '.join(QUIET)} --yes"], cwd=PROJECT, check=True)
    eventually(lambda: _is_healthy(program), 60)


def _is_healthy(program: Program) -> None:
    healthy(program)
