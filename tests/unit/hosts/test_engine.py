"""What the lab changes of a host's Docker engine, and gives back."""

from pathlib import Path

import pytest

from components import hosts
from tests.unit.pretend_host import PretendHost

HERE = Path(hosts.__file__).parent
SETTINGS = "/etc/docker/daemon.json"
NOTE = "/var/lib/calico-lab/docker-live-restore"
VARIABLES = {"HOST": "a0", "LOGIN": "root"}
KEEPS = '{"live-restore": true}\n'


@pytest.fixture
def host(tmp_path: Path) -> PretendHost:
    """A host whose engine has been told what stands in its settings."""
    host = PretendHost(tmp_path)
    host.path("/var/lib/calico-lab").mkdir(parents=True)
    docker = f"""
        [ "$1" = info ] || exit 0
        grep -q true "{host.path(SETTINGS)}" 2>/dev/null && live=true || live=false
        [[ "$*" == *Swarm* ]] && echo "$live inactive" || echo "$live"
    """
    host.program("docker", docker)
    return host


def run(host: PretendHost, script: str, login: str = "root") -> None:
    variables = {**VARIABLES, "LOGIN": login}
    done = host.run(HERE / script, variables, instead={"/etc/docker": str(host.path("/etc/docker"))})
    assert done.returncode == 0, done.stderr


def test_containers_outlive_their_engine(host: PretendHost) -> None:
    run(host, "engine.sh")
    assert host.path(SETTINGS).read_text() == KEEPS
    assert host.calls[-1] == "systemctl reload docker.service"
    before = len(host.calls)
    run(host, "engine.sh")
    assert "systemctl reload docker.service" not in host.calls[before:]
    run(host, "remove-engine.sh")
    assert not host.path(SETTINGS).exists()
    assert not host.path(NOTE).exists()
    assert "systemctl reload docker.service" in host.calls[before:]


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
