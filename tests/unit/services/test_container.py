"""The script that runs the container of a service, with a pretended Docker."""

from pathlib import Path

import pytest

from components.services import service
from tests.unit.pretend_host import PretendHost

SCRIPT = Path(service.__file__).with_name("scripts") / "container.sh"
VARIABLES = {
    "HOST": "a0",
    "NAME": "calico-lab-sshbox",
    "STACK": "lab",
    "IMAGE": "sha256:1a2b",
    "NETWORK": "netv",
    "ADDRESS": "192.168.0.101",
    "MOUNTS": "type=bind,source=/a b,target=/c,readonly\ntype=volume,source=home,target=/home/admin",
    "ENVIRONMENT": "ONE=1 and 2\nTWO=$x",
    "CAPABILITIES": "",
    "READ_ONLY": "",
    "MEMORY": "256",
    "CPUS": "0.5",
    "SERVICE": "",
    "FILES": "digest",
}
DOCKER = r"""
printf '%s\0' "$@" >>"$STATE/arguments"; printf '\n' >>"$STATE/arguments"
case "$*" in
*--entrypoint*) echo 192.168.3.4 ;;
*"index .Config.Labels"*) cat "$STATE/digest" 2>/dev/null || exit 1 ;;
*"container run --detach"*) sed -nE 's/.*calico-lab.digest=([0-9a-f]+).*/\1/p' <<<"$*" >"$STATE/digest" ;;
*"{{.Id}}"*) echo "1a2b 192.168.0.101" ;;
esac
"""


@pytest.fixture
def host(tmp_path: Path) -> PretendHost:
    pretended = PretendHost(tmp_path)
    pretended.program("docker", DOCKER.replace("$STATE", str(tmp_path)))
    return pretended


def arguments(host: PretendHost, **change: str) -> list[str]:
    """Run the script; return the arguments of `docker container run`, none if it did not run one."""
    record = host.root / "arguments"
    record.write_text("")
    done = host.run(SCRIPT, {**VARIABLES, **change})
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1a2b 192.168.0.101\n"
    calls = [line.split("\0")[:-1] for line in record.read_text().split("\n")]
    return next((call for call in calls if call[:3] == ["container", "run", "--detach"]), [])


def has(called: list[str], *words: str) -> bool:
    """Whether these words follow each other."""
    return any(called[index : index + len(words)] == list(words) for index in range(len(called)))


def test_container_is_bounded_and_comes_back(host: PretendHost) -> None:
    called = arguments(host)
    assert called[-1] == "sha256:1a2b"
    for words in (
        ("--memory", "256m"),
        ("--memory-swap", "256m"),
        ("--cpus", "0.5"),
        ("--restart", "unless-stopped"),
        ("--cap-drop", "ALL"),
        ("--security-opt", "no-new-privileges"),
        ("--log-opt", "max-size=10m"),
        ("--hostname", "sshbox"),
        ("--label", "calico-lab.stack=lab"),
        ("--network", "netv"),
        ("--ip", "192.168.0.101"),
        ("--env", "ONE=1 and 2"),
        ("--env", "TWO=$x"),
        ("--mount", "type=bind,source=/a b,target=/c,readonly"),
        ("--mount", "type=volume,source=home,target=/home/admin"),
    ):
        assert has(called, *words), words
    assert not {"--privileged", "--read-only", "--cap-add"} & set(called)
    assert not [word for word in called if "projectcalico" in word]


def test_container_with_capabilities_may_gain_those_of_files(host: PretendHost) -> None:
    called = arguments(host, CAPABILITIES="NET_RAW CHOWN", READ_ONLY="yes", SERVICE="sshBox")
    assert has(called, "--cap-add", "NET_RAW")
    assert has(called, "--cap-add", "CHOWN")
    assert "no-new-privileges" not in called
    assert "--read-only" in called
    assert has(called, "--label", "org.projectcalico.label.calico-lab.service=sshBox")


def test_container_as_described_goes_on_running(host: PretendHost) -> None:
    assert arguments(host)
    assert arguments(host) == []
    assert arguments(host, MEMORY="512") == []
    assert (
        "docker container update --memory 512m --memory-swap 512m --cpus 0.5 calico-lab-sshbox" in host.calls
    )


@pytest.mark.parametrize(
    "change", [{"FILES": "other"}, {"IMAGE": "sha256:3c"}, {"ADDRESS": "192.168.0.9"}, {"ENVIRONMENT": ""}]
)
def test_container_is_run_again_when_something_else_changes(
    host: PretendHost, change: dict[str, str]
) -> None:
    assert arguments(host)
    assert arguments(host, **change)
    assert host.calls.count("docker container rm --force calico-lab-sshbox") == 2


def test_container_without_an_address_keeps_the_one_that_it_gets(host: PretendHost) -> None:
    assert has(arguments(host, ADDRESS=""), "--ip", "192.168.3.4")
    assert arguments(host, ADDRESS="") == []


def test_container_on_the_hosts_network_has_no_address(host: PretendHost) -> None:
    called = arguments(host, NETWORK="host", ADDRESS="")
    assert has(called, "--network", "host")
    assert "--ip" not in called
