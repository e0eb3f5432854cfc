"""Installs the Pulumi plugins of `pulumi_docker` and `pulumi_command`.

An official CLI gets the official plugins, which it downloads itself. Where they are not available, and for a
CLI that was built here, the plugins in this folder are used. Their PULUMI_HOME is in the cache, because in
the operator's own they would replace official plugins.
"""

import os
import shlex
import shutil
from pathlib import Path

from toolchain import cache, python_env
from toolchain.download import PATIENCE, Download
from toolchain.errors import CommandError
from toolchain.golang import Go
from toolchain.patches import Patch, apply_patches, patched_source
from toolchain.progress import Step
from toolchain.pulumi import Cli

HERE = Path(__file__).parent
DOCKER = HERE / "docker-plugin"
COMMAND = HERE / "command-plugin"
NAMES = ("docker", "command")
OVERRIDES = "PULUMI_PLUGIN_DOWNLOAD_URL_OVERRIDES"
"""Pulumi's variable for other download hosts."""
LOGS = "logs"
"""The folder in PULUMI_HOME in which each command writes a log of every step, encrypted: a quarter of the
engine's processor time. Pulumi has no switch for it. As an empty file instead of a folder it turns the log
off; `--logtostderr -v 9` still works."""
INSTALL_LIMIT_S = 600
"""Seconds for one plugin; the larger one has about 30 MB."""
UPSTREAM = "github.com/terraform-providers/terraform-provider-docker"
BUILDX = "github.com/docker/buildx"
_KUBERNETES = '\t_ "github.com/docker/buildx/driver/kubernetes"\n'
PROVIDER_PATCHES = [
    # Every build adds its secrets to a session's map while another goroutine iterates over it: sometimes Go
    # ends the plugin, and so the `up`, with "concurrent map iteration and map write". A build without secrets
    # has nothing to add.
    Patch(
        "internal/provider/resource_docker_image_funcs.go",
        'if secretsRaw, secretsDefined := rawBuild["secrets"]; secretsDefined {',
        'if secretsRaw := rawBuild["secrets"]; len(parseBuildSecrets(secretsRaw)) > 0 {',
    ),
    # Builders in a Kubernetes cluster, with its client.
    Patch("internal/provider/docker_buildx_build.go", _KUBERNETES),
    Patch("internal/provider/resource_docker_buildx_builder.go", _KUBERNETES),
]
"""Patches of the upstream Docker provider: a fault, and code that the lab does not use."""
BUILDX_PATCHES = [
    # Build caches in S3, with the SDK of AWS.
    Patch("util/buildflags/cache.go", '\tawsconfig "github.com/aws/aws-sdk-go-v2/config"\n'),
    Patch("util/buildflags/cache.go", '\t"context"\n'),
    Patch(
        "util/buildflags/cache.go",
        """\
	ctx := context.TODO()
	awsConfig, err := awsconfig.LoadDefaultConfig(ctx)
	if err != nil {
		return
	}
	credentials, err := awsConfig.Credentials.Retrieve(ctx)
	if err != nil {
		return
	}
	if !okAccessKeyID && credentials.AccessKeyID != "" {
		ci.Attrs["access_key_id"] = credentials.AccessKeyID
	}
	if !okSecretAccessKey && credentials.SecretAccessKey != "" {
		ci.Attrs["secret_access_key"] = credentials.SecretAccessKey
	}
	if _, ok := ci.Attrs["session_token"]; !ok && credentials.SessionToken != "" {
		ci.Attrs["session_token"] = credentials.SessionToken
	}
""",
    ),
]
"""Patches of the library with which the provider builds images."""
PATCHES = {UPSTREAM: PROVIDER_PATCHES, BUILDX: BUILDX_PATCHES}


def obtain(step: Step, cli: Cli, go: Go, uv: Path) -> Path | None:
    """Return the PULUMI_HOME with the plugins, or None where the operator's own has the official ones."""
    plugins = ", ".join(f"{name} {Download.of(name).version}" for name in NAMES)
    because = "Pulumi is built here too"
    if cli.official:
        try:
            home = _official(step, cli)
        except _NotAvailableError as error:
            because = str(error)
            step.say(f"{because}: the lab builds its own")
        else:
            step.result = f"{plugins}: official, in {home}"
            return None if home == _operators_home(cli) else home
    sources = {"docker": _docker_stand_in(step, go), "command": _command_stand_in(step, uv)}
    step.result = f"{plugins}: the lab's own, because {because}"
    return _home(step, cli, sources)


