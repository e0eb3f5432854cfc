"""A set from a file: the same as one in the config; an error names the line."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from components.firewall.rules.compile import compile_policies
from components.firewall.rules.config import FirewallConfig
from components.firewall.rules.resolve import resolve
from tests.unit.firewall.firewall_cases import LAB


def config(members: object) -> FirewallConfig:
    policy = {"hosts": ["a0"], "rules": [{"action": "drop", "source": "some"}]}
    return FirewallConfig.model_validate({"sets": {"some": members}, "policies": {"p": policy}})


def test_set_from_a_file_equals_a_list(tmp_path: Path) -> None:
    file = tmp_path / "some.txt"
    file.write_text("# blocked\n10.0.0.0/8   # a network\n\n  fd00::7\nvisitor\n")
    listed = config(["10.0.0.0/8", "fd00::7", "visitor"])
    assert config({"file": str(file)}) == listed
    assert compile_policies(resolve(config({"file": str(file)}), LAB)["a0"]) == compile_policies(
        resolve(listed, LAB)["a0"]
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10.0.0.1\n10.0.0.1/8\n", "some.txt:2: '10.0.0.1/8': has host bits set"),
        ("10.0.0.1, 10.0.0.2\n", "some.txt:1: '10.0.0.1, 10.0.0.2': must be an address"),
        ("# nothing\n", "a set needs at least one member"),
        ("0.0.0.0/0\n", "a set must not have every address"),
        (None, "some.txt: cannot be read: No such file or directory"),
        ("\udcff", "some.txt: cannot be read: 'utf-8' codec can't decode"),
    ],
)
def test_set_from_a_file_reports_the_line(text: str | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "some.txt"
    if text is not None:
        file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValidationError) as error:
        config({"file": str(file)})
    assert message in error.value.errors()[0]["msg"]


@pytest.mark.parametrize("members", [{}, {"file": 1}, {"path": "some.txt"}, {"file": "a", "more": "b"}])
def test_set_refuses_other_mappings(members: object) -> None:
    with pytest.raises(ValidationError, match=r"must be a list of members, or \{file: PATH\}"):
        config(members)


@settings(max_examples=300, deadline=None)
@given(text=st.text())
def test_set_from_a_file_with_any_text(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "any.txt"
    file.write_bytes(text.encode(errors="surrogatepass"))
    try:
        config({"file": str(file)})
    except ValidationError as error:
        assert error.errors()[0]["msg"]
