"""A set from a file: as one that stands in the config, and refused with the line."""

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


def test_a_file_is_a_list(tmp_path: Path) -> None:
    file = tmp_path / "some.txt"
    file.write_text("# blocked\n10.0.0.0/8   # a network\n\n  fd00::7\nvisitor\n")
    listed = config(["10.0.0.0/8", "fd00::7", "visitor"])
    assert config({"file": str(file)}) == listed
    assert compile_policies(resolve(config({"file": str(file)}), LAB)["a0"]) == compile_policies(
        resolve(listed, LAB)["a0"]
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10.0.0.1\n10.0.0.1/8\n", "some.txt:2: '10.0.0.1/8': has host bits set"),
        ("10.0.0.1, 10.0.0.2\n", "some.txt:1: '10.0.0.1, 10.0.0.2': must be an address"),
        ("# nothing\n", "a set needs at least one member"),
        ("0.0.0.0/0\n", "a set must not have every address"),
        (None, "some.txt: cannot be read: No such file or directory"),
        ("\udcff", "some.txt: cannot be read: 'utf-8' codec can't decode"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "some.txt"
    if text is not None:
        file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValidationError) as error:
        config({"file": str(file)})
    assert said in error.value.errors()[0]["msg"]


@pytest.mark.parametrize("members", [{}, {"file": 1}, {"path": "some.txt"}, {"file": "a", "more": "b"}])
def test_only_a_file(members: object) -> None:
    with pytest.raises(ValidationError, match=r"must be a list of members, or \{file: PATH\}"):
        config(members)


@settings(max_examples=300, deadline=None)
@given(text=st.text())
def test_any_text_is_taken_or_refused(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "any.txt"
    file.write_bytes(text.encode(errors="surrogatepass"))
    try:
        config({"file": str(file)})
    except ValidationError as error:
        assert error.errors()[0]["msg"]
