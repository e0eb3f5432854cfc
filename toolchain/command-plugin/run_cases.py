"""Run the cases in `cases/` against a `command` plugin: this one, or an official one.

    python run_cases.py --plugin ~/.pulumi/plugins/resource-command-v1.2.1/pulumi-resource-command --official

A case states one semantic: an operation with its inputs, and what comes out. Expected outputs are what the
operation adds to its inputs, which come back as they went in. In values, `{"$secret": v}` is a secret,
`"$unknown"` a value that a preview does not know, `{"$matches": regex}` a text, `{"$connection": {...}}` the
connection to the test's sshd with some settings changed, `${directory}` an empty directory of the case's own,
and `${key}`, `${port}` and so on are the sshd's. `before` and `after` are shell commands, of which the second
one tests what the operation has done. Where the official plugin does otherwise, on purpose, `official` says
what and why.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import grpc
from command_plugin.properties import (
    ARCHIVE,
    ASSET,
    SIGNATURE,
    UNKNOWN,
    Properties,
    Secret,
    Value,
    read,
    same,
    write,
)
from google.protobuf.struct_pb2 import Struct
from pulumi.runtime.proto import provider_pb2 as rpc
from testbed import Plugin, Sshd

Case: TypeAlias = dict[str, Any]

CASES: Final = Path(__file__).parent / "cases"
TIMEOUT: Final = 60


def load() -> dict[str, Case]:
    """All cases by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(CASES.glob("*.json"))}


class Runner:
    """Runs cases against one plugin and one sshd."""

    def __init__(self, plugin: Plugin, sshd: Sshd, *, official: bool) -> None:
        self._plugin = plugin
        self._sshd = sshd
        self._official = official

    def problems(self, name: str, case: Case) -> list[str]:
        """Run one case: how its outcome differs from what it states."""
        expected: Case = case["expect"]
        if self._official and "official" in case:
            if "expect" not in case["official"]:
                return []
            expected = case["official"]["expect"]
        with tempfile.TemporaryDirectory(prefix="case-") as directory:
            return list(self._problems(name, case, expected, directory))

    def _problems(self, name: str, case: Case, expected: Case, directory: str) -> Iterator[str]:
        for key in ("error", "errorWithout"):
            if key in expected:
                expected = {**expected, key: [self._fill_in(text, directory) for text in expected[key]]}
        urn = f"urn:pulumi:test::cases::command:{case['type']}::{name}"
        if "before" in case:
            subprocess.run(["sh", "-euc", case["before"]], cwd=directory, check=True)
        before = len(self._plugin.engine.messages)
        try:
            response = self._ask(case, urn, directory)
        except grpc.RpcError as error:
            yield from _compare_error(error.details() or "", expected)
        else:
            if "error" in expected:
                yield "expected an error, but it succeeded"
            yield from self._compare(response, case, expected, directory)
        logged = self._plugin.engine.messages[before:]
        for severity, fragments in expected.get("log", {}).items():
            texts = "\n".join(
                message.text
                for message in logged
                if (message.severity, message.passing) == _severity(severity)
            )
            yield from (f"{severity} {f!r} was not logged: {texts!r}" for f in fragments if f not in texts)
        for fragment in expected.get("notLogged", []):
            yield from (f"{fragment!r} was logged" for message in logged if fragment in message.text)
        if "after" in case:
            done = subprocess.run(
                ["sh", "-euxc", case["after"]], cwd=directory, capture_output=True, text=True, check=False
            )
            if done.returncode:
                yield f"what it did is not as stated: {done.stderr}"

    def _ask(self, case: Case, urn: str, directory: str) -> Any:  # noqa: ANN401, PLR0911 - one per operation
        def properties(key: str) -> Struct:
            return write(self._values(case.get(key, {}), directory))

        stub, preview = self._plugin.stub, case.get("preview", False)
        match case["operation"]:
            case "check":
                return stub.Check(rpc.CheckRequest(urn=urn, news=properties("inputs")))
            case "diff":
                old = "oldInputs" if "oldInputs" in case else "state"
                request = rpc.DiffRequest(
                    id="case",
                    urn=urn,
                    olds=properties("state"),
                    old_inputs=properties(old),
                    news=properties("inputs"),
                    ignoreChanges=case.get("ignoreChanges", []),
                )
                return stub.Diff(request, timeout=TIMEOUT)
            case "create":
                create = rpc.CreateRequest(urn=urn, properties=properties("inputs"), preview=preview)
                return stub.Create(create, timeout=TIMEOUT)
            case "update":
                update = rpc.UpdateRequest(
                    id="case", urn=urn, olds=properties("state"), news=properties("inputs"), preview=preview
                )
                return stub.Update(update, timeout=TIMEOUT)
            case "delete":
                return stub.Delete(
                    rpc.DeleteRequest(id="case", urn=urn, properties=properties("state")), timeout=TIMEOUT
                )
            case "read":
                return stub.Read(rpc.ReadRequest(id="case", urn=urn, properties=properties("state")))
            case "invoke":
                invoke = rpc.InvokeRequest(tok=f"command:{case['type']}", args=properties("inputs"))
                return stub.Invoke(invoke, timeout=TIMEOUT)
        raise ValueError(f"no such operation: {case['operation']}")

    def _compare(self, response: Any, case: Case, expected: Case, directory: str) -> Iterator[str]:  # noqa: ANN401
        inputs = self._values(case["inputs"] if "inputs" in case else case["state"], directory)
        match case["operation"]:
            case "check":
                yield from _compare_failures(response.failures, expected)
                if not response.failures:
                    yield from _differences(
                        inputs | self._outputs(expected, directory), read(response.inputs)
                    )
            case "diff":
                yield from _compare_diff(response, expected)
            case "create" | "update" | "read":
                wanted = inputs | self._outputs(expected, directory)
                yield from _differences(wanted, read(response.properties))
                if "id" in expected and not re.fullmatch(expected["id"], response.id):
                    yield f"its id is {response.id!r}"
            case "invoke":
                yield from _compare_failures(response.failures, expected)
                if not response.failures:
                    wanted = inputs | self._outputs(expected, directory)
                    yield from _differences(wanted, read(getattr(response, "return")))

    def _outputs(self, expected: Case, directory: str) -> Properties:
        return self._values(expected.get("outputs", {}), directory)

    def _values(self, given: dict[str, Any], directory: str) -> Properties:
        return {key: self._value(value, directory) for key, value in given.items()}

    def _value(self, given: Any, directory: str) -> Value:  # noqa: ANN401, PLR0911 - one per notation
        match given:
            case "$unknown":
                return UNKNOWN
            case str():
                return self._fill_in(given, directory)
            case bool():
                return given
            case int():
                return float(given)
            case {"$secret": value}:
                return Secret(self._value(value, directory))
            case {"$connection": changes}:
                connection = self._sshd.connection | self._values(changes, directory)
                return Secret({name: value for name, value in connection.items() if value is not None})
            case {"$proxy": changes}:
                connection = self._sshd.connection | self._values(changes, directory)
                return {name: value for name, value in connection.items() if value is not None}
            case {"$asset": fields}:
                return {SIGNATURE: ASSET, **self._values(fields, directory)}
            case {"$archive": fields}:
                return {SIGNATURE: ARCHIVE, **self._values(fields, directory)}
            case {"$repeat": [text, times]}:
                return str(text) * int(times)
            case dict():
                return self._values(given, directory)
            case list():
                return [self._value(item, directory) for item in given]
        return None if given is None else float(given)

    def _fill_in(self, text: str, directory: str) -> str:
        known = {
            "directory": directory,
            "port": str(self._sshd.port),
            "user": self._sshd.user,
            **{
                name: self._sshd.read(name)
                for name in ("key", "locked_key", "stranger", "stranger.pub", "host_key.pub")
            },
        }
        return re.sub(r"\$\{([a-z_.]+)\}", lambda match: known.get(match[1], match[0]), text)


