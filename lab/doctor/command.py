"""The command `lab doctor`."""

import click

from config.loading import ConfigError
from lab import config
from lab.doctor import checkup, findings, report
from lab.verb import json_option, print_json, print_tables, usage_errors
from workspace import outputs as stack


@click.command("doctor")
@json_option
@click.pass_context
def command(context: click.Context, *, as_json: bool) -> None:
    """Check whether this machine, and the hosts in the config that exist already, can carry the lab.

    Before the first `up`, or before an `up` with more hosts, it checks: SSH and its host keys, release and
    Docker, memory and disk, clocks, ports and networks that are taken, routers and firewalls between the
    hosts. Exit 1 when something stands in the way. Hosts that `up` creates are not asked.

    If the lab is up already, it shows when the first certificate on each host ends, and warns 60 days before:
    `up` renews them then. It also says how to clear alarms of etcd, and warns of old or failed snapshots.
    """
    up = f"pulumi up --stack {context.obj}"
    with usage_errors(ConfigError):
        seen = checkup.look(config.read_config(context.obj), _running(context.obj))
    found = findings.findings(seen)
    if as_json:
        print_json(report.document(seen, up))
    else:
        print_tables(report.tables(seen, found, findings.warnings(seen, up)))
    context.exit(1 if found else 0)


def _running(name: str) -> stack.Outputs | None:
    """The outputs of a lab that is up; None without one."""
    try:
        return stack.read(name)
    except stack.StackError:
        return None
