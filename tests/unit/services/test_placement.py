"""A move of a service that keeps something: what is told of it."""

from typing import Any

import pytest

from components.services.placement import _PlacementProvider

PLACEMENT = {"container": "calico-lab-notebook", "host": "a1", "folder": "/home/notebook/work"}


def told(olds: dict[str, Any], news: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> str:
    checked = _PlacementProvider().check(olds, news)
    assert checked.failures == []
    assert checked.inputs == news
    return capfd.readouterr().err


def test_a_move_is_told_with_what_is_lost_and_how_to_keep_it(capfd: pytest.CaptureFixture[str]) -> None:
    said = told(PLACEMENT, {**PLACEMENT, "host": "a2"}, capfd)
    assert "calico-lab-notebook moves from a1 to a2" in said
    assert "What is saved in /home/notebook/work on a1 is deleted" in said
    assert "docker cp calico-lab-notebook:/home/notebook/work -" in said


@pytest.mark.parametrize("olds", [PLACEMENT, {}], ids=["it stays", "there was none"])
def test_nothing_is_told_of_one_that_does_not_move(
    olds: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    assert told(olds, PLACEMENT, capfd) == ""


def test_a_move_alone_is_a_change() -> None:
    provider = _PlacementProvider()
    assert not provider.diff(
        "place", {**PLACEMENT, "__provider": "old"}, {**PLACEMENT, "__provider": "new"}
    ).changes
    assert provider.diff("place", PLACEMENT, {**PLACEMENT, "host": "a2"}).changes
    assert provider.update("place", PLACEMENT, {**PLACEMENT, "host": "a2"}).outs == {
        **PLACEMENT,
        "host": "a2",
    }
