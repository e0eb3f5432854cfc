"""The whole config: what is refused, with the exact message, and what is accepted."""

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.shared.section import Section
from config.loading import ConfigError, load
from config.messages import MESSAGE
from config.model import LabConfig, components
from config.validation import total_memory
from tests.preview.program import config_of

HERE = Path(__file__).parent
REFUSED: dict[str, Any] = json.loads((HERE / "refused.json").read_text())
TAKEN: dict[str, Any] = json.loads((HERE / "taken.json").read_text())
CPUS, MEMORY = 4, 8192


@pytest.fixture(autouse=True)
def controller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fixes the size of the controller, and gives its ssh-agent a key."""
    monkeypatch.setattr("config.validation.os.cpu_count", lambda: CPUS)
    monkeypatch.setattr("config.validation.total_memory", lambda _: MEMORY)
    monkeypatch.setattr("components.hosts.config.unusable_agent", lambda: None)


def changed(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the original lab's config with other values at some paths."""
    document = {key.removeprefix("calico-lab:"): value for key, value in config_of("lab").items()}
    document = copy.deepcopy(document)
    for path, value in changes.items():
        *keys, last = path.split(".")
        place = document
        for key in keys:
            place = place.setdefault(key, {})
        place[last] = value
    return document


def read(document: Mapping[str, Any]) -> LabConfig:
    # As the engine gives it; there is no `Pulumi.x.yaml`, so messages have no line numbers.
    values = {f"calico-lab:{section}": json.dumps(value) for section, value in document.items()}
    return load(values, "Pulumi.x.yaml")


