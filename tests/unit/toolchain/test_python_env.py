"""Python environments: the patched SDK, and the compiled program."""

import asyncio
import shutil
from collections.abc import Callable
from contextvars import Context
from importlib.util import cache_from_source
from pathlib import Path
from types import SimpleNamespace

import pulumi
import pytest
from pulumi.runtime.settings import SETTINGS
from pulumi.runtime.stack import wait_for_rpcs

from toolchain import python_env
from toolchain.errors import ToolchainError

ROOT = Path(__file__).parents[3]
OUTPUTS = 200


class Counted(asyncio.Future[None]):
    """A future that counts how often something waits for it."""

    waits = 0

    def add_done_callback(self, callback: Callable[..., object], *, context: Context | None = None) -> None:
        """Count one wait."""
        Counted.waits += 1
        super().add_done_callback(callback, context=context)


def wait(loop: asyncio.AbstractEventLoop, outputs: int, *, fail: bool = False) -> None:
    """Wait for outputs that complete one after the other."""

    async def run() -> None:
        futures = [Counted(loop=loop) for _ in range(outputs)]
        SETTINGS.outputs.update(futures)
        waiting = asyncio.ensure_future(wait_for_rpcs())
        for future in futures:
            await asyncio.sleep(0)
            if fail:
                future.set_exception(ValueError("an output fails"))
                break
            future.set_result(None)
        await waiting

    try:
        loop.run_until_complete(run())
    finally:
        SETTINGS.outputs.clear()


def test_sdk_waits_for_each_output_a_few_times(own_loop: asyncio.AbstractEventLoop) -> None:
    Counted.waits = 0
    wait(own_loop, OUTPUTS)
    # Without the patch it is a wait for each pair of outputs.
    assert Counted.waits < OUTPUTS * OUTPUTS / 10


def test_sdk_reports_an_output_that_fails_while_others_are_pending(
    own_loop: asyncio.AbstractEventLoop,
) -> None:
    with pytest.raises(ValueError, match="an output fails"):
        wait(own_loop, OUTPUTS, fail=True)


def test_patch_sdk_replaces_the_source_and_its_bytecode(tmp_path: Path) -> None:
    installed = Path(pulumi.__file__).parents[1]
    for patch in python_env.SDK_PATCHES:
        file = tmp_path / patch.file
        file.parent.mkdir(parents=True, exist_ok=True)
        source = file if file.exists() else installed / patch.file
        file.write_text(source.read_text().replace(patch.new, patch.old))
    in_cache = tmp_path / "stack.py"
    in_cache.hardlink_to(tmp_path / "pulumi" / "runtime" / "stack.py")
    before = in_cache.read_text()
    python_env.patch_sdk(tmp_path)
    assert in_cache.read_text() == before
    for patch in python_env.SDK_PATCHES:
        assert (tmp_path / patch.file).read_text() == (installed / patch.file).read_text()
        assert Path(cache_from_source(str(tmp_path / patch.file))).is_file()


@pytest.mark.parametrize("asked", [False, True])
def test_sdk_sends_debug_messages_when_asked(monkeypatch: pytest.MonkeyPatch, *, asked: bool) -> None:
    sent: list[object] = []
    monkeypatch.setattr("pulumi.log.get_engine", lambda: SimpleNamespace(Log=sent.append))
    monkeypatch.delenv("CALICO_LAB_DEBUG", raising=False)
    if asked:
        monkeypatch.setenv("CALICO_LAB_DEBUG", "1")
    pulumi.log.debug("a message")
    assert len(sent) == int(asked)


def test_patch_sdk_of_another_version_is_an_error(tmp_path: Path) -> None:
    patch = python_env.SDK_PATCHES[0]
    shutil.copytree(Path(pulumi.__file__).parent / "runtime", tmp_path / "pulumi" / "runtime")
    with pytest.raises(ToolchainError, match=f"does not apply to {patch.file}"):
        python_env.patch_sdk(tmp_path)
