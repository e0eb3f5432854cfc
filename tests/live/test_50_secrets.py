"""No secret is in the clear anywhere, except in the files on the hosts that root alone may read."""

import base64
from collections.abc import Iterator

import pytest

from components.hosts import remote
from tests.live.program import Program
from workspace.outputs import PROJECT, Outputs

# The classes whose resources have a secret, and which of their properties it is.
SECRETS = {"Token": "value", "SshKey": "private_key", "CertificateAuthority": "private_key",
           "Certificate": "private_key", "NotebookWork": "token"}  # fmt: skip
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


class Fragments(dict[str, str]):
    """Fragments of secrets, with the resource that each belongs to; a failing test does not print them."""

    def __repr__(self) -> str:
        return f"{len(self)} fragments of secrets"


def fragments(value: str) -> Iterator[str]:
    """The fragments of a secret that are searched for: its last whole line, and its end in base64.

    The first lines are the same in all keys of a type.
    """
    lines = value.splitlines()
    yield [line for line in lines if len(line) == max(map(len, lines))][-1]
    # Without its last characters, which depend on what follows.
    yield base64.b64encode(value.encode()).decode()[-64:-4]


@pytest.fixture(scope="module")
def secrets(program: Program) -> Fragments:
    """The fragments of all secrets of the stack."""
    found = Fragments()
    for resource in program.state()["deployment"]["resources"]:
        kind = resource["type"].rpartition(":")[2]
        if kind in SECRETS:
            outputs = resource["outputs"]
            value = outputs[SECRETS[kind]]
            assert PLAINTEXT in value, f"{resource['urn']}: {SECRETS[kind]} is not kept as a secret"
            for fragment in fragments(program.plaintext(value)):
                found[fragment] = resource["urn"]
    assert len(found) > 10
    return found


def leaked(text: str, secrets: Fragments) -> set[str]:
    """The resources whose secrets are in a text."""
    return {urn for fragment, urn in secrets.items() if fragment in text}


def test_secrets_search_finds_a_secret(program: Program, secrets: Fragments, token: str) -> None:
    assert leaked(f"... {token} ...", secrets)
    assert leaked((PROJECT / ".state" / "ssh" / program.stack / "identity").read_text(), secrets)


def test_secrets_not_in_state(program: Program, secrets: Fragments) -> None:
    files = [file for file in (PROJECT / ".state" / ".pulumi").rglob("*") if file.is_file()]
    assert any(file.name == f"{program.stack}.json" for file in files)
    for file in files:
        assert leaked(file.read_text(errors="replace"), secrets) == set(), file


def test_secrets_not_in_preview(program: Program, secrets: Fragments) -> None:
    told = program.pulumi("preview", "--diff", "--show-sames", "--non-interactive")
    assert leaked(told, secrets) == set()
    assert leaked(program.pulumi("preview", "--json", "--non-interactive"), secrets) == set()


def test_secrets_not_in_outputs(program: Program, secrets: Fragments) -> None:
    assert leaked(program.pulumi("stack", "output", "--json"), secrets) == set()


@pytest.mark.parametrize("place", PLACES)
def test_secrets_not_on_hosts(outputs: Outputs, secrets: Fragments, place: str) -> None:
    for machine, answer in remote.ask(outputs.ssh, PLACES[place], {}, seconds=60).items():
        if machine in outputs.hosts:
            assert answer.status == 0, f"{machine}: {place}: {answer.error}"
        assert leaked(answer.text, secrets) == set(), f"{machine}: {place}"
