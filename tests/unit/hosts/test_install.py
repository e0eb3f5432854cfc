"""A component on a host: what install.sh runs and records, and how an installation is undone."""

import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from components.hosts import component as hosts
from components.hosts.files import render
from components.hosts.remote import with_variables
from tests.unit.hosts.test_prepare import TAKEN, folders
from tests.unit.pretend_host import FOLDERS, PretendHost

SCRIPTS = Path(hosts.__file__).with_name("scripts")
STATE = "/var/lib/calico-lab"
TOOLS = f"{STATE}/tools"
RECORDS = f"{STATE}/components"
SETTINGS = "/etc/calico-lab/etcd/etcd.env"
KEY = "/etc/calico-lab/pki/etcd.key"
UNIT = "calico-lab-etcd.service"
ACTIVE = '[ "$1" != is-active ] || exit 0'
INACTIVE = '[ "$1" != is-active ] || exit 3'


@pytest.fixture
def host(tmp_path: Path) -> PretendHost:
    """A host that was prepared, with an apt that has every package, and systemd's state running."""
    host = PretendHost(tmp_path)
    host.write("/etc/os-release", "ID=debian\nVERSION_ID=13\n")
    host.write("/proc/sys/net/ipv4/ip_forward", "0\n")
    host.path("/run").mkdir()
    there = host.root / "dpkg"
    there.write_text("installed dpkg, \n")
    host.program("dpkg-query", f'[[ "$*" == *Provides* ]] && cat "{there}" || sed "s/,.*//" "{there}"')
    host.program(
        "apt-get",
        f"""called=$*
        case "$called" in
        *"install --simulate"*) for one in ${{called##*-recommends}}; do echo "Inst $one (1.0)"; done ;;
        *"install -y"*) for one in ${{called##*-recommends}}; do echo "installed $one, " >>"{there}"; done ;;
        *"purge -y"*) for one in ${{called##*-y}}; do sed -i "/^installed $one, /d" "{there}"; done ;;
        esac""",
    )
    host.program("systemctl", '[ "$1" != is-system-running ] || echo running')
    prepare(host, "etcd calico-programs calico notebook")
    return host


def prepare(host: PretendHost, components: str) -> None:
    """Run prepare.sh for a host that is to have some components; the tools work below the host's folder."""
    tools = {
        tool: FOLDERS.sub(lambda found: f"{host.root}{found[0]}", (SCRIPTS / tool).read_text())
        for tool in hosts.TOOLS
    }
    variables = {**TAKEN, "COMPONENTS": components}
    done = host.run(SCRIPTS / "prepare.sh", variables, render(tools), instead=folders(host))
    assert done.returncode == 0, done.stderr


def install(
    host: PretendHost,
    component: str = "etcd",
    *,
    packages: str = "",
    files: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    start: str = "true",
    finish: str = "",
    stop: str = "true",
    unit: str = "",
    config: str = "",
) -> int:
    """Run install.sh; scripts and paths are those of the pretended host."""

    def there(content: Mapping[str, str] | None) -> str:
        return render({str(host.path(path)): text for path, text in (content or {}).items()})

    own = {"HOST": "a0", "CALLS": f"{host.root}/calls"}
    variables = {
        **own,
        "COMPONENT": component,
        "PACKAGES": packages,
        "MASK": "",
        "FILES": there(files),
        "SECRETS": "yes" if secrets else "",
        "OWNER": "etcd:etcd",
        "START": start,
        "FINISH": finish,
        "STOP": with_variables(stop, own),
        "UNIT": unit,
        "CONFIG": config,
    }
    return host.run(SCRIPTS / "install.sh", variables, there(secrets)).returncode


def is_there(host: PretendHost) -> str:
    """A script that fails unless the component's package, file and key are there."""
    files = " ".join(f'-a -e "{host.path(path)}"' for path in (SETTINGS, KEY))
    return f'grep -q etcd-server "{host.root}/dpkg" && [ -e / {files} ]'


def says(word: str, status: int = 0) -> str:
    """A script that leaves a word among the host's calls."""
    return f'echo "{word}" >>"$CALLS"; exit {status}'


def remove(host: PretendHost, component: str = "etcd") -> int:
    return host.run(SCRIPTS / "remove.sh", {"COMPONENT": component}).returncode


def unprepare(host: PretendHost) -> int:
    paths = ("/etc/motd.d", "/proc/sys")
    instead = {path: there for path, there in folders(host).items() if path in paths}
    return host.run(SCRIPTS / "unprepare.sh", TAKEN, instead=instead).returncode


def words(host: PretendHost) -> list[str]:
    """What `says` has left, in order."""
    return [call for call in host.calls if " " not in call]


