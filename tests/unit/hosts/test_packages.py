"""Which packages a host gets, and that nothing of its owner's goes for them."""

from pathlib import Path

import pytest

from components.hosts import component as hosts
from tests.unit.pretend_host import PretendHost

HERE = Path(hosts.__file__).with_name("scripts")
RECORDS = "/var/lib/calico-lab/packages"
ENGINE = "engine.io|engined engine-cli|engine"
INSTALLED = {"dpkg": "", "libelf1t64": "libelf1 (= 0.192-4), libelf1-of-old"}


@pytest.fixture
def host(tmp_path: Path) -> PretendHost:
    """A host with a few packages, whose release has the engine and its client in one package each."""
    host = PretendHost(tmp_path)
    host.path("/run").mkdir()
    lines = [f"installed {name}, {provides}" for name, provides in INSTALLED.items()]
    host.write("/packages", "\n".join([*lines, "config-files gone, ", ""]))
    has = host.path("/packages")
    host.program("dpkg-query", f'[[ "$*" == *Provides* ]] && cat "{has}" || sed "s/,.*//" "{has}"')
    release_has(host, "engine.io", "engine-cli")
    return host


def release_has(host: PretendHost, *packages: str, removes: str = "") -> None:
    """Have apt know packages of an engine, and remove one when it installs any."""
    host.program("apt-cache", f"[[ ' {' '.join(packages)} ' == *\" $2 \"* ]]")
    removal = f"Remv {removes} [1.0] [other:amd64 ]" if removes else ""
    host.program(
        "apt-get",
        f"""
        for package in $(sed "s/.*-recommends //" <<<"$*"); do
            if [[ "$*" == *--simulate* ]]; then
                echo "Inst $package (1.0 Debian:12 [amd64])"
                echo "Conf $package (1.0 Debian:12 [amd64])"
            fi
            [[ "$*" == *" -y "* ]] || continue
            echo "installed $package, " >>"{host.path("/packages")}"
            case $package in
                engine.io) install -m 755 /dev/null "{host.path("/programs")}/engined" ;;
                engine-cli) install -m 755 /dev/null "{host.path("/programs")}/engine" ;;
            esac
        done
        [[ "$*" != *--simulate* ]] || printf '%s\\n' 'Inst dpkg [1.0] (1.1 Debian:12 [amd64])' '{removal}'
        """,
    )


def installs(host: PretendHost, packages: str) -> list[str]:
    """Run the script, and return what it had apt install."""
    done = host.run(HERE / "packages.sh", {"NAME": "docker", "PACKAGES": packages, "MASK": ""})
    assert done.returncode == 0, done.stderr
    calls = [call.split("--no-install-recommends ") for call in host.calls if " -y " in call]
    return calls[-1][1].split() if calls else []


def test_what_is_there_is_not_asked_of_apt(host: PretendHost) -> None:
    assert installs(host, "dpkg libelf1 libelf1-of-old") == []
    assert not any(call.startswith("apt-get") for call in host.calls)


def test_what_is_missing_is_installed(host: PretendHost) -> None:
    assert installs(host, "dpkg gone ipset") == ["gone", "ipset"]


def test_a_program_that_is_there_is_kept_whoever_has_brought_it(host: PretendHost) -> None:
    host.program("engined")
    host.program("engine")
    assert installs(host, f"{ENGINE} ipset") == ["ipset"]


def test_a_client_of_its_own_package_is_installed_too(host: PretendHost) -> None:
    assert installs(host, ENGINE) == ["engine.io", "engine-cli"]


def test_a_package_that_another_release_has_is_left_out(host: PretendHost) -> None:
    release_has(host, "engine.io")
    host.program("engine")
    assert installs(host, ENGINE) == ["engine.io"]


def test_a_program_that_no_package_brings_is_an_error(host: PretendHost) -> None:
    release_has(host, "engine.io")
    done = host.run(HERE / "packages.sh", {"NAME": "docker", "PACKAGES": ENGINE, "MASK": ""})
    assert done.returncode == 1
    assert done.stderr == (
        "no package of this release provides the program engine; next: install the program on this host, "
        "then run 'pulumi up' again\n"
    )


def test_nothing_of_the_owners_is_removed_for_it(host: PretendHost) -> None:
    release_has(host, "engine.io", "engine-cli", removes="engine-ce")
    done = host.run(HERE / "packages.sh", {"NAME": "docker", "PACKAGES": ENGINE, "MASK": ""})
    assert done.returncode == 1
    assert "cannot be installed, because engine-ce would be removed; if you do not need it, " in done.stderr
    assert not any(" -y " in call for call in host.calls)


