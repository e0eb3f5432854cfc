"""What the lab changes of a host's Docker engine, and gives back."""

import signal
from pathlib import Path

import pytest

from components.hosts import component as hosts
from tests.unit.pretend_host import PretendHost

HERE = Path(hosts.__file__).with_name("scripts")
SETTINGS = "/etc/docker/daemon.json"
VARIABLES = {"HOST": "a0", "LOGIN": "root"}
KEEPS = '{"live-restore": true}\n'


@pytest.fixture
def host(tmp_path: Path) -> PretendHost:
    """A host whose engine has the setting that stood in its settings when it was told to read them."""
    host = PretendHost(tmp_path)
    host.path("/var/lib/calico-lab").mkdir(parents=True)
    settings, live = host.path(SETTINGS), host.path("/live")
    host.program("systemctl", f'[ "$1" != reload ] || [ ! -e "{settings}" ] || cp "{settings}" "{live}"')
    docker = f"""
        [ "$1" = info ] || exit 0
        grep -q true "{live}" 2>/dev/null && live=true || live=false
        [[ "$*" == *Swarm* ]] && echo "$live inactive" || echo "$live"
    """
    host.program("docker", docker)
    return host


def keeps(host: PretendHost) -> bool:
    """Whether the engine keeps containers when it ends."""
    live = host.path("/live")
    return live.exists() and "true" in live.read_text()


def run(host: PretendHost, script: str, login: str = "root", *, killed_at: int = 0) -> bool:
    """Run a script, which has to succeed, or is killed before its command of that number; whether it was."""
    variables = {**VARIABLES, "LOGIN": login}
    instead = {"/etc/docker": str(host.path("/etc/docker"))}
    if killed_at:
        trap = f"at=0; trap '[ $((++at)) -lt {killed_at} ] || kill -KILL $$' DEBUG"
        instead["set -eu\n"] = f"set -eu\n{trap}\n"
    done = host.run(HERE / script, variables, instead=instead)
    killed = done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert done.returncode == 0 or (killed_at and killed), done.stderr
    return killed


def test_containers_outlive_their_engine(host: PretendHost) -> None:
    run(host, "engine.sh")
    assert host.path(SETTINGS).read_text() == KEEPS
    assert keeps(host)
    before = len(host.calls)
    run(host, "engine.sh")
    assert "systemctl reload docker.service" not in host.calls[before:]
    run(host, "remove-engine.sh")
    assert list(host.path("/etc/docker").iterdir()) == []
    assert not keeps(host)


def test_settings_are_known_wherever_the_script_was_killed(host: PretendHost) -> None:
    killed_at = 1
    while run(host, "engine.sh", killed_at=killed_at):
        run(host, "engine.sh")
        assert keeps(host), killed_at
        run(host, "remove-engine.sh")
        assert list(host.path("/etc/docker").iterdir()) == [], killed_at
        assert not keeps(host), killed_at
        killed_at += 1
    assert killed_at > 10


@pytest.mark.parametrize("text", [KEEPS, '{"debug": true}\n'], ids=["the same", "others"])
def test_the_owners_settings_stay_wherever_the_script_was_killed(host: PretendHost, text: str) -> None:
    killed_at = 1
    while run(host, "engine.sh", killed_at=killed_at):
        # As editors and tools of management write: a file in the place of another.
        draft = host.path("/etc/docker/draft")
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text)
        draft.replace(host.path(SETTINGS))
        run(host, "engine.sh")
        run(host, "remove-engine.sh")
        assert host.path(SETTINGS).read_text() == text, killed_at
        assert [path.name for path in host.path("/etc/docker").iterdir()] == ["daemon.json"]
        host.path(SETTINGS).unlink()
        host.path("/live").unlink(missing_ok=True)
        killed_at += 1
    assert killed_at > 10


def test_a_removal_that_was_killed_is_taken_up_again(host: PretendHost) -> None:
    killed_at, killed = 0, True
    while killed:
        killed_at += 1
        run(host, "engine.sh")
        killed = run(host, "remove-engine.sh", killed_at=killed_at)
        run(host, "remove-engine.sh")
        assert list(host.path("/etc/docker").iterdir()) == [], killed_at
        assert not keeps(host), killed_at
    assert killed_at > 10


def test_a_user_is_let_out_wherever_the_script_was_killed(host: PretendHost) -> None:
    members = host.path("/members")
    members.touch()
    host.program("id", f'cat "{members}"')
    host.program("usermod", f'echo docker >"{members}"')
    host.program("gpasswd", f': >"{members}"')
    killed_at = 1
    while run(host, "engine.sh", "debian", killed_at=killed_at):
        run(host, "remove-engine.sh", "debian")
        assert members.read_text() == "", killed_at
        killed_at += 1
    assert killed_at > 10


