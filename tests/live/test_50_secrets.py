"""No secret is in the clear anywhere, except in the files on the hosts that root alone may read."""

import base64
from collections.abc import Iterator

import pytest

from components.hosts import remote
from tests.live.program import Program
from workspace.outputs import PROJECT, Outputs

# The classes of components/shared/secrets.py, and which of their properties are secret.
SECRETS = {"Token": "value", "SshKey": "private_key", "CertificateAuthority": "private_key",
           "Certificate": "private_key"}  # fmt: skip
PLAINTEXT = "plaintext"
# What anyone on a host may see, and what is shown or kept by programs that know nothing of secrets.
PLACES = {
    "processes": "ps -e -ww -o args",
    "environments": "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'",
    "journal": "journalctl --no-pager --boot -o cat",
    "containers": 'ids=$(docker ps -aq); [ -z "$ids" ] || docker inspect $ids',
    "logs of containers": "docker ps -aq | xargs -r -n 1 docker logs 2>&1",
    "images": "docker images -q | sort -u | xargs -r -n 1 docker history --no-trunc",
    "files that all may read": "find /etc /opt /var/lib/calico-lab /run -xdev -type f -perm -004 -size -1M "
    "-exec cat {} + 2>/dev/null; true",
}


class TellTales(dict[str, str]):
    """What gives secrets away, with the resource that each belongs to; a failing test does not print it."""

    def __repr__(self) -> str:
        return f"{len(self)} tell-tales"


def tell_tales(value: str) -> Iterator[str]:
    """What gives a secret away: the secret itself, and its end in base64.

    Of a key it is the last whole line: the first ones are the same in all keys of a kind.
    """
    lines = value.splitlines()
    yield [line for line in lines if len(line) == max(map(len, lines))][-1]
    # Without its last characters, which depend on what follows.
    yield base64.b64encode(value.encode()).decode()[-64:-4]


@pytest.fixture(scope="module")
def secrets(program: Program) -> TellTales:
    """Every tell-tale of the stack's secrets."""
    found = TellTales()
    for resource in program.state()["deployment"]["resources"]:
        kind = resource["type"].rpartition(":")[2]
        if kind in SECRETS:
            outputs = resource["outputs"]
            value = outputs[SECRETS[kind]]
            assert PLAINTEXT in value, f"{resource['urn']}: {SECRETS[kind]} is not kept as a secret"
            for tale in tell_tales(program.plaintext(value)):
                found[tale] = resource["urn"]
    assert len(found) > 10
    return found


def given_away(text: str, secrets: TellTales) -> set[str]:
    return {urn for tale, urn in secrets.items() if tale in text}


def test_secrets_search_finds_a_secret(program: Program, secrets: TellTales, token: str) -> None:
    assert given_away(f"... {token} ...", secrets)
    assert given_away((PROJECT / ".state" / "ssh" / program.stack / "identity").read_text(), secrets)


def test_secrets_not_in_state(program: Program, secrets: TellTales) -> None:
    files = [file for file in (PROJECT / ".state" / ".pulumi").rglob("*") if file.is_file()]
    assert any(file.name == f"{program.stack}.json" for file in files)
    for file in files:
        assert given_away(file.read_text(errors="replace"), secrets) == set(), file


def test_secrets_not_in_preview(program: Program, secrets: TellTales) -> None:
    told = program.pulumi("preview", "--diff", "--show-sames", "--non-interactive")
    assert given_away(told, secrets) == set()
    assert given_away(program.pulumi("preview", "--json", "--non-interactive"), secrets) == set()


def test_secrets_not_in_outputs(program: Program, secrets: TellTales) -> None:
    assert given_away(program.pulumi("stack", "output", "--json"), secrets) == set()


@pytest.mark.parametrize("place", PLACES)
def test_secrets_not_on_hosts(outputs: Outputs, secrets: TellTales, place: str) -> None:
    for machine, answer in remote.ask(outputs.ssh, PLACES[place], {}, seconds=60).items():
        if machine in outputs.hosts:
            assert answer.status == 0, f"{machine}: {place}: {answer.error}"
        assert given_away(answer.text, secrets) == set(), f"{machine}: {place}"