def _severity(name: str) -> tuple[str, bool]:
    return ("info", True) if name == "status" else (name, False)


def _compare_error(message: str, expected: Case) -> Iterator[str]:
    if "error" not in expected:
        yield f"it failed: {message}"
        return
    yield from (f"the error does not say {f!r}: {message}" for f in expected["error"] if f not in message)
    yield from (f"the error says {f!r}: {message}" for f in expected.get("errorWithout", []) if f in message)


def _compare_failures(failures: Any, expected: Case) -> Iterator[str]:  # noqa: ANN401
    found = {failure.property: failure.reason for failure in failures}
    wanted: dict[str, str] = expected.get("failures", {})
    if found.keys() != wanted.keys():
        yield f"it refuses {found or 'nothing'}"
    for name, fragment in wanted.items():
        if fragment not in found.get(name, ""):
            yield f"of {name} it says {found.get(name)!r}"


def _compare_diff(response: rpc.DiffResponse, expected: Case) -> Iterator[str]:
    kind = "none"
    if response.changes == rpc.DiffResponse.DIFF_SOME:
        kind = "replace" if response.replaces else "update"
    if kind != expected["diff"]:
        yield f"it is a diff of kind {kind}"
    detail = {
        path: rpc.PropertyDiff.Kind.Name(change.kind).lower().replace("_", " ")
        for path, change in response.detailedDiff.items()
    }
    if detail != expected.get("changes", {}):
        yield f"its changes are {detail}"


def _differences(wanted: Properties, found: Properties) -> Iterator[str]:
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) is None and name not in found:
            continue
        if name not in found:
            yield f"{name} is missing"
        elif name not in wanted:
            yield f"{name} is there: {_short(found[name])}"
        elif not _matches(wanted[name], found[name]):
            yield f"{name} is {_short(found[name])}, not {_short(wanted[name])}"


def _matches(wanted: Value, found: Value) -> bool:
    match wanted, found:
        case {"$matches": str(pattern)}, str():
            return re.fullmatch(pattern, found, re.DOTALL) is not None
        case dict(), dict() if SIGNATURE not in wanted:
            return wanted.keys() == found.keys() and all(_matches(v, found[k]) for k, v in wanted.items())
        case Secret(), Secret():
            return _matches(wanted.value, found.value)
    return same(wanted, found)


def _short(value: Value) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}… ({len(text)} characters)"


def main() -> int:
    """Run all cases, or those named, and say what differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="*", help="names of cases; all without")
    parser.add_argument("--plugin", required=True, help="the program: …/pulumi-resource-command")
    parser.add_argument("--official", action="store_true", help="expect what the official plugin does")
    arguments = parser.parse_args()
    cases = load()
    failed = 0
    with Sshd() as sshd, Plugin([arguments.plugin]) as plugin:
        runner = Runner(plugin, sshd, official=arguments.official)
        for name in arguments.cases or cases:
            problems = runner.problems(name, cases[name])
            failed += bool(problems)
            print(f"{'FAIL' if problems else 'ok  '} {name}", *problems, sep="\n       ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
