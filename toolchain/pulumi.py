"""Obtains the Pulumi CLI and its Python language host.

It uses the first of: an official CLI on PATH that is new enough; the official one by download, where its host
answers; a build of both from their pinned Go modules.
"""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from toolchain import cache
from toolchain.download import PATIENCE, Download
from toolchain.golang import Go
from toolchain.patches import Patch, apply_patches
from toolchain.process import ask
from toolchain.progress import Step

HERE = Path(__file__).parent
CLI = HERE / "pulumi"
LANGUAGE_HOST = HERE / "language-python"
OFFICIAL, BUILT = "pulumi-official", "pulumi"
"""Names of the artifacts."""
SDK = "github.com/pulumi/pulumi/sdk/v3"
PKG = "github.com/pulumi/pulumi/pkg/v3"
_NO_CLOUDS = "Calico Lab has built this Pulumi without cloud SDKs; for these put an official Pulumi on PATH"
LEFT_OUT = [
    # State in a bucket of a cloud, with the SDKs of three clouds.
    Patch("backend/diy/backend.go", '\t"gocloud.dev/blob/azureblob"  // driver for azblob://\n'),
    Patch("backend/diy/backend.go", '\t"gocloud.dev/blob/gcsblob"    // driver for gs://\n'),
    Patch("backend/diy/backend.go", '\t_ "gocloud.dev/blob/s3blob"   // driver for s3://\n'),
    Patch("backend/diy/backend.go", '\t"github.com/pulumi/pulumi/pkg/v3/authhelpers"\n'),
    Patch(
        "backend/diy/backend.go",
        """\
	if p.Scheme == gcsblob.Scheme {
		blobmux, err = authhelpers.GoogleCredentialsMux(ctx)
		if err != nil {
			return nil, err
		}
	}
""",
    ),
    Patch(
        "backend/diy/backend.go",
        """\
	if p.Scheme == azureblob.Scheme {
		blobmux = &blob.URLMux{}
		blobmux.RegisterBucket(azureblob.Scheme, &azureblob.URLOpener{
			MakeClient:        azureblob.NewDefaultClient,
			ServiceURLOptions: *azureblob.NewDefaultServiceURLOptions(),
		})
	}
""",
    ),
    Patch(
        "backend/diy/backend.go",
        "// newDIYBackend builds a diy backend implementation\n",
        f"""\
type cloudBucket struct{{}}

func (cloudBucket) OpenBucketURL(context.Context, *url.URL) (*blob.Bucket, error) {{
	return nil, errors.New("{_NO_CLOUDS}")
}}

func init() {{
	for _, scheme := range []string{{"azblob", "gs", "s3"}} {{
		blob.DefaultURLMux().RegisterBucket(scheme, cloudBucket{{}})
	}}
}}

// newDIYBackend builds a diy backend implementation
""",
    ),
    Patch("backend/diy/bucket.go", '\tawss3 "github.com/aws/aws-sdk-go-v2/service/s3"\n'),
    Patch("backend/diy/bucket.go", "var input *awss3.CopyObjectInput", "var input *copyObjectInput"),
    Patch(
        "backend/diy/bucket.go",
        "func fixupS3CopySource(input *awss3.CopyObjectInput) {",
        "type copyObjectInput struct{ CopySource *string }\n\n"
        "func fixupS3CopySource(input *copyObjectInput) {",
    ),
    # Secrets providers of clouds.
    Patch("secrets/cloud/manager.go", '\t_ "gocloud.dev/secrets/awskms"        // support for awskms://\n'),
    Patch(
        "secrets/cloud/manager.go",
        '\t_ "gocloud.dev/secrets/azurekeyvault" // support for azurekeyvault://\n',
    ),
    Patch("secrets/cloud/manager.go", '\t"gocloud.dev/secrets/gcpkms"          // support for gcpkms://\n'),
    Patch(
        "secrets/cloud/manager.go", '\t_ "gocloud.dev/secrets/hashivault"    // support for hashivault://\n'
    ),
    Patch("secrets/cloud/manager.go", '\t"google.golang.org/api/cloudkms/v1"\n'),
    Patch("secrets/cloud/manager.go", '\t"github.com/pulumi/pulumi/pkg/v3/authhelpers"\n'),
    Patch(
        "secrets/cloud/manager.go",
        """\
	switch u.Scheme {
	case gcpkms.Scheme:
		credentials, err := authhelpers.ResolveGoogleCredentials(ctx, cloudkms.CloudkmsScope)
		if err != nil {
			return nil, fmt.Errorf("missing google credentials: %w", err)
		}

		kmsClient, _, err := gcpkms.Dial(ctx, credentials.TokenSource)
		if err != nil {
			return nil, fmt.Errorf("failed to connect to gcpkms: %w", err)
		}
		opener := gcpkms.URLOpener{
			Client: kmsClient,
		}

		return opener.OpenKeeperURL(ctx, u)
	default:
		return gosecrets.OpenKeeper(ctx, url)
	}
""",
        f'\treturn nil, fmt.Errorf("{_NO_CLOUDS}: %s", u.Scheme)\n',
    ),
    # `pulumi logs` of functions in clouds.
    Patch("operations/operations_aws.go"),
    Patch("operations/operations_gcp.go"),
    Patch(
        "operations/resources.go",
        """\
	case "aws":
		return AWSOperationsProvider(ctx, ops.config, ops.resource)
	case "gcp":
		return GCPOperationsProvider(ctx, ops.config, ops.resource)
""",
    ),
]
"""Patches that remove code which the lab does not use: a third of the time to compile the CLI."""
BUILD_S = 540
"""Processor seconds of building the CLI, the language host and the Docker plugin, on a slow processor."""
OLDEST = (3, 226)
"""The oldest supported version, as (major, minor). Older engines lack calls of the SDK's protocol, and
replace a resource at every run if its `replacement_trigger` is an output (pulumi#22119, #22120)."""


