"""TCP connections between guests that send a number every 0.1 s until they break."""

from pathlib import Path

from bench.guests import Guest
from components.hosts import remote
from tests.live.waiting import eventually
from workspace.outputs import Outputs

CONNECTION = Path(__file__).with_name("connection.sh").read_text()
_ECHO = "mkfifo /tmp/echo; setsid sh -c 'nc -l {} 5007 </tmp/echo | cat >/tmp/echo' >/dev/null 2>&1 &"


def connect(outputs: Outputs, guests: dict[str, Guest]) -> None:
    """Open one from each host's guest to the guest of the next host."""
    for server in guests.values():
        server.run(_ECHO.format(server.address))
    servers = [*list(guests.values())[1:], next(iter(guests.values()))]
    for client, server in zip(guests.values(), servers, strict=True):
        answer = remote.run(
            outputs.ssh[client.host], CONNECTION, {"NAME": client.name, "PEER": server.address}
        )
        assert answer.status == 0, f"{client.host}: {answer.error or answer.text}"
    for client in guests.values():
        client.run(
            "for _ in $(seq 300); do [ -s /tmp/count ] && exit; sleep 0.1; done; cat /tmp/lost; exit 1", 120
        )


def were_kept(guests: dict[str, Guest]) -> None:
    """Fail where one has lost a number, or does not go on."""
    for guest in guests.values():
        assert guest.run("cat /tmp/lost 2>/dev/null || true") == ""
        before = int(guest.run("cat /tmp/count"))

        def goes_on(guest: Guest = guest, before: int = before) -> None:
            assert int(guest.run("cat /tmp/count")) > before

        eventually(goes_on, seconds=60)
