"""`pulumi preview` of a lab that does not exist yet, by the real engine: what a newcomer sees first.

Pulumi's mocks give every resource its outputs. The engine does not know them at a preview, and only there do
providers get unknown inputs.
"""

import re
from pathlib import Path
from string import Template

import pytest
import yaml

from tests.live.apart import Apart
from tests.live.here import run
from tests.preview.program import config_with
from tests.previews import ProgramError

CASES = Path(__file__).with_name("cases.yaml").read_text()


@pytest.fixture(scope="module")
def nothing(tmp_path_factory: pytest.TempPathFactory) -> Apart:
    """A stack without resources, called as the lab's own."""
    stack = Apart(tmp_path_factory.mktemp("stack"), "lab")
    stack.make()
    return stack


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An operator's key file and a host key, and the roster of a class."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("key", "host"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / name))
    roster = folder / "students.csv"
    roster.write_text("\n".join(["name", *(f"student-{number}" for number in range(30))]))
    return {
        "key": str(folder / "key"),
        "host_key": (folder / "host.pub").read_text().strip(),
        "roster": str(roster),
    }


@pytest.mark.parametrize("case", yaml.safe_load(CASES))
def test_preview_from_nothing_creates_everything(case: str, nothing: Apart, files: dict[str, str]) -> None:
    differences = yaml.safe_load(Template(CASES).substitute(files))[case]
    creates = differences.pop("creates")
    seen = nothing.preview(config_with(differences))
    assert "Traceback" not in seen.text
    assert seen.operations == {"create": creates}


def test_preview_of_a_policy_that_locks_out_names_the_rule(nothing: Apart) -> None:
    policy = {"hosts": ["a0"], "rules": [{"action": "drop", "source": "172.16.0.0/16"}]}
    with pytest.raises(ProgramError) as refused:
        nothing.preview(config_with({"firewall.policies.locks-out": policy}))
    assert re.search(r"policies\.locks-out\.rules\[0\].*the operator's SSH, tcp/22 from", str(refused.value))
    assert "Traceback" not in str(refused.value)