def problems(document: Mapping[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        read(document)
    first, *lines = str(refused.value).split("\n")
    assert first == f"Pulumi.x.yaml has {len(lines)} problem(s):"
    return [line.removeprefix("  ") for line in lines]


@pytest.mark.parametrize("name", REFUSED)
def test_load_refused(name: str) -> None:
    case = REFUSED[name]
    assert problems(changed(case["config"])) == case["problems"]


@pytest.mark.parametrize("name", TAKEN)
def test_load_accepted(name: str) -> None:
    case = TAKEN[name]
    accepted = read(changed(case["config"])).model_dump(mode="json", by_alias=True)
    for path, value in case.get("as", {}).items():
        found = accepted
        for key in path.split("."):
            found = found[key]
        assert found == value


def numbers(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields each field of a model that is a number: the model and the key."""
    for name, model in schema["$defs"].items():
        for key, field in model.get("properties", {}).items():
            kinds = {option.get("type") for option in (field, *field.get("anyOf", []))}
            if kinds & {"integer", "number"}:
                yield name, key


def models(model: Any) -> Iterator[Any]:  # noqa: ANN401 - a class
    yield model
    for child in model.__subclasses__():
        yield from models(child)


def test_load_refuses_true_for_a_number() -> None:
    by_name = {model.__name__: model for model in models(Section)}
    fields = sorted(set(numbers(LabConfig.model_json_schema(by_alias=True))))
    assert len(fields) > 12
    for name, key in fields:
        model = by_name[name.rpartition("__")[2]]
        for value in (True, False, float("inf"), float("nan"), "inf", "nan"):
            with pytest.raises(ValueError, match=key) as refused:
                model.model_validate({key: value})
            assert key in [error["loc"][0] for error in refused.value.errors()], f"{name}.{key}: {value}"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "hostile",
    [
        "x" * 2**20,
        "\n" * 2**10,
        "\x1b[31m" * 2**10,
        "a0\n  line 2: all is well",
        "[" * 100_000,
        "\u202e",
        "é" * 500,
    ],
    ids=["long", "lines", "colours", "forged line", "deep", "right to left", "not ASCII"],
)
@pytest.mark.parametrize(
    "path",
    [
        *("hosts", "hosts.provider", "hosts.network", "hosts.members.a0.address", "hosts.members.a0.mac"),
        *("etcd.members", "etcd.token", "network.name", "network.cidr", "network.policies.p.appliesTo"),
        *("notebook.host", "notebook.address", "notebook.cpus", "proxy.port", "firewall.operator"),
        *("firewall.sets.s", "firewall.policies.p.hosts", "firewall.policies.p.rules"),
    ],
)
def test_load_error_is_one_short_line(path: str, hostile: str) -> None:
    for value in (hostile, [hostile], {hostile: hostile}):
        for problem in problems(changed({path: value})):
            assert len(problem) <= MESSAGE
            assert problem.isprintable()


def test_load_error_quotes_a_long_key_short() -> None:
    [problem] = problems(changed({"etcd": {"x" * 2**20: 1}}))
    assert problem == f"etcd.{'x' * 59}…: this key is not known; docs/config.md lists the keys"


def test_load_memory_in_mib() -> None:
    assert total_memory("MemTotal:       16384000 kB\nMemFree:  1 kB\n") == 16000


# Likely, nearly correct and hostile values.
WORDS = [
    *(
        "",
        "a0",
        "all",
        "docker",
        "existing",
        "visitor",
        "yes",
        "-1",
        "0",
        "8888",
        "65536",
        "1e9",
        "inf",
        "nan",
    ),
    *(
        "10.0.0.0/8",
        "10.0.0.1/8",
        "169.254.1.1",
        "0.0.0.0/0",
        "::1",
        "02:42:ac:10:06:42",
        "has(x)",
        "((((",
        "~x/y",
    ),
    *("$(reboot)", "--help", "a\nb", "\0", "\x1b[2J", "\ud800", "²", "x" * 300),
]
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3),
    max_leaves=6,
)


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:  # noqa: ANN401
    """Yields the path of each value in a document."""
    yield path
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        yield from paths(inner, (*path, step))


BASE = changed(
    {
        "network.policies.p": {
            "appliesTo": "notebook",
            "order": 1,
            "ingress": [{"action": "deny", "ports": [1]}],
        },
        "firewall.policies.p": {"hosts": ["a0"], "rules": [{"action": "drop", "rateLimit": {"packets": 1}}]},
        "firewall.undoSeconds": 15,
        "network.mtu": 1400,
        "network.hosts": ["a0", "a1", "a2"],
        "notebook.cpus": 1,
        "notebook.memory": 512,
        "proxy.apiPort": 8001,
        "etcd.peerPort": 2380,
    }
)
EXISTING = {"provider": "existing", "privateKey": __file__, "knownHosts": "/dev/null", "members": {}}
EXISTING["members"] = {
    name: {"address": f"10.0.0.{n}", "port": 22} for n, name in enumerate(("a0", "a1", "a2"), 1)
}


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), existing=st.booleans())
def test_load_any_document(data: st.DataObject, existing: bool) -> None:
    document = copy.deepcopy({**BASE, "hosts": EXISTING} if existing else BASE)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from([path for path in paths(document) if path]))
        place: Any = document
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = data.draw(ANYTHING)
        if isinstance(place, dict) and data.draw(st.booleans()):
            place[data.draw(st.sampled_from(WORDS))] = data.draw(ANYTHING)
    try:
        read(document)
    except ConfigError as error:
        for line in str(error).split("\n"):
            assert line.isprintable()
            assert 0 < len(line) <= MESSAGE + 2


@pytest.mark.parametrize(
    ("changes", "host", "expected"),
    [
        ({}, "a0", ["etcd", "calico-programs", "calico", "sshbox"]),
        ({}, "a1", ["etcd", "calico-programs", "calico"]),
        ({}, "a2", ["etcd", "calico-programs", "calico", "proxy"]),
        ({"etcd.members": ["a1"]}, "a0", ["calico-programs", "calico", "sshbox"]),
        ({"network.hosts": ["a0", "a1"], "proxy.host": "a1"}, "a2", ["etcd"]),
        (
            {"sshBoxes": {"b": {"host": "a2"}}},
            "a2",
            ["etcd", "calico-programs", "calico", "sshbox-b", "proxy"],
        ),
        ({"proxy.host": "a0"}, "a0", ["etcd", "calico-programs", "calico", "sshbox", "proxy"]),
        ({"proxy.secondHost": "a1"}, "a1", ["etcd", "calico-programs", "calico", "proxy-second"]),
    ],
    ids=["a0", "a1", "a2", "no-member", "not-on-the-network", "another-box", "service-moved", "second-proxy"],
)
def test_components_of_a_host_are_those_of_its_sections(
    changes: dict[str, Any], host: str, expected: list[str]
) -> None:
    assert components(read(changed(changes)))[host] == expected