class _NotAvailableError(Exception):
    """An official plugin is not available; the message says why."""


def _operators_home(cli: Cli) -> Path | None:
    """The PULUMI_HOME of a Pulumi that the operator has installed, or None where the CLI is the lab's."""
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    # After `. ./env.sh` the variable names the lab's.
    return home if cli.on_path and not home.resolve().is_relative_to(cache.root().resolve()) else None


def _official(step: Step, cli: Cli) -> Path:
    """Return the PULUMI_HOME with the official plugins.

    The CLI downloads them as for any program. TLS alone authenticates them: the lab pins no checksums,
    because the plugins could not be downloaded where it was developed.
    """
    if home := _operators_home(cli):
        _install_official(step, cli, home)
        return home

    def build(folder: Path) -> None:
        (folder / LOGS).touch()
        _install_official(step, cli, folder)

    return cache.artifact("pulumi-home", cache.key(cli, [Download.of(name) for name in NAMES], LOGS), build)


def _install_official(step: Step, cli: Cli, home: Path) -> None:
    environment = {**os.environ, "PULUMI_HOME": str(home), "PULUMI_SKIP_UPDATE_CHECK": "true"}
    for name in NAMES:
        plugin = Download.of(name)
        if (home / "plugins" / f"resource-{name}-v{plugin.version}").is_dir():
            continue
        # Pulumi retries a host that does not answer for minutes. With OVERRIDES only Pulumi knows the host.
        if not os.environ.get(OVERRIDES) and not plugin.answers():
            raise _NotAvailableError(f"{plugin.host} does not answer within {PATIENCE:.0f} s")
        what = f"installing the official {name} plugin {plugin.version}"
        command: list[str | Path] = [
            cli.program,
            "plugin",
            "install",
            "--exact",
            "resource",
            name,
            plugin.version,
        ]
        try:
            step.run(what, *command, env=environment, limit_s=INSTALL_LIMIT_S)
        except CommandError as error:
            raise _NotAvailableError(f"Pulumi cannot install the {name} plugin ({error.last})") from error


def _home(step: Step, cli: Cli, sources: dict[str, Path]) -> Path:
    def build(folder: Path) -> None:
        (folder / LOGS).touch()
        environment = {**os.environ, "PULUMI_HOME": str(folder), "PULUMI_SKIP_UPDATE_CHECK": "true"}
        for name, source in sources.items():
            version = Download.of(name).version
            install = ["plugin", "install", "resource", name, version, "--file"]
            what = f"installing the {name} plugin {version}"
            step.run(what, cli.program, *install, source, env=environment)

    return cache.artifact("pulumi-home", cache.key(cli, sources, LOGS), build)


def patched() -> Path | None:
    """The folder with the go.mod of the Docker plugin's build, if the plugin was built."""
    folder = patched_source(DOCKER, PATCHES).folder
    return folder if folder.is_dir() else None


def _docker_stand_in(step: Step, go: Go) -> Path:
    key = go.key(DOCKER, PATCHES)
    final = cache.path("docker-plugin", key)

    def build(folder: Path) -> None:
        modfile = apply_patches(step, go, DOCKER, PATCHES).modfile
        go.build(step, DOCKER, "./cmd/pulumi-resource-docker", folder / "bin", modfile=modfile)
        _wrap(folder, "docker", final / "bin" / "pulumi-resource-docker")

    return cache.artifact("docker-plugin", key, build) / "plugin"


def _command_stand_in(step: Step, uv: Path) -> Path:
    package, lock = COMMAND / "command_plugin", COMMAND / "requirements.lock"
    key = cache.key(package, lock, python_env.interpreter())
    final = cache.path("command-plugin", key)

    def build(folder: Path) -> None:
        shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
        python_env.create(step, uv, folder / "venv", lock)
        python_env.compile_tree(folder / package.name)
        python = final / "venv" / "bin" / "python"
        _wrap(folder, "command", "env", f"PYTHONPATH={final}", python, "-m", package.name)

    return cache.artifact("command-plugin", key, build) / "plugin"


def _wrap(folder: Path, name: str, *run: str | Path) -> None:
    """Write a script that starts the plugin, because `pulumi plugin install --file` makes a copy."""
    program = folder / "plugin" / f"pulumi-resource-{name}"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, run))} "$@"\n')
    program.chmod(0o755)
