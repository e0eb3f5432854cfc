"""What the operator types on a host: the lab's settings come where nothing else is asked for."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from components.calico import component as calico
from components.etcd import rendering as etcd
from tests.unit.pretend_host import FOLDERS, PretendHost

ETCDCTL = Path(etcd.__file__).with_name("scripts") / "etcdctl"
CALICOCTL = Path(calico.__file__).with_name("scripts") / "calicoctl"
MEMBER = "/etc/calico-lab/etcd/etcdctl.env"
CLIENT = "/etc/calico-lab/calico/etcdctl.env"
SHOW_ETCDCTL = "printenv | grep ^ETCDCTL_ | sort"
SHOW_CALICOCTL = "printenv | grep ^ETCD_ | sort"


@pytest.fixture
def host(tmp_path: Path) -> PretendHost:
    """A host with both tools, Calico's settings, and the key of a client."""
    host = PretendHost(tmp_path)
    for tool in (ETCDCTL, CALICOCTL):
        text = FOLDERS.sub(lambda found: f"{host.root}{found[0]}", tool.read_text())
        executable(host, f"/usr/local/bin/{tool.name}", text)
    host.program("etcdctl", SHOW_ETCDCTL)
    executable(host, "/opt/calico-lab/calico/bin/calicoctl", f"#!/bin/sh\n{SHOW_CALICOCTL}\necho $*\n")
    host.write(
        "/etc/calico-lab/calico/calico.env", "ETCD_ENDPOINTS=https://lab:2379\nDATASTORE_TYPE=etcdv3\n"
    )
    settings(host, CLIENT, "calico")
    return host


def executable(host: PretendHost, path: str, text: str) -> None:
    host.write(path, text)
    host.path(path).chmod(0o755)


def settings(host: PretendHost, path: str, name: str) -> None:
    key = f"/etc/calico-lab/pki/{name}.key"
    host.write(key, "")
    host.write(path, etcd.render_client(["https://lab:2379"], "ca", f"{name}.crt", str(host.path(key))))


def typed(
    host: PretendHost, *command: str, environment: Mapping[str, str] | None = None, first: str = ""
) -> subprocess.CompletedProcess[str]:
    """Type a command; `first` is a folder that PATH has in front."""
    path = f"{first}{host.path('/usr/local/bin')}:{host.root}/programs:/usr/bin:/bin"
    return subprocess.run(
        command,
        env={"PATH": path, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        executable=host.path(f"/usr/local/bin/{command[0]}"),
    )


def seen(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert done.returncode == 0, done.stderr
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def test_etcdctl_knows_the_cluster_of_the_hosts_network(host: PretendHost) -> None:
    found = seen(typed(host, "etcdctl", "endpoint", "health"))
    assert (found["ETCDCTL_ENDPOINTS"], found["ETCDCTL_CERT"]) == ("https://lab:2379", "calico.crt")
    assert host.calls == ["etcdctl endpoint health"]


def test_etcdctl_of_a_member_shows_the_members_certificate(host: PretendHost) -> None:
    settings(host, MEMBER, "etcd")
    assert seen(typed(host, "etcdctl"))["ETCDCTL_CERT"] == "etcd.crt"


@pytest.mark.parametrize(
    ("arguments", "environment", "missing"),
    [
        (["--endpoints", "https://a1:2379"], {}, {"ENDPOINTS"}),
        (["endpoint", "status", "--endpoints=https://a1:2379"], {}, {"ENDPOINTS"}),
        (["--cacert=own"], {}, {"CACERT", "CERT", "KEY"}),
        (["--user", "root:secret"], {}, {"CACERT", "CERT", "KEY"}),
        ([], {"ETCDCTL_CACERT": "own"}, {"CERT", "KEY"}),
    ],
    ids=["endpoints", "endpoints-behind", "authority", "user", "authority-in-the-environment"],
)
def test_etcdctl_takes_what_is_given(
    host: PretendHost, arguments: list[str], environment: dict[str, str], missing: set[str]
) -> None:
    found = seen(typed(host, "etcdctl", *arguments, environment=environment))
    whole = {"API", "ENDPOINTS", "CACERT", "CERT", "KEY"}
    assert {name.removeprefix("ETCDCTL_") for name in found} == whole - missing
    assert environment.items() <= found.items()


def test_etcdctl_without_a_readable_key_is_that_of_the_package(host: PretendHost) -> None:
    host.path("/etc/calico-lab/pki/calico.key").unlink()
    done = typed(host, "etcdctl")
    assert done.stdout == ""
    assert host.calls == ["etcdctl "]


def test_etcdctl_says_where_no_package_has_brought_it(host: PretendHost) -> None:
    done = typed(host, "etcdctl", environment={"PATH": str(host.path("/usr/local/bin"))})
    assert done.returncode == 127
    assert "apt-get install etcd-client" in done.stderr


def test_calicoctl_knows_the_datastore(host: PretendHost) -> None:
    done = typed(host, "calicoctl", "get", "nodes")
    assert seen(done) == {"ETCD_ENDPOINTS": "https://lab:2379"}
    assert done.stdout.splitlines()[-1] == "get nodes"


def test_calicoctl_takes_the_environments_datastore(host: PretendHost) -> None:
    own = {"ETCD_ENDPOINTS": "http://own:2379"}
    assert seen(typed(host, "calicoctl", environment=own)) == own


@pytest.mark.parametrize("first", [True, False], ids=["before", "behind"])
def test_calicoctl_of_the_owner_comes_first(host: PretendHost, first: bool) -> None:
    executable(host, "/opt/own/calicoctl", "#!/bin/sh\necho own $*\n")
    own = str(host.path("/opt/own"))
    if first:
        done = typed(host, "calicoctl", "version", first=f"{own}:")
    else:
        done = typed(
            host, "calicoctl", "version", environment={"PATH": f"{host.path('/usr/local/bin')}:{own}"}
        )
    assert (done.returncode, done.stdout) == (0, "own version\n")
