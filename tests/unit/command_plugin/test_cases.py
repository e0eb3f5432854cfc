"""Every case of the table holds, for this plugin or for an official one."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from command_plugin.properties import Properties, Secret, Value, read, same, write
from google.protobuf.struct_pb2 import Struct
from pulumi.runtime.proto import provider_pb2 as rpc

from tests.unit.command_plugin.cases import CASES, LOCAL, SILENT, Case, Connection, Expect, stdout
from tests.unit.command_plugin.testbed import Plugin, Sshd

OFFICIAL = "COMMAND_PLUGIN_OFFICIAL" in os.environ
TIMEOUT_S = 60


class Runner:
    """Runs one case in a directory."""

    def __init__(self, plugin: Plugin, sshd: Sshd, directory: Path) -> None:
        self._plugin = plugin
        self._sshd = sshd
        self._directory = directory

    def problems(self, name: str, case: Case, expect: Expect) -> Iterator[str]:
        """Runs a case and yields how its result differs from the expected one."""
        subprocess.run(["sh", "-euc", case.before], cwd=self._directory, check=True)
        urn = f"urn:pulumi:test::cases::command:{case.type}::{name}"
        before = len(self._plugin.engine.messages)
        try:
            response = self._call(case, urn)
        except grpc.RpcError as error:
            yield from self._compare_error(error.details() or "", expect)
        else:
            if expect.error is not None:
                yield "expected an error, but it succeeded"
            yield from self._compare(response, case, expect)
        shown = "\n".join(message.text for message in self._plugin.engine.messages[before:])
        yield from (f"{text!r} is not shown: {shown!r}" for text in expect.shown if text not in shown)
        yield from (f"{text!r} is shown" for text in expect.not_shown if text in shown)
        after = subprocess.run(
            ["sh", "-euxc", case.after], cwd=self._directory, capture_output=True, text=True, check=False
        )
        if after.returncode:
            yield f"the effect is not the expected one: {after.stderr}"

    def _call(self, case: Case, urn: str) -> Any:  # noqa: ANN401 - the response of the operation
        news, olds = self._message(case.inputs or {}), self._message(case.state)
        stub = self._plugin.stub
        match case.operation:
            case "check":
                return stub.Check(rpc.CheckRequest(urn=urn, news=news), timeout=TIMEOUT_S)
            case "diff":
                inputs = {name: value for name, value in case.state.items() if name not in SILENT}
                diff = rpc.DiffRequest(
                    id="case",
                    urn=urn,
                    olds=olds,
                    old_inputs=self._message(inputs),
                    news=news,
                    ignoreChanges=case.ignored,
                )
                return stub.Diff(diff, timeout=TIMEOUT_S)
            case "create":
                create = rpc.CreateRequest(urn=urn, properties=news, preview=case.preview)
                return stub.Create(create, timeout=TIMEOUT_S)
            case "update":
                update = rpc.UpdateRequest(id="case", urn=urn, olds=olds, news=news, preview=case.preview)
                return stub.Update(update, timeout=TIMEOUT_S)
            case "delete":
                return stub.Delete(rpc.DeleteRequest(id="case", urn=urn, properties=olds), timeout=TIMEOUT_S)
        return stub.Read(rpc.ReadRequest(id="case", urn=urn, properties=olds), timeout=TIMEOUT_S)

    def _compare(self, response: Any, case: Case, expect: Expect) -> Iterator[str]:  # noqa: ANN401
        wanted = {**(case.state if case.inputs is None else case.inputs), **expect.outputs}
        match case.operation:
            case "check":
                yield from _compare_failures(response.failures, expect.failures)
                if not response.failures:
                    yield from self._differences(wanted, response.inputs)
            case "diff":
                yield from _compare_changes(response, expect.changes)
            case "create" | "update" | "read":
                yield from self._differences(wanted, response.properties)
                if not re.fullmatch(expect.id, getattr(response, "id", "")):
                    yield f"its ID is {response.id!r}"

    def _compare_error(self, message: str, expect: Expect) -> Iterator[str]:
        if expect.error is None:
            yield f"it failed: {message}"
        for text in map(self._fill_in, expect.error or ()):
            if text not in message:
                yield f"the error does not contain {text!r}: {message}"
        yield from (
            f"the error contains {text!r}: {message}" for text in expect.not_in_error if text in message
        )

    def _differences(self, wanted: dict[str, Any], found: Struct) -> Iterator[str]:
        properties, expected = read(found), read(self._message(wanted))
        for name in sorted(properties.keys() | expected.keys()):
            if not same(properties.get(name), expected.get(name)):
                yield f"{name} is {_short(properties.get(name))}, not {_short(expected.get(name))}"

    def _message(self, given: dict[str, Any]) -> Struct:
        return write({name: self._value(value) for name, value in given.items()})

    def _value(self, given: Any) -> Value:  # noqa: ANN401
        match given:
            case str():
                return self._fill_in(given)
            case Secret():
                return Secret(self._value(given.value))
            case Connection():
                settings: Properties = {**self._sshd.connection, **self._fields(given.changed)}
                return Secret(settings) if given.secret else settings
            case dict():
                return self._fields(given)
            case list():
                return [self._value(item) for item in given]
        value: Value = given
        return value

    def _fields(self, given: dict[str, Any]) -> dict[str, Value]:
        return {name: self._value(value) for name, value in given.items()}

    def _fill_in(self, text: str) -> str:
        known = {
            "directory": str(self._directory),
            "user": self._sshd.user,
            **{name: self._sshd.read(name) for name in ("locked_key", "stranger", "stranger.pub")},
        }
        return re.sub(r"\$\{([a-z_.]+)\}", lambda match: known.get(match[1], match[0]), text)


def _compare_failures(failures: Any, expected: tuple[str, ...]) -> Iterator[str]:  # noqa: ANN401
    found = [failure.reason for failure in failures]
    missing = [text for text in expected if not any(text in reason for reason in found)]
    if missing or len(found) != len(expected):
        yield f"it refuses {found}, not {list(expected)}"


def _compare_changes(response: rpc.DiffResponse, expected: dict[str, str]) -> Iterator[str]:
    if bool(expected) != (response.changes == rpc.DiffResponse.DIFF_SOME):
        yield "it is a change" if not expected else "it is no change"
    if any("replace" in change for change in expected.values()) != bool(response.replaces):
        yield f"the replaced properties are {response.replaces}"
    found = {
        path: rpc.PropertyDiff.Kind.Name(change.kind).lower().replace("_", " ")
        for path, change in response.detailedDiff.items()
    }
    if found != expected:
        yield f"the changes are {found}"


def _short(value: Value) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}… ({len(text)} characters)"


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if not (OFFICIAL and case.official_hangs)]
)
def test_case(name: str, plugin: Plugin, sshd: Sshd, tmp_path: Path) -> None:
    case = CASES[name]
    expect = (case.official if OFFICIAL else None) or case.expect
    assert list(Runner(plugin, sshd, tmp_path).problems(name, case, expect)) == []


@pytest.mark.parametrize(
    ("create", "expect", "after", "problem"),
    [
        ("echo a", stdout("b"), "", "stdout is 'a', not 'b'"),
        ("echo a", Expect({"stdout": "a"}), "", "stderr is '', not None"),
        ("echo a", Expect(error=("x",)), "", "expected an error, but it succeeded"),
        ("exit 1", Expect(error=("nowhere",)), "", "the error does not contain 'nowhere'"),
        ("true", Expect(SILENT), "false", "the effect is not the expected one"),
    ],
)
def test_runner_problem(
    plugin: Plugin, sshd: Sshd, tmp_path: Path, *, create: str, expect: Expect, after: str, problem: str
) -> None:
    case = Case(LOCAL, "create", {"create": create}, after=after)
    problems = list(Runner(plugin, sshd, tmp_path).problems("case", case, expect))
    assert any(problem in line for line in problems), problems