@pytest.mark.parametrize("left", ["files", "secrets", "nothing"])
def test_install_without_files_or_secrets_removes_former_ones(host: PretendHost, left: str) -> None:
    files, secrets = {SETTINGS: "A=1"}, {KEY: "KEY"}
    assert install(host, files=files, secrets=secrets) == 0
    kept_files = files if left == "files" else None
    kept_secrets = secrets if left == "secrets" else None
    assert install(host, files=kept_files, secrets=kept_secrets) == 0
    assert host.path(SETTINGS).exists() == (left == "files")
    assert host.path(KEY).exists() == (left == "secrets")


def records(host: PretendHost) -> list[str]:
    return sorted(path.name for path in host.path(RECORDS).iterdir())


# ---- install.sh


def test_install_places_secrets_for_their_owner_alone(host: PretendHost) -> None:
    assert install(host, files={SETTINGS: "name=a0"}, secrets={KEY: "the key"}) == 0
    assert host.path(KEY).read_text() == "the key\n"
    assert stat.S_IMODE(host.path(KEY).stat().st_mode) == 0o600
    assert stat.S_IMODE(host.path(SETTINGS).stat().st_mode) == 0o644
    owners = [call.split("calico-lab/")[0] for call in host.calls if call.startswith("chown")]
    assert [call.split()[1] for call in owners] == ["root:root", "etcd:etcd"]


def test_install_leaves_no_secret_in_its_record(host: PretendHost) -> None:
    assert install(host, secrets={KEY: "the key"}, start='[ -z "$(cat)" ]') == 0
    for path in host.path(STATE).rglob("*"):
        assert path.is_dir() or "the key" not in path.read_text(), path


def test_install_starts_a_component_when_its_packages_files_and_secrets_are_there(host: PretendHost) -> None:
    done = install(
        host, packages="etcd-server", files={SETTINGS: "1"}, secrets={KEY: "2"}, start=is_there(host)
    )
    assert done == 0


@pytest.mark.parametrize("kind", ["files", "secrets"])
def test_install_removes_a_file_that_is_no_longer_named(host: PretendHost, kind: str) -> None:
    kept, dropped = "/etc/calico-lab/etcd/kept", "/etc/calico-lab/etcd/dropped"
    for content in {kept: "1", dropped: "2"}, {kept: "1"}:
        placed = {kind: content}
        assert install(host, files=placed.get("files"), secrets=placed.get("secrets")) == 0
    assert host.path(kept).exists()
    assert not host.path(dropped).exists()


@pytest.mark.parametrize(
    ("config", "state", "restarted"),
    [("old", ACTIVE, False), ("new", ACTIVE, True), ("old", INACTIVE, True)],
    ids=["same-config", "other-config", "not-running"],
)
def test_install_restarts_a_unit_only_for_another_config_or_when_it_does_not_run(
    host: PretendHost, config: str, state: str, restarted: bool
) -> None:
    host.program("systemctl", ACTIVE)
    assert install(host, start=says("first"), unit=UNIT, config="old") == 0
    host.program("systemctl", state)
    assert install(host, files={SETTINGS: "1"}, start=says("again"), unit=UNIT, config=config) == 0
    assert words(host) == (["first", "again"] if restarted else ["first"])
    assert host.path(SETTINGS).exists()


def test_install_finishes_whether_the_unit_was_started_or_not(host: PretendHost) -> None:
    host.program("systemctl", ACTIVE)
    for _ in range(2):
        assert install(host, start=says("started"), finish=says("finished"), unit=UNIT, config="same") == 0
    assert words(host) == ["started", "finished", "finished"]
    assert install(host, finish=says("failed", 1), unit=UNIT, config="same") != 0


def test_install_without_a_unit_starts_the_component_each_time(host: PretendHost) -> None:
    for _ in range(2):
        assert install(host, start=says("started")) == 0
    assert words(host) == ["started", "started"]


def test_install_starts_a_unit_again_whose_start_failed(host: PretendHost) -> None:
    host.program("systemctl", ACTIVE)
    assert install(host, start=says("first"), unit=UNIT, config="old") == 0
    assert install(host, start=says("failed", 1), unit=UNIT, config="new") != 0
    assert install(host, start=says("again"), unit=UNIT, config="new") == 0
    assert words(host) == ["first", "failed", "again"]


# ---- remove.sh and uninstall.sh


def test_remove_stops_a_component_and_then_takes_its_files_and_packages(host: PretendHost) -> None:
    stop = f"{is_there(host)} && {says('stopped')}"
    assert install(host, packages="etcd-server", files={SETTINGS: "1"}, secrets={KEY: "2"}, stop=stop) == 0
    for _ in range(2):
        assert remove(host) == 0
    assert words(host) == ["stopped"]
    assert not host.path(SETTINGS).exists()
    assert not host.path(KEY).exists()
    assert "etcd-server" not in (host.root / "dpkg").read_text()
    assert records(host) == []


