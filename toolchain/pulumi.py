"""The Pulumi CLI and its Python language host.

Owes: one of three origins, in this order, and says which: an official CLI on PATH that is new enough; the
official one by download, where its host answers; both built from their pinned Go modules.
"""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from toolchain import cache
from toolchain.download import PATIENCE, Download
from toolchain.golang import Go
from toolchain.mend import Mend, mended
from toolchain.process import ask
from toolchain.progress import Step

HERE = Path(__file__).parent
CLI = HERE / "pulumi"
LANGUAGE_HOST = HERE / "language-python"
OFFICIAL, BUILT = "pulumi-official", "pulumi"
"""The names of the artifacts."""
SDK = "github.com/pulumi/pulumi/sdk/v3"
PKG = "github.com/pulumi/pulumi/pkg/v3"
_NO_CLOUDS = "this Pulumi was built by Calico Lab, without clouds; for one put an official Pulumi on PATH"
LEFT_OUT = [
    # State in a cloud's bucket: the SDKs of three clouds.
    Mend("backend/diy/backend.go", '\t"gocloud.dev/blob/azureblob"  // driver for azblob://\n'),
    Mend("backend/diy/backend.go", '\t"gocloud.dev/blob/gcsblob"    // driver for gs://\n'),
    Mend("backend/diy/backend.go", '\t_ "gocloud.dev/blob/s3blob"   // driver for s3://\n'),
    Mend("backend/diy/backend.go", '\t"github.com/pulumi/pulumi/pkg/v3/authhelpers"\n'),
    Mend(
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
    Mend(
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
    Mend(
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
    Mend("backend/diy/bucket.go", '\tawss3 "github.com/aws/aws-sdk-go-v2/service/s3"\n'),
    Mend("backend/diy/bucket.go", "var input *awss3.CopyObjectInput", "var input *copyObjectInput"),
    Mend(
        "backend/diy/bucket.go",
        "func fixupS3CopySource(input *awss3.CopyObjectInput) {",
        "type copyObjectInput struct{ CopySource *string }\n\n"
        "func fixupS3CopySource(input *copyObjectInput) {",
    ),
    # A secrets provider in a cloud.
    Mend("secrets/cloud/manager.go", '\t_ "gocloud.dev/secrets/awskms"        // support for awskms://\n'),
    Mend(
        "secrets/cloud/manager.go",
        '\t_ "gocloud.dev/secrets/azurekeyvault" // support for azurekeyvault://\n',
    ),
    Mend("secrets/cloud/manager.go", '\t"gocloud.dev/secrets/gcpkms"          // support for gcpkms://\n'),
    Mend(
        "secrets/cloud/manager.go", '\t_ "gocloud.dev/secrets/hashivault"    // support for hashivault://\n'
    ),
    Mend("secrets/cloud/manager.go", '\t"google.golang.org/api/cloudkms/v1"\n'),
    Mend("secrets/cloud/manager.go", '\t"github.com/pulumi/pulumi/pkg/v3/authhelpers"\n'),
    Mend(
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
    # `pulumi logs` of functions in a cloud.
    Mend("operations/operations_aws.go"),
    Mend("operations/operations_gcp.go"),
    Mend(
        "operations/resources.go",
        """\
	case "aws":
		return AWSOperationsProvider(ctx, ops.config, ops.resource)
	case "gcp":
		return GCPOperationsProvider(ctx, ops.config, ops.resource)
""",
    ),
]
"""What of the CLI a lab has no use for, by what it would compile: a third of the whole."""
BUILD_S = 540
"""Processor seconds that the CLI, the language host and the Docker plugin take, on slow processors."""
OLDEST = (3, 226)
"""From the year of the SDK: both speak one protocol, and an older engine does not know its newer calls. Those
before take a `replacement_trigger` that is an output for another one each time (pulumi#22119, #22120)."""


@dataclass(frozen=True)
class Cli:
    """A Pulumi CLI."""

    folder: Path
    """Holds `pulumi` and its language host."""
    origin: str
    official: bool
    on_path: bool = False

    @property
    def program(self) -> Path:
        """The CLI itself."""
        return self.folder / "pulumi"

    @property
    def programs(self) -> list[Path]:
        """The CLI and what it starts."""
        return sorted(self.folder.glob("pulumi*"))


def obtain(step: Step, go: Go) -> Cli:
    """The CLI and the language host; what an earlier run made is taken without asking for downloads."""
    cli = _on_path(step) or _cached(go) or _downloaded(step) or _built(step, go)
    step.result = cli.origin
    return cli


def to_build(go: Go) -> float:
    """The processor seconds that building the CLI and its plugins takes; none where it is not built."""
    if _on_path() or _cached(go) or (Download.of("pulumi").sha256 and Download.of("pulumi").answers()):
        return 0
    return BUILD_S


def acceptable(version: str) -> bool:
    """Whether the lab runs with a CLI of this version."""
    match = re.match(r"v?(\d+)\.(\d+)\.", version)
    return match is not None and (int(match[1]), int(match[2])) >= OLDEST


def _on_path(step: Step | None = None) -> Cli | None:
    for folder in map(Path, os.get_exec_path()):
        program = (folder / "pulumi").resolve()
        # What lies in the cache is ours; it is on PATH where env.sh has been sourced.
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
        step.say(f"{download.host} gives nothing in {PATIENCE:.0f} s: Pulumi is built from its Go modules")
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
        modfile = mended(step, go, CLI, {PKG: LEFT_OUT}).modfile
        go.build(step, CLI, "tool", folder, modfile=modfile, variables={version: pinned(CLI, SDK)})
        go.build(step, LANGUAGE_HOST, "tool", folder, variables={version: pinned(LANGUAGE_HOST, SDK)})
        # Of the CLI's version, though the language host is older: they are the program's side of the wire.
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
