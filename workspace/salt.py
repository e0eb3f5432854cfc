"""The encryption salt in a stack's file: Pulumi reads it there, and git does not see it.

Pulumi makes the key of a stack's secrets from the passphrase and a salt, and keeps the salt in the state and
in `Pulumi.<stack>.yaml`. Committed, the salt would tie the lab to one passphrase; uncommitted, it would make
every clone dirty after its first run. So a clean filter removes the line whenever git reads the file.
.gitattributes names the filter, and this module defines it in the clone's own git config.

`PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER` alone does not suffice (tried with Pulumi 3.259): with it Pulumi
takes a missing salt from the state, and then the first `preview` or `up` writes the salt into the file, and
drops the file's blank lines. That is why the line is appended here, before Pulumi misses it. The variable
stays set in env.sh, because `git checkout` or `git stash` may remove the line between two runs of setup.
"""

import re
from pathlib import Path

from toolchain.process import ask
from workspace.stack import Stack

FILTER = "filter.pulumi-salt.clean"
CLEAN = "sed '/^encryptionsalt: /d'"
_GIT_CONFIG = ("git", "config", "--local")
_SALT = re.compile(r"^encryptionsalt: .*\n", re.MULTILINE)


def write(config: Path, salt: str | None) -> None:
    """Put exactly this salt into a stack's file, or none, and change nothing else of the file."""
    text = config.read_text()
    wanted = _SALT.sub("", text)
    if salt:
        wanted = f"{wanted.rstrip()}\nencryptionsalt: {salt}\n"
    if text != wanted:
        scratch = config.with_suffix(".new")
        scratch.write_text(wanted)
        scratch.rename(config)


def hide(stack: Stack) -> None:
    """Define the clean filter in the clone's git config, and refresh git's index with it."""
    if not (stack.root / ".git").exists():
        return
    if ask(*_GIT_CONFIG, "--get", FILTER, cwd=stack.root).stdout.strip() != CLEAN:
        ask(*_GIT_CONFIG, FILTER, CLEAN, cwd=stack.root)
    _refresh_index(stack)


def forget(stack: Stack) -> None:
    """Remove the salt from the stack's file, and the filter from the clone's git config."""
    if not stack.config.is_file():
        return
    write(stack.config, None)
    if (stack.root / ".git").exists():
        _refresh_index(stack)
        ask(*_GIT_CONFIG, "--remove-section", FILTER.rpartition(".")[0], cwd=stack.root)


def _refresh_index(stack: Stack) -> None:
    # Git reports a file of another size as modified without running the filter. So the index gets the new
    # size where nothing but the salt differs; the operator's own changes are not added.
    file = stack.config.name
    content = ask("git", "hash-object", "--path", file, file, cwd=stack.root)
    if content.stdout == ask("git", "rev-parse", f":{file}", cwd=stack.root).stdout:
        ask("git", "update-index", file, cwd=stack.root)