def test_what_an_earlier_lab_has_installed_may_go(host: PretendHost) -> None:
    release_has(host, "engine.io", "engine-cli", removes="bird")
    host.write(f"{RECORDS}/calico", "bird\nbird-bgp\n")
    assert installs(host, ENGINE) == ["engine.io", "engine-cli"]


def test_what_was_installed_is_remembered_and_nothing_else(host: PretendHost) -> None:
    installs(host, f"dpkg {ENGINE}")
    assert host.path(f"{RECORDS}/docker").read_text() == "engine-cli\nengine.io\n"
    host.program("engine")
    assert installs(host, f"dpkg {ENGINE}") == ["engine.io", "engine-cli"]
    assert len([call for call in host.calls if " -y " in call]) == 1


def test_what_an_install_that_was_cut_off_has_brought_is_remembered(host: PretendHost) -> None:
    whole = host.path("/programs/apt-get").read_text()
    host.program("apt-get", f"{whole}\n[[ \"$*\" != *' -y '* ]] || kill -KILL $PPID")
    variables = {"NAME": "docker", "PACKAGES": f"dpkg {ENGINE}", "MASK": ""}
    assert host.run(HERE / "packages.sh", variables).returncode != 0
    release_has(host, "engine.io", "engine-cli")
    assert host.run(HERE / "packages.sh", variables).returncode == 0
    assert host.path(f"{RECORDS}/docker").read_text() == "engine-cli\nengine.io\n"


def test_what_an_install_that_failed_has_not_brought_is_forgotten(host: PretendHost) -> None:
    host.write(f"{RECORDS}/docker", "gone\n")
    whole = host.path("/programs/apt-get").read_text()
    half = f"""
        [[ "$*" == *" -y "* ]] || exit 0
        echo "half-configured engine.io, " >"{host.path("/packages")}"
        exit 100
    """
    host.program("apt-get", f"{whole}\n{half}")
    done = host.run(HERE / "packages.sh", {"NAME": "docker", "PACKAGES": ENGINE, "MASK": ""})
    assert done.returncode == 1
    assert host.path(f"{RECORDS}/docker").read_text() == "engine.io\n"


def apt_says(host: PretendHost, words: str, times: int = 1000) -> str:
    """Have apt-get update fail with some words, a number of times, and return what the script says then."""
    whole = host.path("/programs/apt-get").read_text()
    said = f"""
        [ "$LC_ALL" = C ] || echo "apt-get speaks another language"
        if [[ "$*" == *" update" && $(grep -c " update" "{host.root}/calls") -le {times} ]]; then
            echo "{words}"
            exit 100
        fi
    """
    host.program("apt-get", f"{said}\n{whole}")
    host.program("sleep")
    variables = {"NAME": "docker", "PACKAGES": "ipset", "MASK": ""}
    # The clock of bash runs by itself.
    done = host.run(HERE / "packages.sh", variables, instead={"SECONDS + 300": "SECONDS + 2"})
    assert done.returncode == (1 if times == 1000 else 0), done.stderr
    return done.stderr


LOCK = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 612 (apt-get)"


def test_a_machine_that_fetches_its_lists_itself_is_waited_for(host: PretendHost) -> None:
    said = apt_says(host, LOCK, times=3)
    assert said == f"apt-get update waits for at most 300 s: {LOCK}\n"
    assert host.calls.count("sleep 2") == 3
    assert any(" -y " in call for call in host.calls)


def test_a_lock_that_is_kept_is_named_at_last(host: PretendHost) -> None:
    said = apt_says(host, LOCK).splitlines()
    assert said[0].startswith("apt-get update waits")
    assert said[1:] == [LOCK, "apt-get update failed"]


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("E: dpkg was interrupted, you must manually run 'dpkg --configure -a'", False),
        ("E: Failed to fetch http://deb.example/x  Temporary failure resolving 'deb.example'", True),
        ("E: Unable to locate package ipset", True),
        ("E: Package 'ipset' has no installation candidate", True),
        ("E: The repository 'http://deb.example x Release' does not have a Release file.", True),
    ],
)
def test_the_apt_sources_are_named_only_where_they_are_at_fault(
    host: PretendHost, words: str, advice: bool
) -> None:
    what = ": check the apt sources of this host and its connection to them" if advice else ""
    assert apt_says(host, words) == f"{words}\napt-get update failed{what}\n"


# ---- removal