def test_remove_keeps_the_record_and_the_files_when_stop_fails(host: PretendHost) -> None:
    assert install(host, files={SETTINGS: "1"}, stop=says("stuck", 1)) == 0
    assert remove(host) != 0
    assert records(host) == ["etcd"]
    assert host.path(SETTINGS).exists()
    assert install(host, files={SETTINGS: "1"}, stop=says("stopped")) == 0
    assert remove(host) == 0
    assert words(host) == ["stuck", "stopped"]


def test_remove_does_nothing_on_a_host_that_was_put_back(host: PretendHost) -> None:
    assert unprepare(host) == 0
    assert remove(host) == 0


def test_remove_leaves_other_components_alone(host: PretendHost) -> None:
    for component in ("etcd", "calico-programs", "calico"):
        assert install(host, component, stop=says(component)) == 0
    assert remove(host, "calico-programs") == 0
    assert words(host) == ["calico-programs"]
    assert records(host) == ["calico", "etcd"]


def test_remove_first_undoes_interrupted_installations_that_may_need_the_component(host: PretendHost) -> None:
    # Calico's stop script reads files of calico-programs; Pulumi knows nothing of an interrupted `calico`.
    assert install(host, "etcd", stop=says("etcd")) == 0
    assert install(host, "calico-programs", files={SETTINGS: "1"}, stop=says("calico-programs")) == 0
    needs = f'[ -e "{host.path(SETTINGS)}" ] && echo calico >>"$CALLS"'
    assert install(host, "calico", start="exit 1", stop=needs) != 0
    assert install(host, "notebook", start="exit 1", stop=says("notebook")) != 0
    assert remove(host, "calico-programs") == 0
    assert words(host) == ["notebook", "calico", "calico-programs"]
    assert records(host) == ["etcd"]


# ---- what was interrupted


def test_unprepare_undoes_a_component_whose_start_failed(host: PretendHost) -> None:
    assert install(host, files={SETTINGS: "1"}, start="exit 1", stop=says("stopped")) != 0
    assert unprepare(host) == 0
    assert words(host) == ["stopped"]
    assert not host.path(SETTINGS).exists()
    assert not host.path(STATE).exists()


def test_unprepare_undoes_a_component_whose_packages_were_interrupted(host: PretendHost) -> None:
    whole = host.path("/programs/apt-get").read_text()
    host.program("apt-get", f"{whole}\n[[ \"$*\" != *' -y '* ]] || kill -KILL $PPID")
    assert install(host, packages="etcd-server", start=says("started"), stop=says("stopped")) != 0
    assert "installed etcd-server" in (host.root / "dpkg").read_text()
    host.path("/programs/apt-get").write_text(whole)
    assert unprepare(host) == 0
    assert words(host) == ["stopped"]
    assert (host.root / "dpkg").read_text() == "installed dpkg, \n"


def test_unprepare_undoes_components_in_reverse_order(host: PretendHost) -> None:
    for component in ("etcd", "calico-programs", "calico"):
        assert install(host, component, start="exit 1", stop=says(component)) != 0
    # The first installation counts, and not the last try.
    assert install(host, "etcd", start="exit 1", stop=says("etcd")) != 0
    assert unprepare(host) == 0
    assert words(host) == ["calico", "calico-programs", "etcd"]


def test_unprepare_keeps_the_record_of_a_component_that_does_not_stop(host: PretendHost) -> None:
    assert install(host, start="exit 1", stop=says("stuck", 1)) != 0
    assert unprepare(host) != 0
    assert records(host) == ["etcd"]
    assert install(host, stop=says("stopped")) == 0
    assert unprepare(host) == 0
    assert words(host) == ["stuck", "stopped"]


def test_unprepare_passes_over_an_installation_that_had_not_begun(host: PretendHost) -> None:
    host.path(f"{RECORDS}/etcd").mkdir(parents=True)
    host.write(f"{RECORDS}/calico/since", "")
    assert remove(host) == 0
    assert unprepare(host) == 0
    assert not host.path(STATE).exists()


def test_prepare_undoes_an_interrupted_component_that_the_host_no_longer_has(host: PretendHost) -> None:
    assert install(host, "notebook", stop=says("notebook")) == 0
    assert install(host, files={SETTINGS: "1"}, start="exit 1", stop=says("etcd")) != 0
    prepare(host, "notebook etcd")
    assert (words(host), records(host)) == ([], ["etcd", "notebook"])
    prepare(host, "docker")
    # What was installed is for Pulumi to remove.
    assert (words(host), records(host)) == (["etcd"], ["notebook"])
    assert not host.path(SETTINGS).exists()


def test_prepare_undoes_a_component_whose_packages_were_interrupted(host: PretendHost) -> None:
    whole = host.path("/programs/apt-get").read_text()
    host.program("apt-get", f"{whole}\n[[ \"$*\" != *' -y '* ]] || kill -KILL $PPID")
    assert install(host, packages="etcd-server", stop=says("stopped")) != 0
    host.path("/programs/apt-get").write_text(whole)
    prepare(host, "docker")
    assert (host.root / "dpkg").read_text() == "installed dpkg, \n"
    assert records(host) == []
