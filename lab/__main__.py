"""`lab`: the operator's command.

A new verb is a module with a click command named `command`, and a line in `VERBS`.
"""

import importlib

import click
from click.shell_completion import CompletionItem

VERBS = {
    "class": ("lab.classroom", "Show the notebooks of a class, open one, print tokens, share files."),
    "doctor": ("lab.doctor.command", "Check before an `up` whether hosts can carry the lab."),
    "drift": ("lab.drift", "Compare the hosts' firewall rules with what was applied."),
    "graph": ("lab.graph", "Draw the lab."),
    "status": ("lab.status", "Show the lab's health."),
    "trace": ("lab.trace", "Trace a packet from a container, hop by hop."),
    "welcome": ("lab.welcome", "Show how to use the lab."),
    "why": ("lab.why", "Explain which firewall rule decides on a packet."),
}
"""Module and summary by verb."""


class LazyGroup(click.Group):
    """Imports the module of a verb when the verb is used, because Pulumi's SDK alone takes half a second."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs."""
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(VERBS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(verb, summary) for verb, (_, summary) in VERBS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete verbs without importing them."""
        verbs = [
            CompletionItem(verb, help=summary)
            for verb, (_, summary) in VERBS.items()
            if verb.startswith(incomplete)
        ]
        return [*verbs, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog='Shell completion: eval "$(_LAB_COMPLETE=bash_source lab)"; also zsh_source, fish_source.',
)
@click.option(
    "--stack",
    "name",
    default="lab",
    envvar="CALICO_LAB_STACK",
    show_default=True,
    show_envvar=True,
    help="The Pulumi stack of the lab.",
)
@click.version_option(package_name="calico-lab", prog_name="lab")
@click.pass_context
def main(context: click.Context, name: str) -> None:
    """Report on a running lab. No verb changes a host, but for `class share`; changes go through `pulumi up`.

    Exit code 0: healthy; 1: something is wrong; 2: wrong usage, or the stack cannot be read.
    """
    context.obj = name


if __name__ == "__main__":
    main()
