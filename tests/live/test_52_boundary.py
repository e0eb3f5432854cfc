"""Root in a host container: known escapes to the controller fail, and nothing of the controller is there."""

import subprocess
from pathlib import Path

from components.hosts import remote
from components.hosts.container import DEVICE_RULES
from tests.live.look import everywhere
from tests.live.program import Program
from workspace.outputs import PROJECT, Outputs

WAYS_OUT = Path(__file__).with_name("ways-out.sh")
SETTINGS = ("core_pattern", "modprobe", "hotplug", "poweroff_cmd", "sysrq")
# What Docker gives every container, and the volume of the host's own engine.
GIVEN = {"/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/var/lib/docker"}
DISKS = (
    "findmnt --raw --noheadings --real --output TARGET,FSTYPE | awk '$2 !~ /^(overlay|bpf)$/ { print $1 }'"
)


def controller() -> dict[str, str]:
    """What the ways out would change on the controller."""
    files = [Path("/proc/sys/kernel") / name for name in SETTINGS]
    found = {str(file): file.read_text() for file in files if file.exists()}
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return {**found, "mounts": "\n".join(line.partition(" - ")[2] for line in mounts if "cgroup" in line)}


def test_boundary_known_escapes_fail(outputs: Outputs) -> None:
    before = controller()
    host = next(iter(outputs.hosts))
    answer = remote.run(outputs.ssh[host], WAYS_OUT.read_text(), {}, seconds=60)
    assert (answer.status, answer.text) == (0, "tried\n"), answer.error
    assert controller() == before


def test_boundary_network_sysctls_are_per_host(outputs: Outputs) -> None:
    own = Path("/proc/sys/net/ipv4/ip_local_reserved_ports")
    before = own.read_text()
    script = f"echo 40000 >{own}; cat {own}; echo >{own}"
    assert set(everywhere(outputs, script).values()) == {"40000\n"}
    assert own.read_text() == before


def test_boundary_no_mounts_of_the_controller(outputs: Outputs) -> None:
    for host, text in everywhere(outputs, DISKS).items():
        assert {line for line in text.split() if not line.startswith("/var/lib/docker/")} <= GIVEN, host


def test_boundary_no_private_key_on_hosts(outputs: Outputs, program: Program) -> None:
    identity = (PROJECT / ".state" / "ssh" / program.stack / "identity").read_text().splitlines()
    # The first line of a key is the same in all of its kind.
    line = [text for text in identity if len(text) == len(identity[1])][-1]
    script = 'grep -rlsF -e "$LINE" /etc /home /opt /root /run /srv /var || true'
    for host, answer in remote.ask(
        outputs.ssh, script, {host: {"LINE": line} for host in outputs.ssh}
    ).items():
        assert (answer.status, answer.text) == (0, ""), host


def test_boundary_container_limits(outputs: Outputs) -> None:
    for host in outputs.hosts:
        rules = "{{range .HostConfig.DeviceCgroupRules}}{{println .}}{{end}}{{.HostConfig.Privileged}}"
        done = subprocess.run(
            ["docker", "inspect", "--format", rules, f"calico-lab-{host}"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        assert sorted(done.stdout.splitlines()) == sorted([*DEVICE_RULES, "false"])
