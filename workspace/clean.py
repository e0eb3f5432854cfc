"""Removes a lab, and what setup has made in its checkout."""

import shutil
import subprocess

from toolchain import cache, engine
from toolchain.errors import ToolchainError
from workspace import leftovers, salt
from workspace.stack import Stack


def sweep(stack: Stack) -> None:
    """Remove from the Docker engine what has the stack's label and is not in its state."""
    for leftover in leftovers.sweep(stack.name, stack.exported()):
        print(f"removed the {leftover.kind} {leftover.name}")


def clean(stack: Stack, *, with_cache: bool) -> None:
    """Destroy the lab, and remove what setup has made in the checkout.

    Args:
        stack: The stack of the lab.
        with_cache: Also remove the cache, which other checkouts share.

    Raises:
        ToolchainError: Another stack has resources in this checkout's backend, or the lab cannot be
            destroyed. The state is kept.
    """
    if others := stack.others():
        first = "; ".join(f"pulumi destroy --stack {other}" for other in others)
        raise ToolchainError(
            f"nothing was removed, because .state also holds the state of {', '.join(others)}, which has "
            f"resources; next, without PULUMI_BACKEND_URL: . ./env.sh; {first}"
        )
    if stack.has_resources():
        destroy = f". ./env.sh && pulumi destroy --stack {stack.name} --yes --non-interactive"
        if subprocess.run(["sh", "-c", destroy], cwd=stack.root, check=False).returncode:
            raise ToolchainError(
                f"stack {stack.name} could not be destroyed, so its state is kept; next: remove the cause "
                "and try again. To give the state up, remove .state: hosts of `provider: existing` then stay "
                "as they are."
            )
    made = [stack.root / ".toolchain", stack.root / ".venv", *stack.root.glob("*.egg-info")]
    if stack.own_backend:
        if engine.runs():
            sweep(stack)
        made.append(stack.state)
    else:
        print(f"kept {stack.state}, because its passphrase decrypts {stack.name} in {stack.backend}")
    salt.forget(stack)
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)
    if with_cache:
        shutil.rmtree(cache.root(), ignore_errors=True)
