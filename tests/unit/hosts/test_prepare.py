"""A host is made ready: what a machine finds in Docker's data that takes the place of another."""

import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from components.hosts import component as hosts
from tests.unit.pretend_host import PretendHost

SCRIPT = Path(hosts.__file__).with_name("scripts") / "prepare.sh"
DATA = "/var/lib/docker"
VOLUME = f"{DATA}/volumes/calico-lab-notebook-work/_data/saved.ipynb"
CONTAINER = f"{DATA}/containers/0123/config.v2.json"
NETWORKS = f"{DATA}/network/files/local-kv.db"
LAYER = f"{DATA}/overlay2/0123/diff/file"
TAKEN = {"HOST": "a0", "LOGIN": "root", "ROLE": "a host of the lab", "COMPONENTS": "docker"}
MADE = {**TAKEN, "HOST_CONTAINER": "fedcba"}


@pytest.fixture
def host(tmp_path: Path) -> PretendHost:
    """A machine that has Docker's data from another."""
    host = PretendHost(tmp_path)
    host.program("systemctl", '[ "$1" != is-system-running ] || echo running')
    for path in (VOLUME, CONTAINER, LAYER):
        host.write(path, "")
    host.write(NETWORKS, '{"ipamType":"calico-ipam"}')
    host.write("/etc/os-release", "ID=debian\nVERSION_ID=13\n")
    host.write("/proc/sys/net/ipv4/ip_forward", "0\n")
    return host


def folders(host: PretendHost) -> dict[str, str]:
    paths = ("/etc/os-release", "/etc/motd.d", "/var/lib/docker", "/run/containerd", "/proc/sys")
    return {path: str(host.path(path)) for path in paths}


def prepare(host: PretendHost, variables: dict[str, str], absent: Sequence[str] = ()) -> None:
    """Run the script on a host that lacks some programs."""
    lacking = f'command() {{ [[ " {" ".join(absent)} " != *" $2 "* ]] && builtin command "$@"; }}'
    instead = {**folders(host), "set -eu\n": f"set -eu\n{lacking}\n"}
    done = host.run(SCRIPT, variables, instead=instead)
    assert done.returncode == 0, done.stderr


def unprepare(host: PretendHost) -> None:
    instead = {path: there for path, there in folders(host).items() if path in ("/etc/motd.d", "/proc/sys")}
    done = host.run(SCRIPT.with_name("unprepare.sh"), TAKEN, instead=instead)
    assert done.returncode == 0, done.stderr


def left(host: PretendHost) -> list[str]:
    return sorted(path.name for path in host.path(DATA).iterdir())


def stopped(host: PretendHost) -> bool:
    return "systemctl stop docker.socket docker.service containerd.service" in host.calls


def test_a_machine_in_anothers_place_keeps_of_its_containers_what_they_saved(host: PretendHost) -> None:
    prepare(host, MADE)
    assert left(host) == ["volumes"]
    assert host.path(VOLUME).exists()
    # Docker may wait for the network's driver all that time, and the boot for Docker.
    start = host.calls.index("systemctl start docker.service")
    assert stopped(host)
    assert start < host.calls.index("systemctl is-system-running --wait")


def test_the_network_alone_is_in_the_way_too(host: PretendHost) -> None:
    host.path(CONTAINER).unlink()
    host.path(CONTAINER).parent.rmdir()
    prepare(host, MADE)
    assert left(host) == ["volumes"]


def test_a_machine_that_is_prepared_already_is_left_alone(host: PretendHost) -> None:
    host.path("/var/lib/calico-lab").mkdir(parents=True)
    prepare(host, MADE)
    assert host.path(CONTAINER).exists()
    assert not stopped(host)


def test_the_docker_of_an_existing_machine_is_left_alone(host: PretendHost) -> None:
    prepare(host, TAKEN)
    assert host.path(CONTAINER).exists()
    assert not stopped(host)


def test_a_check_changes_nothing(host: PretendHost) -> None:
    prepare(host, {**MADE, "CHECK_ONLY": "yes"})
    assert host.path(CONTAINER).exists()
    assert not host.path("/var/lib/calico-lab").exists()


def test_the_docker_of_a_first_machine_is_left_alone(host: PretendHost) -> None:
    host.path(CONTAINER).unlink()
    host.path(CONTAINER).parent.rmdir()
    host.write(NETWORKS, '{"ipamType":"default"}')
    prepare(host, MADE)
    assert host.path(LAYER).exists()
    assert not stopped(host)


def test_a_login_is_greeted_with_one_line_beside_the_owners(host: PretendHost) -> None:
    host.write("/etc/motd.d/owner", "keep out\n")
    prepare(host, TAKEN)
    (line,) = host.path("/etc/motd.d/calico-lab").read_text().splitlines()
    assert line.startswith("Calico Lab: a0 is a host of the lab.")
    assert "journalctl" in line
    unprepare(host)
    assert [path.name for path in host.path("/etc/motd.d").iterdir()] == ["owner"]


def test_a_folder_of_greetings_that_was_not_there_goes(host: PretendHost) -> None:
    for _ in range(2):
        prepare(host, TAKEN)
    unprepare(host)
    assert not host.path("/etc/motd.d").exists()


def test_what_is_sent_arrives_where_the_ssh_user_alone_writes(host: PretendHost) -> None:
    prepare(host, TAKEN)
    assert stat.S_IMODE(host.path("/var/lib/calico-lab/upload").stat().st_mode) == 0o700


SAVED = """cat <<'END'
*nat
:POSTROUTING ACCEPT [0:0]
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD {policy} [0:0]
COMMIT
END"""
LISTED = """[ "$*" = 'list chain ip filter FORWARD' ] || exit 1
cat <<'END'
table ip filter {{
    chain FORWARD {{
        type filter hook forward priority filter; policy {policy};
        counter accept
    }}
}}
END"""
REMEMBERED = "/var/lib/calico-lab/forward-policy"


@pytest.mark.parametrize("policy", ["DROP", "ACCEPT"])
@pytest.mark.parametrize(
    ("absent", "seen"),
    [
        ([], True),
        # As many machines are that have never had Docker.
        (["iptables-save", "ip6tables-save"], True),
        (["iptables-save", "ip6tables-save", "nft"], False),
    ],
    ids=["iptables", "nft alone", "neither"],
)
def test_the_policy_of_forwarding_is_remembered_from_before_docker(
    host: PretendHost, absent: Sequence[str], seen: bool, policy: str
) -> None:
    host.program("iptables-save", SAVED.format(policy=policy))
    host.program("nft", LISTED.format(policy=policy.lower()))
    prepare(host, TAKEN, absent)
    record = host.path(REMEMBERED)
    remembered = f"iptables {policy if seen else 'ACCEPT'}\nip6tables ACCEPT\n"
    assert record.read_text() == remembered
    # Docker has set it by the next time.
    host.program("iptables-save", SAVED.format(policy="DROP"))
    prepare(host, TAKEN)
    assert record.read_text() == remembered


def test_what_was_not_wholly_remembered_is_remembered_again(host: PretendHost) -> None:
    host.program("ip6tables-save", "kill -KILL $(ps -o ppid= $PPID)")
    done = host.run(SCRIPT, TAKEN, instead=folders(host))
    assert done.returncode != 0
    assert not host.path(REMEMBERED).exists()
    host.program("ip6tables-save")
    prepare(host, TAKEN)
    assert host.path(REMEMBERED).read_text() == "iptables ACCEPT\nip6tables ACCEPT\n"
