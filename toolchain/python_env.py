"""Makes Python environments with uv, from lock files with hashes."""

import compileall
import os
import sys
from pathlib import Path
from py_compile import PycInvalidationMode

from toolchain import cache, packages
from toolchain.patches import Patch
from toolchain.process import ask
from toolchain.progress import Step

STAMP = "calico-lab.key"
PROGRAM = ("components", "config", "diagnosis")
"""The project's packages that the Pulumi program imports."""
SDK_PATCHES = [
    # The SDK waits for all outstanding outputs again after each one that completes: half of the program's
    # processor time with 30 hosts. pulumi#22411 introduced this wait; it is in 3.272, the newest version.
    # With the time limit, in seconds, it notices outputs that were added, and their errors, while it waits.
    Patch(
        "pulumi/runtime/stack.py",
        """\
                    pending_outputs, return_when=asyncio.FIRST_COMPLETED
""",
        """\
                    pending_outputs, timeout=1, return_when=asyncio.FIRST_EXCEPTION
""",
    ),
    # The SDK sends hundreds of messages of level debug, each a call that it waits for, and the engine drops
    # them unless it runs with --debug: a tenth of the program's processor time with 30 hosts. The SDK cannot
    # ask the engine for its level.
    Patch(
        "pulumi/log.py",
        """\
    engine = get_engine()
    if engine is not None:
        _log(engine, engine_pb2.DEBUG, msg, resource, stream_id, ephemeral)
""",
        """\
    engine = get_engine()
    if engine is not None and os.environ.get("CALICO_LAB_DEBUG"):
        _log(engine, engine_pb2.DEBUG, msg, resource, stream_id, ephemeral)
""",
    ),
    Patch("pulumi/log.py", "import asyncio\nimport sys\n", "import asyncio\nimport os\nimport sys\n"),
]
"""Patches of the Pulumi SDK. With CALICO_LAB_DEBUG=1 it sends debug messages, for `pulumi up --debug`."""
PINS = ("pip", "compile", "--upgrade", "--generate-hashes", "--no-emit-index-url")
FOR_IMAGES = ("--no-header", "--no-annotate", "--python-version", "3.11")
"""The images' Python, whatever the controller's is."""


def uv(step: Step) -> Path:
    """Return uv, of the pinned version."""
    program = packages.from_pypi(step, "uv") / "bin" / "uv"
    step.result = "uv, from PyPI"
    return program


def environment() -> dict[str, str]:
    """The variables of uv: the registry of the operator's pip, this computer's certificate authorities."""
    settings = {**os.environ, "UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}
    # uv does not read pip's configuration, which may name a company's mirror.
    if index := os.environ.get("PIP_INDEX_URL") or _pip_setting("global.index-url"):
        settings.setdefault("UV_DEFAULT_INDEX", index)
    # Without SSL_CERT_FILE uv trusts only its own list of authorities.
    if "SSL_CERT_FILE" not in settings and (bundle := certificates()):
        settings["SSL_CERT_FILE"] = str(bundle)
    return settings


def _pip_setting(name: str) -> str:
    return ask(sys.executable, "-m", "pip", "config", "get", name).stdout.strip()


def certificates() -> Path | None:
    """This computer's bundle of certificate authorities."""
    candidates = map(Path, ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/cert.pem"])
    return next((file for file in candidates if file.is_file()), None)


def create(step: Step, uv_program: Path, folder: Path, lock: Path) -> None:
    """Make a virtual environment with exactly the packages of the lock file."""
    settings = environment()
    venv = ["venv", "--clear", "--relocatable", "--python", sys.executable]
    step.run("making the environment", uv_program, *venv, folder, env=settings)
    # Compiled now, because a later Python may not be allowed to write bytecode there.
    sync = ["pip", "sync", "--require-hashes", "--compile-bytecode", "--python"]
    step.run(f"installing {lock.name}", uv_program, *sync, folder, lock, env=settings)


def compile_tree(folder: Path) -> None:
    """Compile a package that uv does not install; Python never checks whether its source has changed."""
    compileall.compile_dir(folder, quiet=1, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)


def interpreter() -> str:
    """What an environment depends on in addition to its lock file."""
    return f"{sys.executable} {sys.version}"


def project(step: Step, uv_program: Path, root: Path) -> Path:
    """Make the checkout's `.venv`, with the locked packages and the project itself, editable.

    Returns:
        Its Python.
    """
    folder = root / ".venv"
    lock, description = root / "requirements.lock", root / "pyproject.toml"
    stamp = folder / STAMP
    wanted = cache.key(lock, description, interpreter(), root.as_posix(), SDK_PATCHES)
    for package in PROGRAM:
        # A Python that may not write bytecode would compile them in each run, twice: once in the program, and
        # once in the process of the dynamic providers.
        compileall.compile_dir(root / package, quiet=1)
    if stamp.is_file() and stamp.read_text() == wanted:
        step.result = "as requirements.lock says"
        return folder / "bin" / "python"
    create(step, uv_program, folder, lock)
    patch_sdk(next(folder.glob("lib/python3*/site-packages")))
    install = ["pip", "install", "--no-deps", "--editable"]
    step.run("installing the project", uv_program, *install, root, "--python", folder, env=environment())
    stamp.write_text(wanted)
    step.result = "made from requirements.lock"
    return folder / "bin" / "python"


def patch_sdk(packages: Path) -> None:
    """Patch the Pulumi SDK in a folder of packages.

    Raises:
        ToolchainError: A patch does not apply, as after an upgrade.
    """
    for patch in SDK_PATCHES:
        patch.apply(packages)
        compileall.compile_file(packages / patch.file, quiet=1)


def lock(step: Step, uv_program: Path, root: Path) -> None:
    """Pin the newest versions that the `requirements.in` files allow."""
    for folder in (root, root / "toolchain" / "command-plugin"):
        # Renovate repeats the command in the lock file's header, and wants an equal sign in the option.
        files = ["--output-file=requirements.lock", "requirements.in"]
        step.run(f"pinning {folder.name}", uv_program, *PINS, *files, cwd=folder, env=environment())
    for folder in (root / "images" / "notebook", root / "images" / "proxy"):
        files = ["--output-file=requirements.lock", "requirements.in"]
        step.run(
            f"pinning {folder.name}", uv_program, *PINS, *FOR_IMAGES, *files, cwd=folder, env=environment()
        )
    lock_packages(step, uv_program, root, root / "images" / "notebook" / "packages.in")
    step.result = "requirements.lock is written"


def lock_packages(step: Step, uv_program: Path, root: Path, source: Path) -> None:
    """Pin the newest versions of a list of packages for notebooks.

    They are written into the file beside the list that ends in `.lock`, and suit the image's JupyterLab.
    """
    written = source.with_suffix(".lock")
    constraint = root / "images" / "notebook" / "requirements.lock"
    files: list[str | Path] = ["--constraint", constraint, "--output-file", written, source]
    step.run(f"pinning {source.name}", uv_program, *PINS, *FOR_IMAGES, *files, env=environment())
    # The first line has the list, so that a later change of the list is noticed.
    written.write_text(f"# {' '.join(listed(source.read_text()))}\n{written.read_text()}")
    step.result = f"{written.name} is written"


def listed(text: str) -> list[str]:
    """The requirements in a list of packages, sorted, without comments."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return sorted("".join(line.split()) for line in lines if line)
