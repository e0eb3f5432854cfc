"""`lab welcome`: how to use the lab, printed after its first `up`."""

import click

from lab.verb import read_outputs
from workspace.outputs import Outputs


@click.command("welcome")
@click.pass_context
def command(context: click.Context) -> None:
    """Show how to use the lab: its URLs, and the commands that reach its hosts."""
    click.echo(text(read_outputs(context.obj), context.obj))


def text(outputs: Outputs, stack: str) -> str:
    """Format URLs and commands. The token is not shown, only the command that shows it."""
    lab, make = (
        ("lab", "make destroy") if stack == "lab" else (f"lab --stack {stack}", f"make destroy STACK={stack}")
    )
    hosts = "\n".join(f"  {command}" for command in outputs.ssh.values())
    return f"""\
The lab is up.

The notebook   {outputs.notebook_url}
its token      pulumi stack output notebookToken --show-secrets --stack {stack}
the hosts
{hosts}
health         {lab} status
take it down   {make}

`pulumi` and `lab` need this project's environment: . ./env.sh"""
