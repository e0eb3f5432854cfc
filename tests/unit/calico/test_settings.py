"""The settings of the network: the effects that a preview prints for a change, and the refusals of hosts."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pulumi.output import UNKNOWN

from components.calico import component as calico
from components.calico import settings
from components.calico.settings import effects
from components.hosts.remote import HostError
from tests.unit.pretend_host import PretendHost

SCRIPT = Path(calico.__file__).with_name("scripts") / "check-settings.sh"
MODE: dict[str, Any] = {
    "pool": "netv: 192.168.0.0/16 in blocks of /26",
    "cidr": "192.168.0.0/16",
    "mtu": 0.0,
    "encapsulation": "none",
    "dataplane": "iptables",
    "wireguard": False,
    "overhead": 0.0,
    "reflectors": [],
    "hosts": {
        "a0": {"address": "172.16.6.44", "ssh": "ssh a0", "made": True},
        "a1": {"address": "172.16.6.218", "ssh": "ssh a1", "made": True},
    },
}
A2 = {"address": "172.16.6.231", "ssh": "ssh a2", "made": True}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, []),
        ({"hosts": {}}, []),
        (
            {"pool": "netv: 10.1.0.0/16 in blocks of /26"},
            [
                "the pool changes from netv: 192.168.0.0/16 in blocks of /26 to netv: 10.1.0.0/16 in "
                "blocks of /26: "
            ],
        ),
        ({"mtu": 1400.0}, ["the containers' MTU changes from that of the link to 1400: "]),
        ({"encapsulation": "vxlan"}, ["encapsulation changes from none to vxlan: containers keep running"]),
        (
            {"wireguard": True},
            ["encapsulation changes from none to none with WireGuard: containers keep running"],
        ),
        ({"encapsulation": "vxlan", "mtu": 1400.0}, ["the containers' MTU changes"]),
        ({"dataplane": "ebpf"}, ["the dataplane changes from iptables to ebpf: containers keep running"]),
        ({"reflectors": ["a0", "a1"]}, ["BGP changes from a full mesh to route reflectors on a0, a1: "]),
    ],
)
def test_effects_of_a_change(change: dict[str, Any], told: list[str]) -> None:
    sentences = effects(MODE, {**MODE, **change})
    assert len(sentences) == len(told)
    assert all(sentence.startswith(start) for sentence, start in zip(sentences, told, strict=True))


class Answers:
    """Hosts that answer SSH with a status and a text."""

    def __init__(self, status: int, text: str) -> None:
        self.status, self.text = status, text
        self.asked: list[str] = []
        self.scripts: list[str] = []

    def run(self, command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401
        """Stand in for `subprocess.run`."""
        self.asked.append(command[-2])
        self.scripts.append(how["input"])
        if self.status < 0:
            raise subprocess.TimeoutExpired(command, how["timeout"])
        return subprocess.CompletedProcess(command, self.status, "", self.text)


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answers]:
    answers = Answers(0, "")
    monkeypatch.setattr(subprocess, "run", answers.run)
    yield answers


def check(olds: dict[str, Any], news: dict[str, Any]) -> list[tuple[str, str]]:
    failures = settings._NetworkSettingsProvider().check(olds, news).failures
    return [(failure.property, failure.reason) for failure in failures]


@pytest.mark.parametrize(
    ("olds", "news", "asked"),
    [
        pytest.param({}, MODE, 2, id="new"),
        pytest.param(MODE, MODE, 0, id="unchanged"),
        # Where the network is already, what is within its addresses was not refused.
        pytest.param({key: value for key, value in MODE.items() if key != "cidr"}, MODE, 0, id="no cidr"),
        pytest.param(MODE, {**MODE, "hosts": {**MODE["hosts"], "a2": A2}}, 1, id="one more host"),
        pytest.param(MODE, {**MODE, "reflectors": ["a0"]}, 0, id="reflectors"),
        pytest.param(MODE, {**MODE, "encapsulation": "vxlan"}, 2, id="encapsulation"),
        pytest.param(MODE, {**MODE, "dataplane": "ebpf"}, 2, id="dataplane"),
        pytest.param({}, {**MODE, "wireguard": True}, 2, id="new with wireguard"),
        pytest.param(MODE, {**MODE, "mtu": 1400.0}, 2, id="mtu"),
        pytest.param(MODE, {**MODE, "pool": "netv: other"}, 2, id="pool"),
    ],
)
def test_refusals_ask_only_for_what_changes(
    hosts: Answers, olds: dict[str, Any], news: dict[str, Any], asked: int
) -> None:
    assert check(olds, news) == []
    assert len(hosts.asked) == asked


@pytest.mark.parametrize(("made", "asked"), [(True, ["b1"]), (False, ["a1", "b1"])])
def test_refusals_of_a_host_with_another_address(hosts: Answers, made: bool, asked: list[str]) -> None:
    olds, news = (
        {**MODE, "hosts": {"a1": {"address": address, "ssh": f"ssh {name}", "made": made}}}
        for address, name in (("10.0.0.1", "a1"), ("10.0.0.2", "b1"))
    )
    assert check(olds, news) == []
    assert sorted(hosts.asked) == asked


def test_refusals_of_a_host_that_leaves(hosts: Answers) -> None:
    three = {**MODE, "hosts": {**MODE["hosts"], "a2": A2}}
    hosts.status, hosts.text = 3, "hosts a2: netv leaves it, and mine is attached to it\n"
    reason = "network: a2: netv leaves it, and mine is attached to it. Nothing was changed"
    # Whatever else changes with it.
    for news in MODE, {**MODE, "reflectors": ["a0"]}:
        hosts.asked.clear()
        assert check(three, news) == [("hosts", reason)]
        assert hosts.asked == ["a2"]
        assert "export NETWORK=netv" in hosts.scripts[-1]
        assert "export LEAVING=yes" in hosts.scripts[-1]
        with pytest.raises(HostError, match=re.escape(reason)):
            settings._NetworkSettingsProvider().update("mode", three, news)
    hosts.asked.clear()
    check(three, {**MODE, "wireguard": True})
    assert sorted(hosts.asked) == ["a0", "a1", "a2"]


@pytest.mark.parametrize("status", [255, -1])
def test_refusals_of_a_lost_host_that_leaves(hosts: Answers, status: int) -> None:
    hosts.status, hosts.text = status, "ssh: no route to host"
    three = {**MODE, "hosts": {**MODE["hosts"], "a2": A2}}
    assert check(three, MODE) == []
    settings._NetworkSettingsProvider().update("mode", three, MODE)


def test_check_fails_where_a_host_refuses(hosts: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    hosts.status, hosts.text = 3, "wireguard a0: its kernel does not support wireguard interfaces\n"
    reason = "network: a0: its kernel does not support wireguard interfaces. Nothing was changed"
    assert check(MODE, {**MODE, "wireguard": True}) == [("wireguard", reason)] * 2
    assert capsys.readouterr().err == "", "what does not happen is not told"


def test_check_skips_a_host_with_unknown_address(hosts: Answers) -> None:
    there = {host: {**one, "ssh": UNKNOWN} for host, one in MODE["hosts"].items()}
    assert check({}, {**MODE, "hosts": there}) == []
    assert hosts.asked == []


def test_check_asks_an_existing_host_at_the_first_preview(hosts: Answers) -> None:
    hosts.status, hosts.text = 3, "cidr a0: network.cidr 192.168.0.0/16 contains 192.168.1.20 (operator)\n"
    reached_by = {
        "alias": "a0",
        "address": "10.0.0.11",
        "port": 22,
        "user": "ops",
        "host_key": "ssh-ed25519 A",
    }
    there = {
        "a0": {
            "address": "10.0.0.11",
            "ssh": UNKNOWN,
            "made": False,
            "exists": {**reached_by, "identity": ""},
        }
    }
    [(key, reason)] = check({}, {**MODE, "hosts": there})
    assert key == "cidr"
    assert "contains 192.168.1.20 (operator)" in reason
    assert hosts.asked == ["a0"]


@pytest.mark.parametrize("status", [255, -1])
def test_silent_host_fails_the_update_and_not_the_preview(hosts: Answers, status: int) -> None:
    hosts.status, hosts.text = status, "a0: no route to host"
    news = {**MODE, "encapsulation": "vxlan"}
    assert check(MODE, news) == []
    provider = settings._NetworkSettingsProvider()
    with pytest.raises(HostError, match=r"network: a[01]: no .*Nothing was changed"):
        provider.update("mode", MODE, news)
    with pytest.raises(HostError):
        provider.create(news)


def test_a_newer_program_is_no_change_of_the_mode() -> None:
    provider = settings._NetworkSettingsProvider()
    assert (
        provider.diff("mode", {**MODE, "__provider": "old"}, {**MODE, "__provider": "new"}).changes is False
    )
    for key in settings.COMPARED:
        assert provider.diff("mode", MODE, {**MODE, key: "another"}).changes, key


CHECK = {
    "HOST": "a0",
    "ADDRESS": "172.16.6.44",
    "KINDS": "",
    "DATAPLANE": "iptables",
    "MTU": "",
    "OVERHEAD": "0",
    "NETWORK": "",
    "LEAVING": "",
    "CIDR": "",
}


@pytest.fixture
def host(tmp_path: Path) -> PretendHost:
    return PretendHost(tmp_path)


def test_check_script_tries_an_interface(host: PretendHost) -> None:
    host.program("ip", "")
    assert host.run(SCRIPT, {**CHECK, "KINDS": "vxlan wireguard"}).returncode == 0
    assert [re.sub(r"\d{2,}", "N", call) for call in host.calls if " link " in call] == [
        "ip link add try-N type vxlan id N dstport N",
        "ip link delete try-N",
        "ip link add try-N type wireguard",
        "ip link delete try-N",
        # Should it have been cut off before.
        "ip link delete try-N",
    ]


@pytest.mark.parametrize(("kind", "key"), [("wireguard", "wireguard"), ("vxlan", "encapsulation")])
def test_check_script_names_a_missing_interface_type(host: PretendHost, kind: str, key: str) -> None:
    host.program("ip", 'echo "Error: Unknown device type." >&2; exit 2')
    done = host.run(SCRIPT, {**CHECK, "KINDS": kind})
    assert done.returncode == 3
    assert done.stderr.startswith(f"{key} a0: its kernel, ")
    assert done.stderr.endswith(f"does not support {kind} interfaces (Unknown device type)\n")


def test_check_script_tries_bpf_programs(host: PretendHost) -> None:
    assert host.run(SCRIPT, {**CHECK, "DATAPLANE": "ebpf"}).returncode == 0
    tried = [re.sub(r"\d{2,}", "N", call) for call in host.calls if "try-" in call]
    assert tried == [
        "ip link add try-N type veth",
        "tc qdisc add dev try-N clsact",
        "ip link delete try-N",
        "ip link delete try-N",
    ]


@pytest.mark.parametrize(
    ("program", "body", "why"),
    [
        ("uname", "echo 5.4.0-42", "its kernel is 5.4.0-42, and Felix requires 5.10"),
        ("grep", "exit 1", "has no BPF file system"),
        (
            "tc",
            "echo 'Error: Unknown qdisc.' >&2; exit 2",
            "cannot attach programs to interfaces (Unknown qdisc.)",
        ),
    ],
)
def test_check_script_names_a_kernel_without_bpf(
    host: PretendHost, program: str, body: str, why: str
) -> None:
    host.program(program, body)
    done = host.run(SCRIPT, {**CHECK, "DATAPLANE": "ebpf"})
    assert done.returncode == 3
    assert done.stderr.startswith("dataplane a0: its kernel")
    assert why in done.stderr
    assert " link delete " in [call for call in host.calls if " link " in call][-1]


@pytest.mark.parametrize(("mtu", "status"), [("1450", 0), ("1451", 3)])
def test_check_script_mtu_exceeds_link(host: PretendHost, mtu: str, status: int) -> None:
    host.program("ip", "echo '3: eth0    inet 172.16.6.44/24 brd 172.16.6.255 scope global eth0'")
    link = host.root / "link"
    link.mkdir()
    (link / "mtu").write_text("1500\n")
    done = host.run(
        SCRIPT, {**CHECK, "MTU": mtu, "OVERHEAD": "50"}, instead={"/sys/class/net/$link": str(link)}
    )
    assert done.returncode == status
    assert ("mtu a0: its link eth0 leaves 1450 bytes" in done.stderr) == (status == 3)


def test_check_script_names_foreign_containers(host: PretendHost) -> None:
    host.program("docker", "printf 'calico-lab-sshbox lab\\nmine \\nhers \\n'")
    done = host.run(SCRIPT, {**CHECK, "NETWORK": "netv"})
    assert done.returncode == 3
    assert done.stderr == (
        "pool a0: netv is replaced, and containers that are not the lab's are attached to it: mine, hers\n"
    )
    done = host.run(SCRIPT, {**CHECK, "NETWORK": "netv", "LEAVING": "yes"})
    assert done.returncode == 3
    assert done.stderr == (
        "hosts a0: it leaves netv, and containers that are not the lab's are attached to it: mine, hers\n"
    )
    host.program("docker", "printf 'calico-lab-sshbox lab\\n'")
    assert host.run(SCRIPT, {**CHECK, "NETWORK": "netv"}).returncode == 0
