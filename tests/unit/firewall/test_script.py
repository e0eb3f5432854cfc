"""`firewall.sh` in network and mount namespaces of its own, with a stand-in for systemd that logs calls."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from components.firewall.payload import FILES, SCRIPT, restore_sets
from components.firewall.rules.compile import compile_policies, restore_document
from components.firewall.rules.config import FirewallConfig
from components.firewall.rules.resolve import resolve
from tests.unit.firewall.firewall_cases import LAB

ETC = "/etc/calico-lab/firewall"
DROP_80 = {"action": "drop", "protocol": "tcp", "ports": 80}
DROP_81 = {"action": "drop", "protocol": "tcp", "ports": 81}
DROP_A_SET = {"action": "drop", "source": "few"}
# The timer of `systemd-run` is a file: `systemctl is-active` tests it, and `stop` removes it.
SYSTEMD_RUN = """#!/bin/sh
echo "systemd-run $*" >>/run/systemd-calls
touch /run/armed
"""
SYSTEMCTL = """#!/bin/sh
echo "systemctl $*" >>/run/systemd-calls
case $* in
    "stop calico-lab-firewall-undo.timer") rm -f /run/armed ;;
    "is-active --quiet calico-lab-firewall-undo.timer") [ -e /run/armed ] ;;
esac
"""
# /etc is an overlay: the programs can read it, and this computer's own is not changed.
MOUNTS = """
mount -t tmpfs none /opt
mount -t tmpfs none /run
mkdir /run/upper /run/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work /etc
mkdir -p /etc/systemd/system
echo ready
exec sleep 600
"""


class Host:
    """The namespaces, and the script in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        programs = folder / "bin"
        programs.mkdir()
        for name, text in (("systemctl", SYSTEMCTL), ("systemd-run", SYSTEMD_RUN)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self.environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
        self.user = [] if os.geteuid() == 0 else ["--user"]
        mapped = [*self.user, "--map-root-user"] if self.user else []
        self.process = subprocess.Popen(
            ["unshare", *mapped, "--net", "--mount", "sh", "-euc", MOUNTS], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        assert self.process.stdout.readline() == "ready\n"

    def try_run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command on the host."""
        target = ["--target", str(self.process.pid), *self.user, "--net", "--mount"]
        keep = ["--preserve-credentials"] if self.user else []
        return subprocess.run(
            ["nsenter", *target, *keep, *command],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def run(self, *command: str) -> str:
        """Run a command on the host that has to succeed."""
        done = self.try_run(*command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def apply(self, change: str, *rules: Mapping[str, object], applies_to: str = "host") -> str:
        """Load a policy with these rules; return the error."""
        policy = {"hosts": ["a0"], "appliesTo": applies_to, "rules": rules}
        section = {"sets": {"few": ["10.0.0.1", "fd00::/8"]}, "policies": {"p": policy}}
        compiled = compile_policies(resolve(FirewallConfig.model_validate(section), LAB)["a0"])
        return self.load(
            change,
            restore_document(compiled.ipv4, compiled.policies),
            restore_document(compiled.ipv6, compiled.policies),
            restore_sets(compiled.sets),
        )

    def load(self, change: str, ipv4: str, ipv6: str = "", sets: str = "") -> str:
        """Load documents; return the error."""
        payload = self.folder / change
        payload.mkdir()
        for file in FILES:
            shutil.copy(file, payload)
        files = {"rules.v4": ipv4, "rules.v6": ipv6, "sets": sets, "change": f"{change}\n"}
        for name, text in files.items():
            (payload / name).write_text(text)
        return self.try_run("sh", str(payload / SCRIPT.name), "apply", "15").stderr

    def firewall(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a verb of the script."""
        return self.try_run("sh", str(SCRIPT), *arguments)

    def rules(self, program: str = "iptables") -> list[str]:
        """All rules of the kernel."""
        lines = self.run(f"{program}-save").splitlines()
        return [line.split(" [")[0] for line in lines if not line.startswith("#")]

    def state(self) -> dict[str, object]:
        """Everything that the script may change on a host."""
        return {
            "iptables": self.rules("iptables"),
            "ip6tables": self.rules("ip6tables"),
            "sets": self.run("ipset", "list", "-name"),
            "files": self.run("sh", "-c", "find /etc/calico-lab* /opt /etc/systemd/system | sort"),
        }

    def calls(self) -> list[str]:
        """The calls of systemd programs since the last time, without daemon-reload."""
        calls = self.run("sh", "-c", "cat /run/systemd-calls; : >/run/systemd-calls").splitlines()
        return [call for call in calls if "daemon-reload" not in call]

    def reboot(self) -> None:
        """Remove what a reboot removes, and start the unit."""
        self.run("sh", "-c", "rm -f /run/armed; nft flush ruleset; ipset destroy")
        self.run("sh", "/opt/calico-lab/firewall/firewall.sh", "boot")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    host.process.kill()
    host.process.communicate()


def dropped_ports(host: Host) -> list[str]:
    """The ports that the lab's rules drop."""
    dropped = [line for line in host.rules() if "--dport" in line and " -j DROP" in line]
    return [line.split("--dport ")[1].split()[0] for line in dropped]


def test_apply_arms_and_loads_then_confirm_disarms(host: Host) -> None:
    assert host.apply("one", DROP_80) == ""
    armed = next(call for call in host.calls() if call.startswith("systemd-run"))
    assert "--on-active=15 --timer-property=AccuracySec=100ms" in armed
    assert armed.endswith("/bin/sh /opt/calico-lab/firewall/firewall.sh undo")
    assert "-A INPUT -j CALICO-LAB-INPUT" in host.rules()
    confirmed = host.firewall("confirm", "one")
    assert "systemctl stop calico-lab-firewall-undo.timer" in host.calls()
    assert "[iptables]\n-A INPUT -j CALICO-LAB-INPUT\n-N CALICO-LAB-INPUT\n" in confirmed.stdout
    assert host.firewall("undo").returncode == 0
    assert dropped_ports(host) == ["80"]


def test_undo_of_the_first_change_leaves_nothing(host: Host) -> None:
    before = host.state()
    host.apply("one", DROP_80, DROP_A_SET)
    assert host.state() != before
    assert host.firewall("undo").returncode == 0
    assert host.state() == before


def test_undo_of_a_later_change_restores_the_confirmed_rules(host: Host) -> None:
    host.apply("one", DROP_80)
    host.firewall("confirm", "one")
    before = host.state()
    host.apply("two", DROP_A_SET, applies_to="both")
    host.apply("three", DROP_81)
    assert dropped_ports(host) == ["81"]
    host.firewall("undo")
    assert host.state() == before


def test_confirm_after_undo_is_refused(host: Host) -> None:
    host.apply("one", DROP_80)
    host.firewall("confirm", "one")
    host.apply("two", DROP_81)
    assert host.firewall("confirm", "one").stderr == "firewall: confirm: the change is rolled back already\n"
    host.firewall("undo")
    assert host.firewall("confirm", "two").stderr == "firewall: confirm: the change is rolled back already\n"
    assert dropped_ports(host) == ["80"]


@pytest.mark.parametrize("answered", ["nothing", "a part"])
def test_confirm_a_second_time_succeeds(host: Host, answered: str) -> None:
    host.apply("one", DROP_80)
    if answered == "a part":
        # The first step of a confirmation that was then interrupted.
        host.run("mv", f"{ETC}/previous", f"{ETC}/superseded")
    else:
        host.firewall("confirm", "one")
    again = host.firewall("confirm", "one")
    assert "-N CALICO-LAB-INPUT" in again.stdout
    assert host.try_run("test", "-e", "/run/armed").returncode == 1
    assert host.run("ls", ETC).split() == ["current", "made-filter.ip6tables", "made-filter.iptables"]
    host.firewall("undo")
    assert dropped_ports(host) == ["80"]


def test_undo_waits_for_the_lock(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.apply("one", DROP_80)
    slow = host.folder / "bin" / "flock"
    # A wait of a minute fails at once.
    slow.write_text('#!/bin/sh\n[ "$1" != -w ] || exit 1\n')
    slow.chmod(0o755)
    assert "another change has held the lock for a minute" in host.firewall("confirm", "one").stderr
    assert host.firewall("undo").returncode == 0
    assert dropped_ports(host) == []


def test_boot_loads_confirmed_rules(host: Host) -> None:
    host.apply("one", DROP_80, DROP_A_SET)
    host.firewall("confirm", "one")
    before = host.state()
    host.reboot()
    assert host.state()["sets"] == before["sets"]
    assert dropped_ports(host) == ["80"]


def test_boot_rolls_back_an_unconfirmed_change(host: Host) -> None:
    host.apply("one", DROP_80)
    host.firewall("confirm", "one")
    host.apply("two", DROP_81)
    host.reboot()
    assert dropped_ports(host) == ["80"]


def test_boot_after_a_power_failure_between_two_renames(host: Host) -> None:
    host.apply("one", DROP_80)
    host.firewall("confirm", "one")
    host.run("mv", f"{ETC}/current", f"{ETC}/previous")
    host.reboot()
    assert dropped_ports(host) == ["80"]


def test_boot_keeps_a_change_whose_timer_runs(host: Host) -> None:
    host.apply("one", DROP_80)
    assert host.firewall("boot").returncode == 0
    assert dropped_ports(host) == ["80"]
    assert host.firewall("confirm", "one").returncode == 0


@pytest.mark.parametrize(
    ("ipv4", "sets", "message"),
    [
        ("*filter\n-A CALICO-LAB-INPUT --no-such\nCOMMIT\n", "", "iptables-restore refuses the document"),
        ("", "create cl4-x hash:nothing\n", "ipset refuses the sets"),
    ],
)
def test_apply_of_an_invalid_document_changes_nothing(host: Host, ipv4: str, sets: str, message: str) -> None:
    before = host.state()
    assert message in host.load("one", ipv4, sets=sets)
    assert host.state() == before
    assert host.try_run("test", "-e", "/run/armed").returncode == 1


def test_apply_rolls_back_rules_that_the_kernel_refuses(host: Host) -> None:
    host.apply("one", DROP_80)
    host.firewall("confirm", "one")
    chain = "*filter\n:CALICO-LAB-INPUT - [0:0]\n"
    loop = f"{chain}-A CALICO-LAB-INPUT -j CALICO-LAB-INPUT\nCOMMIT\n"
    assert "apply: the kernel refuses the rules; the rules from before are loaded again" in host.load(
        "two", loop
    )
    assert dropped_ports(host) == ["80"]
    assert host.try_run("test", "-e", "/run/armed").returncode == 1


def test_undo_without_valid_previous_rules_leaves_the_host_open(host: Host) -> None:
    host.apply("one", DROP_80)
    host.firewall("confirm", "one")
    host.apply("two", DROP_81)
    host.run("sh", "-c", f"echo nonsense >{ETC}/previous/rules.v4")
    host.firewall("undo")
    assert dropped_ports(host) == []
    assert "-A INPUT -j CALICO-LAB-INPUT" not in host.rules()


def test_undo_that_was_interrupted_is_finished_by_the_timer(host: Host) -> None:
    host.apply("one", DROP_80)
    host.firewall("confirm", "one")
    host.apply("two", DROP_81)
    failing = host.folder / "bin" / "mv"
    failing.write_text("#!/bin/sh\nexit 1\n")
    failing.chmod(0o755)
    assert host.firewall("undo").returncode == 1
    assert host.try_run("test", "-e", "/run/armed").returncode == 0
    failing.unlink()
    assert host.firewall("undo").returncode == 0
    assert dropped_ports(host) == ["80"]
    assert host.try_run("test", "-e", "/run/armed").returncode == 1


def test_undo_after_an_interrupted_apply_leaves_nothing(host: Host) -> None:
    before = host.state()
    host.apply("one", DROP_80)
    host.run("sh", "-c", f"rm -rf {ETC}/current {ETC}/previous; iptables -F; iptables -X; nft flush ruleset")
    host.firewall("undo")
    assert host.state() == before


def test_remove_keeps_other_rules_and_sets(host: Host) -> None:
    for command in (
        "iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN; iptables -A FORWARD -j DOCKER-USER",
        "iptables -A INPUT -s 192.0.2.1 -j ACCEPT; ip6tables -A INPUT -s 2001:db8::1 -j ACCEPT",
        "iptables -t nat -A OUTPUT -d 192.0.2.9 -j ACCEPT; ipset create theirs hash:ip",
    ):
        host.run("sh", "-c", command)
    before = host.state()
    host.apply("one", DROP_80, DROP_A_SET, applies_to="host")
    host.firewall("confirm", "one")
    host.apply("two", DROP_80, applies_to="both")
    host.firewall("confirm", "two")
    assert "-A DOCKER-USER -j CALICO-LAB-PUBLISHED" in host.rules()
    host.firewall("remove")
    assert host.state() == before


def test_apply_creates_docker_user_before_docker_does(host: Host) -> None:
    before = host.state()
    host.apply("one", DROP_80, applies_to="published")
    host.firewall("confirm", "one")
    assert "-A DOCKER-USER -j CALICO-LAB-PUBLISHED" in host.rules()
    host.firewall("remove")
    assert host.state() == before


def test_remove_keeps_docker_user_if_docker_uses_it(host: Host) -> None:
    host.apply("one", DROP_80, applies_to="published")
    host.firewall("confirm", "one")
    host.run("sh", "-c", "iptables -A DOCKER-USER -j RETURN; iptables -A FORWARD -j DOCKER-USER")
    host.firewall("remove")
    assert host.rules()[4:-1] == [":DOCKER-USER -", "-A FORWARD -j DOCKER-USER", "-A DOCKER-USER -j RETURN"]


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ("-I INPUT -s 192.0.2.1 -j ACCEPT", ["ours", "ACCEPT"]),
        ("-A INPUT -s 192.0.2.1 -j ACCEPT", ["ours", "ACCEPT"]),
        ("-I INPUT -j cali-INPUT", ["cali-INPUT", "ours"]),
        ("-A INPUT -j cali-INPUT", ["ours", "cali-INPUT"]),
        (
            "-I INPUT -m mark --mark 1 -m comment --comment cali:4h2BFnZLDfYiJAVS -j ACCEPT",
            ["ACCEPT", "ours"],
        ),
        ("-D INPUT -j CALICO-LAB-INPUT", ["ours"]),
        ("-A INPUT -j CALICO-LAB-INPUT", ["ours"]),
    ],
)
def test_jumps_moves_the_jump_to_the_front(host: Host, others: str, expected: list[str]) -> None:
    host.apply("one", DROP_80)
    host.firewall("confirm", "one")
    host.run("iptables", "-N", "cali-INPUT")
    host.run("iptables", *others.split())
    host.firewall("jumps")
    targets = [line.rsplit(" -j ")[1] for line in host.rules() if line.startswith("-A INPUT")]
    assert targets == [target.replace("ours", "CALICO-LAB-INPUT") for target in expected]
    assert host.firewall("jumps").stdout == ""


def test_confirm_destroys_unused_sets(host: Host) -> None:
    host.apply("one", DROP_A_SET)
    host.firewall("confirm", "one")
    assert len(host.run("ipset", "list", "-name").split()) == 2
    host.apply("two", DROP_80)
    host.firewall("confirm", "two")
    assert host.run("ipset", "list", "-name") == ""


def test_apply_of_the_same_repairs_a_set(host: Host) -> None:
    host.apply("one", DROP_A_SET)
    host.firewall("confirm", "one")
    name = next(name for name in host.run("ipset", "list", "-name").split() if name.startswith("cl4-"))
    host.run("ipset", "add", name, "192.0.2.1")
    host.run("ipset", "del", name, "10.0.0.1")
    host.apply("two", DROP_A_SET)
    host.firewall("confirm", "two")
    assert host.run("ipset", "save", name).splitlines()[1:] == [f"add {name} 10.0.0.1"]


def test_unknown_verb_is_refused(host: Host) -> None:
    assert host.firewall("rm -rf /").stderr == "firewall: no such verb: 'rm -rf /'\n"
