"""Runs the program under Pulumi's mocks and records every resource that it registers, as the engine would."""

import copy
import json
import re
import runpy
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
import yaml
from google.protobuf import json_format
from pulumi.runtime import mocks
from pulumi.runtime.config import set_all_config
from pulumi.runtime.proto import resource_pb2

PROJECT = Path(__file__).resolve().parents[2]
SECRET = "1b47061264138c4ac30d75fd1eb44270"
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
EXPORT = re.compile(r"""export (\w+)=((?:'[^']*'|"'"|[^'"\s])*)\n""")
"""A variable in front of a script, as `shlex.quote` writes its value."""


@dataclass(frozen=True)
class Registered:
    """One resource: what the program asked the engine for."""

    type: str
    name: str
    urn: str
    inputs: dict[str, Any]
    dependencies: frozenset[str]
    deleted_with: str
    provider: str
    replacement_trigger: Any
    """Another value replaces the resource; None and any value are the same, as they are to the engine."""
    retained: bool
    """Whether it leaves the stack without being deleted."""
    protected: bool
    """Whether the engine refuses to delete it."""

    def secrets(self) -> Iterator[Any]:
        """The secret values among its inputs."""
        yield from _secrets(self.inputs)

    def plain(self) -> str:
        """Its inputs as JSON, the secret ones left out."""
        return json.dumps(_without_secrets(self.inputs))


def _is_secret(value: Any) -> bool:  # noqa: ANN401 - a JSON value
    return isinstance(value, dict) and SECRET in value.values()


def _secrets(value: Any) -> Iterator[Any]:  # noqa: ANN401
    if _is_secret(value):
        yield value["value"]
    elif isinstance(value, dict):
        for item in value.values():
            yield from _secrets(item)
    elif isinstance(value, list):
        for item in value:
            yield from _secrets(item)


def _without_secrets(value: Any) -> Any:  # noqa: ANN401
    if _is_secret(value):
        return None
    if isinstance(value, dict):
        return {key: _without_secrets(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    return value


@dataclass
class Program:
    """What one run of the program registered."""

    resources: list[Registered] = field(default_factory=list)

    def named(self, name: str) -> Registered:
        """The one resource of that name, components and providers aside."""
        own = (r for r in self.resources if not r.type.startswith(("calico-lab:", "pulumi:providers:")))
        (found,) = (resource for resource in own if resource.name == name)
        return found

    def of_type(self, suffix: str) -> list[Registered]:
        """The resources whose type ends so."""
        return [resource for resource in self.resources if resource.type.endswith(suffix)]


class _Created(mocks.Mocks):
    """Every resource is made, with an id; of what it would only know afterwards it knows a sample."""

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        samples: dict[str, Any] = {}
        if args.typ.endswith((":SshKey", ":Token", ":Certificate", ":CertificateAuthority")):
            key = {"4dabf18193072939515e22adb298388d": SECRET, "value": f"the secret of {args.name}"}
            samples = {
                "public_key": "ssh-ed25519 AAAA",
                "certificate": "PEM",
                "private_key": key,
                "value": key,
            }
        elif args.typ.endswith(":SshAccess"):
            samples = {"config": ".state/ssh/lab/config"}
        elif args.typ.endswith(":DockerObject"):
            samples = {"made": "1a2b 192.168.0.101"}
        elif args.typ.endswith("local:Command"):
            samples = {"stdout": f"sha256:{args.name}", "stderr": ""}
        elif "command:" in args.typ:
            samples = {"stdout": "", "stderr": ""}
        return f"{args.name}-id", {**args.inputs, **samples}

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        raise AssertionError(f"the program asks {args.token} while it runs")


class _Planned(_Created):
    """Nothing is made yet: a resource has its inputs, and the rest is unknown."""

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        return "", dict(args.inputs)


class _Recorder(mocks.MockMonitor):
    def __init__(self, answers: mocks.Mocks, program: Program) -> None:
        super().__init__(answers)
        self._program = program

    def RegisterResource(  # noqa: N802 - gRPC's name
        self, request: resource_pb2.RegisterResourceRequest
    ) -> resource_pb2.RegisterResourceResponse:
        answer: resource_pb2.RegisterResourceResponse = super().RegisterResource(request)  # type: ignore[no-untyped-call]
        if request.type == "pulumi:pulumi:Stack":
            return answer
        self._program.resources.append(
            Registered(
                request.type,
                request.name,
                answer.urn,
                json_format.MessageToDict(request.object),
                frozenset(request.dependencies),
                request.deletedWith,
                request.provider,
                json_format.MessageToDict(request.replacement_trigger),
                request.retainOnDelete,
                request.protect,
            )
        )
        return answer


def variable(program: Program, command: str, name: str) -> str:
    """The value of a variable that a remote command exports to its script."""
    *_, script = shlex.split(program.named(command).inputs["create"])
    exports: dict[str, str] = {}
    while found := EXPORT.match(script):
        exports[found[1]] = "".join(shlex.split(found[2]))
        script = script[found.end() :]
    return exports[name]


def config_of(stack: str) -> dict[str, Any]:
    """The config section of `Pulumi.<stack>.yaml`."""
    document = yaml.safe_load((PROJECT / f"Pulumi.{stack}.yaml").read_text())
    sections: dict[str, Any] = document["config"]
    return sections


def config_with(values: Mapping[str, Any]) -> dict[str, Any]:
    """The config section of `Pulumi.lab.yaml` with some values set, by their paths, as `network.mtu`."""
    return with_values(config_of("lab"), values)


def with_values(config: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a config section with some values set, by their paths, as `network.mtu`."""
    config = copy.deepcopy(config)
    for path, value in values.items():
        *parents, last = f"calico-lab:{path}".split(".")
        section = config
        for parent in parents:
            section = section[parent]
        section[last] = value
    return config


def run(config: dict[str, Any], *, planned: bool = False, program: Program | None = None) -> Program:
    """Run the program.

    Args:
        config: Section by `calico-lab:<name>`.
        planned: As the first preview does: what is made later is unknown.
        program: Where to record it, for a run that is expected to fail.
    """
    program = program or Program()
    set_all_config({key: json.dumps(value) for key, value in config.items()})
    answers = _Planned() if planned else _Created()
    mocks.set_mocks(answers, "calico-lab", "lab", preview=planned, monitor=_Recorder(answers, program))

    @pulumi.runtime.test  # type: ignore[untyped-decorator]
    def main() -> None:
        runpy.run_path(str(PROJECT / "__main__.py"), run_name="__main__")

    main()
    return program
