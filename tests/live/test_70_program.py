"""The program on a lab that is up: a preview tells what `up` would do, for each single change."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.live import here
from tests.live.program import Program
from tests.preview.program import config_with
from tests.previews import ProgramError, preview
from workspace.outputs import Outputs

CASES: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("previews.yaml").read_text())


def test_nothing_changes(program: Program) -> None:
    told = program.pulumi("preview", "--expect-no-changes", "--diff", "--non-interactive")
    assert "unchanged" in told


def test_what_is_typed_without_a_stack_is_about_the_lab(outputs: Outputs) -> None:
    # As the README has it; setup has selected the stack.
    assert here.run("pulumi", "stack", "output", "notebookUrl").strip() == outputs.notebook_url


@pytest.mark.parametrize("case", CASES)
def test_preview_of_a_single_change(case: str, program: Program, tmp_path: Path) -> None:
    values = dict(CASES[case])
    refused, operations = values.pop("refused", None), values.pop("operations", None)
    file = tmp_path / program.config.name
    file.write_text(yaml.safe_dump({"config": config_with(values)}, sort_keys=False))
    if refused:
        with pytest.raises(ProgramError) as error:
            preview(program.stack, file)
        assert refused in str(error.value)
        assert "Traceback" not in str(error.value)
        return
    seen = preview(program.stack, file)
    assert "Traceback" not in seen.text
    assert {name: count for name, count in seen.operations.items() if name != "same"} == operations
