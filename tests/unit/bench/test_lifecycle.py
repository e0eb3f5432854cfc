"""The steps and parts of a run, from the engine's events."""

import json
from pathlib import Path

import pytest

from bench import lifecycle
from bench.lifecycle import BenchError, Step

EVENTS = Path(__file__).with_name("events.jsonl")


def recorded() -> list[tuple[float, str]]:
    return [(at, json.dumps(event)) for at, event in map(json.loads, EVENTS.read_text().splitlines())]


def test_steps_of_recorded_events() -> None:
    assert list(lifecycle.steps(recorded())) == [
        Step("Hosts", "a0-container", 0.7, 1.7),
        Step("Hosts", "a1-container", 0.8, 2.8),
        Step("program", "authority", 3.3, 3.4),
        Step("EtcdCluster", "a0-etcd", 3.0, 5.0),
    ]


def test_parts_are_in_the_order_of_their_start() -> None:
    hosts, etcd, program = lifecycle.parts(lifecycle.steps(recorded()))
    assert (hosts.component, hosts.start, hosts.end) == ("Hosts", 0.7, 2.8)
    assert hosts.slowest.resource == "a1-container"
    assert (etcd.component, etcd.start, etcd.end) == ("EtcdCluster", 3.0, 5.0)
    assert program.slowest.seconds == pytest.approx(0.1)


def test_run_that_fails_has_the_engines_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = {"diagnosticEvent": {"severity": "error", "message": "a1: etcd: the member is not healthy\n"}}
    pulumi = tmp_path / "pulumi"
    pulumi.write_text(f"#!/bin/sh\nprintf '%s\\n' '{json.dumps(message)}'\nexit 255\n")
    pulumi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(
        BenchError, match="pulumi up --stack lab failed:\na1: etcd: the member is not healthy"
    ):
        lifecycle.run("up", "lab")