def purged(host: PretendHost) -> list[str]:
    """Run the script that removes what was installed, and return what it had apt purge."""
    done = host.run(HERE / "purge-packages.sh", {"NAME": "docker"})
    assert done.returncode == 0, done.stderr
    assert list(host.path(RECORDS).glob("docker*")) == []
    return [name for call in host.calls if " purge -y " in call for name in call.split(" -y ")[1].split()]


def test_what_never_came_is_not_purged(host: PretendHost) -> None:
    host.write(f"{RECORDS}/docker", "gone\nhalf\nlibnever\nunknown\n")
    host.write(f"{RECORDS}/docker.masked", "bird.service\n")
    with host.path("/packages").open("a") as packages:
        packages.write("not-installed libnever, \nhalf-installed half, \n")
    assert purged(host) == ["gone", "half"]
    assert "systemctl unmask --quiet bird.service" in host.calls
    assert purged(host) == ["gone", "half"], "a second time does nothing"


def needed_by(host: PretendHost, **needed: str) -> None:
    """Have apt remove, with each package, those that need it."""
    cases = "\n".join(f"{name}) echo {' '.join(whose.split())} ;;" for name, whose in needed.items())
    host.program(
        "apt-get",
        f"""
        [[ "$*" == *--simulate* ]] || exit 0
        gone() {{
            for one in "$@"; do
                echo "$one"
                gone $(case $one in {cases} esac)
            done
        }}
        gone $(sed "s/.*--simulate //" <<<"$*") | sort -u | sed "1s/.*/Remv & [1.0]/; 1!s/.*/Purg & [1.0]/"
        """,
    )


def test_what_the_owners_packages_need_stays_and_is_named(host: PretendHost) -> None:
    host.write(f"{RECORDS}/docker", "engine\niptables\nlibxt\nipset\n")
    host.write(f"{RECORDS}/docker.masked", "")
    host.write(f"{RECORDS}/calico", "bird\n")
    with host.path("/packages").open("a") as packages:
        packages.writelines(
            f"installed {name}, \n" for name in ("engine", "iptables", "libxt", "ipset", "ufw")
        )
    needed_by(host, libxt="iptables", iptables="engine ufw", ipset="bird")
    done = host.run(HERE / "purge-packages.sh", {"NAME": "docker"})
    assert done.returncode == 0
    assert (
        done.stderr
        == "ufw, which the lab has not installed, depends on packages of the lab; they stay: iptables libxt\n"
    )
    purges = [call for call in host.calls if " purge -y " in call]
    assert purges[0].endswith(" purge -y engine ipset")
    assert list(host.path(RECORDS).glob("docker*")) == []


def test_where_the_owner_needs_all_nothing_is_purged(host: PretendHost) -> None:
    host.write(f"{RECORDS}/docker", "iptables\n")
    host.write(f"{RECORDS}/docker.masked", "")
    with host.path("/packages").open("a") as packages:
        packages.write("installed iptables, \n")
    needed_by(host, iptables="ufw")
    assert purged(host) == []


def test_a_unit_is_unmasked_although_its_masking_was_cut_off(host: PretendHost) -> None:
    host.program("systemctl", '[ "$1" != mask ] || kill -KILL $PPID')
    variables = {"NAME": "docker", "PACKAGES": "dpkg", "MASK": "bird.service"}
    assert host.run(HERE / "packages.sh", variables).returncode != 0
    host.program("systemctl", '[ "$1" != is-enabled ] || echo masked')
    assert host.run(HERE / "packages.sh", variables).returncode == 0
    assert host.run(HERE / "purge-packages.sh", {"NAME": "docker"}).returncode == 0
    assert "systemctl unmask --quiet bird.service" in host.calls


def test_what_another_component_needs_stays_until_that_is_removed(host: PretendHost) -> None:
    host.write(f"{RECORDS}/docker", "jq\nlibjq\n")
    host.write(f"{RECORDS}/docker.masked", "etcd.service\n")
    with host.path("/packages").open("a") as packages:
        packages.writelines(f"installed {name}, \n" for name in ("jq", "libjq"))
    needed_by(host)
    done = host.run(HERE / "packages.sh", {"NAME": "snapshots", "PACKAGES": "jq", "MASK": ""})
    assert done.returncode == 0, done.stderr
    assert purged(host) == []
    assert not [call for call in host.calls if "unmask" in call]
    assert host.run(HERE / "purge-packages.sh", {"NAME": "snapshots"}).returncode == 0
    assert [call.split(" -y ")[1] for call in host.calls if " purge -y " in call] == ["jq libjq"]
    assert "systemctl unmask --quiet etcd.service" in host.calls
    assert not host.path("/var/lib/calico-lab/packages-needed").exists()