@dataclass(frozen=True)
class Cli:
    """A Pulumi CLI."""

    folder: Path
    """The folder of `pulumi` and its language host."""
    origin: str
    official: bool
    on_path: bool = False

    @property
    def program(self) -> Path:
        """The CLI itself."""
        return self.folder / "pulumi"

    @property
    def programs(self) -> list[Path]:
        """The CLI and the programs that it starts."""
        return sorted(self.folder.glob("pulumi*"))


def obtain(step: Step, go: Go) -> Cli:
    """Return the CLI; one in the cache is used without asking the download host."""
    cli = _on_path(step) or _cached(go) or _downloaded(step) or _built(step, go)
    step.result = cli.origin
    return cli


def to_build(go: Go) -> float:
    """Processor seconds of building the CLI and its plugins; 0 where it will not be built."""
    if _on_path() or _cached(go) or (Download.of("pulumi").sha256 and Download.of("pulumi").answers()):
        return 0
    return BUILD_S


def acceptable(version: str) -> bool:
    """Whether the lab supports a CLI of this version."""
    match = re.match(r"v?(\d+)\.(\d+)\.", version)
    return match is not None and (int(match[1]), int(match[2])) >= OLDEST


def _on_path(step: Step | None = None) -> Cli | None:
    for folder in map(Path, os.get_exec_path()):
        program = (folder / "pulumi").resolve()
        # One in the cache is the lab's own, which env.sh has put on PATH.
        if not os.access(program, os.X_OK) or program.is_relative_to(cache.root().resolve()):
            continue
        version = ask(
            program, "version", env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"}
        ).stdout.strip()
        if acceptable(version):
            return Cli(program.parent, f"{version} from PATH ({program})", official=True, on_path=True)
        if step:
            needed = ".".join(map(str, OLDEST))
            step.say(f"{program} is {version or 'broken'}, the lab needs {needed} or newer")
    return None


def _cached(go: Go) -> Cli | None:
    download = Download.of("pulumi")
    if folder := cache.find(OFFICIAL, cache.key(download)):
        return _official_cli(folder, download)
    if folder := cache.find(BUILT, go.key(CLI, LANGUAGE_HOST, LEFT_OUT)):
        return _built_cli(folder)
    return None


def _official_cli(folder: Path, download: Download) -> Cli:
    return Cli(folder, f"v{download.version}, official, downloaded and verified", official=True)


def _built_cli(folder: Path) -> Cli:
    return Cli(folder, f"{pinned(CLI, SDK)}, built from its Go modules", official=False)


def _downloaded(step: Step) -> Cli | None:
    download = Download.of("pulumi")
    if not download.sha256:
        return None
    if not download.answers():
        step.say(
            f"{download.host} does not answer within {PATIENCE:.0f} s: Pulumi is built from its Go modules"
        )
        return None

    def build(folder: Path) -> None:
        archive = folder / "archive.tar.gz"
        step.say(f"downloading Pulumi v{download.version}")
        download.fetch(archive)
        step.run("unpacking Pulumi", "tar", "-xzf", archive, "-C", folder, "--strip-components=1")
        archive.unlink()

    return _official_cli(cache.artifact(OFFICIAL, cache.key(download), build), download)


def _built(step: Step, go: Go) -> Cli:
    def build(folder: Path) -> None:
        version = f"{SDK}/go/common/version.Version"
        modfile = apply_patches(step, go, CLI, {PKG: LEFT_OUT}).modfile
        go.build(step, CLI, "tool", folder, modfile=modfile, variables={version: pinned(CLI, SDK)})
        go.build(step, LANGUAGE_HOST, "tool", folder, variables={version: pinned(LANGUAGE_HOST, SDK)})
        # Those of the CLI's version, because they implement the protocol between engine and program; the
        # language host itself is older.
        source = go.module_source(CLI, SDK) / "python"
        for script in ("cmd/pulumi-language-python-exec", "dist/pulumi-resource-pulumi-python"):
            target = shutil.copyfile(source / script, folder / Path(script).name)
            target.chmod(0o755)

    return _built_cli(cache.artifact(BUILT, go.key(CLI, LANGUAGE_HOST, LEFT_OUT), build))


def pinned(module: Path, dependency: str) -> str:
    """The version of a dependency in a module's go.mod."""
    line = re.compile(rf"^\s*(?:require )?{re.escape(dependency)} (v\S+)", re.MULTILINE)
    match = line.search((module / "go.mod").read_text())
    if not match:
        raise LookupError(f"{module}/go.mod does not require {dependency}")
    return match[1]
