"""The programs that watch Calico's datastore, as a restore of etcd sees them."""

from collections.abc import Iterable
from pathlib import Path

from components.calico.config import CalicoConfig
from components.etcd.restore import Clients

_SCRIPTS = Path(__file__).with_name("scripts")
SECONDS_UNTIL_RECONCILED = 60
"""Two comparisons ten seconds apart, and what they find."""
CALICOCTL_SECONDS = 20


def datastore_clients(config: CalicoConfig, hosts: Iterable[str]) -> Clients:
    """Returns Felix, confd and the Docker driver of the hosts on the network.

    Args:
        config: The network's section.
        hosts: The lab's hosts; the config may choose some.
    """
    return Clients(
        hosts=list(config.hosts or hosts),
        pause=_SCRIPTS / "pause.sh",
        hold=_SCRIPTS / "hold.sh",
        resume=_SCRIPTS / "resume.sh",
        variables={
            "NETWORK": config.name,
            "SECONDS_ALLOWED": str(SECONDS_UNTIL_RECONCILED),
            "CALICOCTL_SECONDS": str(CALICOCTL_SECONDS),
        },
    )
