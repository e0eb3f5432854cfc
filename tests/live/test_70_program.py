"""The program on a running lab: what a preview shows for each single change of the config."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.live import here
from tests.live.program import Program
from tests.previews import Preview, ProgramError, preview
from workspace.outputs import Outputs

CASES: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("previews.yaml").read_text())
EXPECTED = ("refused", "operations")


def test_preview_without_changes(program: Program) -> None:
    told = program.pulumi("preview", "--expect-no-changes", "--diff", "--non-interactive")
    assert "unchanged" in told


def test_selected_stack_is_the_lab(outputs: Outputs) -> None:
    # As the README has it; setup has selected the stack.
    assert here.run("pulumi", "stack", "output", "notebookUrl").strip() == outputs.notebook_url


@pytest.fixture(scope="module")
def previewed(
    request: pytest.FixtureRequest, program: Program, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Preview]]]:
    """The preview of each case that was asked for, two at a time: a preview keeps one processor busy."""

    def run(case: str) -> Preview:
        values = {path: value for path, value in CASES[case].items() if path not in EXPECTED}
        return preview(program.stack, program.changed_config(tmp_path_factory.mktemp(case), values))

    wanted = [
        str(item.callspec.params["case"])
        for item in request.session.items
        if item.path == request.path and isinstance(item, pytest.Function) and hasattr(item, "callspec")
    ]
    with ThreadPoolExecutor(max_workers=2) as pool:
        yield {case: pool.submit(run, case) for case in wanted}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("case", CASES)
def test_preview_of_a_single_change(case: str, previewed: dict[str, Future[Preview]]) -> None:
    if refused := CASES[case].get("refused"):
        with pytest.raises(ProgramError) as error:
            previewed[case].result()
        assert refused in str(error.value)
        assert "Traceback" not in str(error.value)
        return
    seen = previewed[case].result()
    assert "Traceback" not in seen.text
    changed = {name: count for name, count in seen.operations.items() if name != "same"}
    assert changed == CASES[case]["operations"]