def test_an_engine_with_settings_of_its_own_keeps_them(host: PretendHost) -> None:
    host.write(SETTINGS, '{"data-root": "/data"}')
    run(host, "engine.sh")
    run(host, "remove-engine.sh")
    assert host.path(SETTINGS).read_text() == '{"data-root": "/data"}'
    assert "systemctl reload docker.service" not in host.calls


def test_settings_that_were_changed_later_stay(host: PretendHost) -> None:
    run(host, "engine.sh")
    host.write(SETTINGS, '{"live-restore": true, "debug": true}')
    run(host, "remove-engine.sh")
    assert host.path(SETTINGS).exists()


def test_a_swarm_is_left_alone(host: PretendHost) -> None:
    host.program("docker", '[[ "$*" != info* ]] || echo "false active"')
    run(host, "engine.sh")
    assert not host.path(SETTINGS).exists()


def test_a_user_who_was_let_in_is_let_out_once(host: PretendHost) -> None:
    members = host.path("/members")
    members.touch()
    host.program("id", f'cat "{members}"')
    host.program("usermod", f'echo docker >"{members}"')
    host.program("gpasswd", f'grep -q docker "{members}" && : >"{members}"')
    run(host, "engine.sh", "debian")
    # What comes after it in the script may fail, and it is run again then.
    for _ in range(2):
        run(host, "remove-engine.sh", "debian")
    assert [call for call in host.calls if call.startswith("gpasswd")] == ["gpasswd --delete debian docker"]


def test_a_user_who_was_in_the_group_before_stays_in_it(host: PretendHost) -> None:
    host.program("id", "echo debian docker")
    run(host, "engine.sh", "debian")
    run(host, "remove-engine.sh", "debian")
    assert not [call for call in host.calls if call.startswith(("usermod", "gpasswd"))]


def test_a_user_whom_another_has_let_out_is_no_error(host: PretendHost) -> None:
    host.write("/var/lib/calico-lab/docker-group", "")
    host.program("id", "echo debian")
    host.program("gpasswd", "exit 3")
    run(host, "remove-engine.sh", "debian")
    assert not host.path("/var/lib/calico-lab/docker-group").exists()


def test_a_host_is_put_back_once_and_may_be_asked_again(host: PretendHost) -> None:
    forward = host.path("/forward")
    forward.write_text("1\n")
    host.write("/var/lib/calico-lab/ip-forward", "0\n")
    for _ in range(2):
        variables = {"HOST": "a0"}
        done = host.run(
            HERE / "unprepare.sh", variables, instead={"/proc/sys/net/ipv4/ip_forward": str(forward)}
        )
        assert done.returncode == 0, done.stderr
        assert forward.read_text() == "0\n"
        assert not host.path("/var/lib/calico-lab").exists()


def test_remove_engine_leaves_docker_alone_that_an_interrupted_install_has_not_brought(
    host: PretendHost,
) -> None:
    host.write("/var/lib/calico-lab/packages/docker", "docker.io\n")
    host.program("systemctl", "exit 1")
    run(host, "remove-engine.sh", "root")
    assert host.calls == ["systemctl cat docker.service"]


@pytest.mark.parametrize(
    ("recorded", "policies"),
    [
        ("iptables DROP\nip6tables ACCEPT\n", ["ip6tables -w -P FORWARD ACCEPT"]),
        (
            "iptables ACCEPT\nip6tables ACCEPT\n",
            ["iptables -w -P FORWARD ACCEPT", "ip6tables -w -P FORWARD ACCEPT"],
        ),
        ("iptables DROP\nip6tables DROP\n", []),
    ],
)
def test_forwarding_is_open_again_where_it_was(host: PretendHost, recorded: str, policies: list[str]) -> None:
    host.write("/var/lib/calico-lab/packages/docker", "docker.io\n")
    host.write("/var/lib/calico-lab/forward-policy", recorded)
    for program in ("iptables", "ip6tables", "findmnt"):
        host.program(program)
    folders = ("/etc/docker", "/run/docker", "/etc/cni", "/var/lib/docker", "/var/lib/containerd")
    instead = {path: str(host.path(path)) for path in folders}
    done = host.run(HERE / "remove-engine.sh", VARIABLES, instead=instead)
    assert done.returncode == 0, done.stderr
    assert [call for call in host.calls if " -P " in call] == policies
