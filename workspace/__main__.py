"""`python3 -m workspace`: sets a checkout up, and cleans it up."""

import argparse
import signal
import sys
from pathlib import Path

from toolchain import cache, engine
from toolchain.errors import ToolchainError
from workspace import leftovers, setup
from workspace.clean import clean, sweep
from workspace.stack import Stack

ROOT = Path(__file__).resolve().parent.parent
VERBS = {
    "setup": "install everything that `pulumi up` needs; what is installed is kept",
    "current-engine": "install the current Docker engine, which tests of the Docker driver use",
    "ebpf": "build what `dataplane: ebpf` needs; setup does it where the stack's config asks for it",
    "lock": "pin the newest Python packages that the requirements.in files and lists of packages allow",
    "sweep": "remove from the Docker engine what an interrupted run of the stack has left",
    "stop-engine": "stop the Docker engine, if setup has started it",
    "clean": "destroy the lab and remove what setup has made in this checkout",
}
OF_A_STACK = ("setup", "sweep", "clean")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m workspace", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, text in VERBS.items():
        arguments = verbs.add_parser(verb, help=text, description=text)
        if verb in OF_A_STACK:
            arguments.add_argument("--stack", default="lab", help="the Pulumi stack (lab)")
        if verb == "lock":
            arguments.add_argument(
                "--packages",
                type=Path,
                help="only this list of packages for notebooks; writes its .lock file",
            )
        if verb == "clean":
            arguments.add_argument(
                "--cache", action="store_true", help=f"also the shared cache, {cache.root()}"
            )
    return parser


def _run(arguments: argparse.Namespace) -> None:
    match arguments.verb:
        case "setup":
            setup.setup(Stack(ROOT, arguments.stack))
        case "current-engine":
            setup.current_docker_engine(ROOT)
        case "ebpf":
            setup.ebpf_dataplane(ROOT)
        case "lock":
            setup.lock(ROOT, arguments.packages)
        case "sweep":
            sweep(Stack(ROOT, arguments.stack))
        case "stop-engine":
            engine.stop()
        case "clean":
            clean(Stack(ROOT, arguments.stack), with_cache=arguments.cache)


def main() -> int:
    """Run the verb of the command line; return the exit code."""
    arguments = _parser().parse_args()
    # SIGTERM cleans up as SIGINT does. SIGINT is set too, because a shell ignores it for background jobs.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        _run(arguments)
    except (ToolchainError, leftovers.ForeignLabError) as error:
        print(f"workspace: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"workspace: interrupted; what is done is kept; next: run {arguments.verb} again", file=sys.stderr
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
