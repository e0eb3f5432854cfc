"""The first words to somebody whose lab has just come up."""

from workspace.outputs import Outputs


def text(outputs: Outputs, stack: str) -> str:
    """What can be done with the lab now; the token is not shown, but the command that shows it."""
    lab, make = (
        ("lab", "make destroy") if stack == "lab" else (f"lab --stack {stack}", f"make destroy STACK={stack}")
    )
    machines = "\n".join(f"  {command}" for command in outputs.ssh.values())
    return f"""\
The lab is up.

The notebook   {outputs.notebook_url}
its token      pulumi stack output notebookToken --show-secrets --stack {stack}
the machines
{machines}
health         {lab} status
take it down   {make}

`pulumi` and `lab` need this project's environment: . ./env.sh"""
