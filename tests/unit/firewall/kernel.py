"""A host's kernel in a network namespace: loads rules, receives packets, and reports the verdicts.

The tests start it under `unshare --net`. It reads requests and writes answers, one JSON text per line.
Packets are sent from the far ends of veth pairs, so that a test can choose their addresses and interface:

    eth0, eth1   the host's interfaces; packets arrive there
    docker0      leads to a "container", to which ports 7000-7009 of the host are published

Packets that INPUT accepts reach a raw socket (raw(7)); packets that FORWARD accepts leave by docker0. The
counters of the rules say which rule decided.
"""

import json
import os
import re
import select
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

HOST_ADDRESSES = ("172.16.6.44", "10.9.9.9", "fd00:6::44")
LINK_LOCAL = "fe80::44"
CONTAINER_ADDRESSES = ("172.17.0.2", "fd00:17::2")
MAC = "02:00:00:00:00:02"
GATEWAY_MAC = "02:00:00:00:00:01"
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132, "igmp": 2, "other": 253}
MAGIC = b"LAB!"
SETTLED = 0.02
# Packets with this time to live are not tracked (notrack).
UNTRACKED_TTL = 63

SETUP = f"""
ip link set lo up
for name in eth0 eth1 docker0; do
    ip link add $name address {MAC} type veth peer name far-$name
    ip link set $name up
    ip link set far-$name up
    echo 0 >/proc/sys/net/ipv4/conf/$name/rp_filter
done
echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter
echo 1 >/proc/sys/net/ipv4/ip_forward
# The packets here have no SCTP checksum.
echo 0 >/proc/sys/net/netfilter/nf_conntrack_checksum
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
for address in {" ".join((*HOST_ADDRESSES, LINK_LOCAL))}; do
    ip address add $address dev eth0 $(case $address in *:*) echo nodad;; esac)
done
for address in {" ".join(CONTAINER_ADDRESSES)}; do
    ip route add $address dev docker0
    ip neighbour add $address lladdr {GATEWAY_MAC} dev docker0
done
ip neighbour add 10.255.255.1 lladdr {GATEWAY_MAC} dev eth0
ip route add default via 10.255.255.1 dev eth0 onlink
ip neighbour add fe80::1 lladdr {GATEWAY_MAC} dev eth0
ip route add default via fe80::1 dev eth0
nft -f - <<TABLE
table inet untracked {{
    chain prerouting {{
        type filter hook prerouting priority raw
        ip ttl {UNTRACKED_TTL} notrack
        ip6 hoplimit {UNTRACKED_TTL} notrack
    }}
}}
TABLE
"""
# Docker's rules on a host, and the lab's jumps; the same in both address families.
PARENTS = """*filter
:CALICO-LAB-INPUT -
:CALICO-LAB-PUBLISHED -
:DOCKER-USER -
-A INPUT -j CALICO-LAB-INPUT
-A FORWARD -j DOCKER-USER
-A DOCKER-USER -j CALICO-LAB-PUBLISHED
-A DOCKER-USER -j RETURN
COMMIT
*nat
-A PREROUTING -p tcp --dport 7000:7009 -j DNAT --to-destination {container}
-A PREROUTING -p udp --dport 7000:7009 -j DNAT --to-destination {container}
COMMIT
"""
EMPTY = "*filter\n:CALICO-LAB-INPUT -\n:CALICO-LAB-PUBLISHED -\nCOMMIT\n"


def run(*command: str, text: str = "") -> str:
    """Run a command; return its output.

    Raises:
        RuntimeError: It fails.
    """
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}\n{text}")
    return done.stdout


def mac_bytes(mac: str) -> bytes:
    """A MAC address on the wire."""
    return bytes.fromhex(mac.replace(":", ""))


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def segment(packet: dict[str, Any], number: int, pseudo: bytes) -> bytes:
    """The part of a packet after the IP header; it contains the packet's number."""
    mark = MAGIC + number.to_bytes(4)
    port, own = packet["port"] or 0, packet["source_port"] or 1024 + number % 60000
    if packet["protocol"] == "tcp":
        # A segment without any flag is invalid (nf_conntrack_proto_tcp.c).
        flags = 0x5000 if packet["state"] == "invalid" else 0x5002
        syn = struct.pack("!HHIIHHHH", own, port, number, 0, flags, 1024, 0, 0) + mark
        return syn[:16] + struct.pack("!H", checksum(pseudo + syn)) + syn[18:]
    if packet["protocol"] == "udp":
        datagram = struct.pack("!HHHH", own, port, 16, 0) + mark
        return datagram[:6] + struct.pack("!H", checksum(pseudo + datagram) or 0xFFFF) + mark
    if packet["protocol"] == "icmp":
        message = struct.pack("!BBHHH", packet["icmp_type"], 0, 0, own, 1) + mark
        covered = message if packet["family"] == "ipv4" else pseudo + message
        return message[:2] + struct.pack("!H", checksum(covered)) + message[4:]
    if packet["protocol"] == "igmp":
        query = struct.pack("!BBHI", 0x11, 100, 0, 0) + mark
        return query[:2] + struct.pack("!H", checksum(query)) + query[4:]
    if packet["protocol"] == "sctp":
        # Conntrack refuses an INIT chunk with data after it, so the mark is in its window field.
        return struct.pack("!HHIIBBHI", own, port, 0, 0, 1, 0, 20, 1) + mark + struct.pack("!I", 1)
    return mark


def frame(packet: dict[str, Any], number: int) -> bytes:
    """A whole Ethernet frame."""
    source, destination = ip_address(packet["source"]).packed, ip_address(packet["destination"]).packed
    ethernet = mac_bytes(MAC) + mac_bytes(packet["mac"])
    untracked = packet["state"] == "untracked" and packet["protocol"] != "icmp"
    if packet["family"] == "ipv4":
        protocol = {**PROTOCOLS, "icmp": 1}[packet["protocol"]]
        size = len(segment(packet, number, b""))
        body = segment(packet, number, source + destination + struct.pack("!BBH", 0, protocol, size))
        ttl = UNTRACKED_TTL if untracked else 64
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, 0, 0, ttl, protocol, 0) + source + destination
        header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
        return ethernet + b"\x08\x00" + header + body
    protocol = {**PROTOCOLS, "icmp": 58}[packet["protocol"]]
    size = len(segment(packet, number, b""))
    body = segment(packet, number, source + destination + struct.pack("!IHBB", size, 0, 0, protocol))
    # Neighbour discovery needs a hop limit of 255 (RFC 4861).
    limit = UNTRACKED_TTL if untracked else 255
    header = struct.pack("!IHBB", 6 << 28, size, protocol, limit) + source + destination
    return ethernet + b"\x86\xdd" + header + body


class Kernel:
    """The namespace that this process is in, set up as a host."""

    def __init__(self) -> None:
        # Packets arrive in order only if they stay on one processor.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        run("sh", "-eu", text=SETUP)
        run("iptables-restore", text=PARENTS.format(container=CONTAINER_ADDRESSES[0]))
        run("ip6tables-restore", text=PARENTS.format(container=CONTAINER_ADDRESSES[1]))
        self.far = {name: self._packet_socket(f"far-{name}") for name in ("eth0", "eth1", "docker0")}
        self.receivers = [self.far["docker0"]]
        for family, icmp in ((socket.AF_INET, 1), (socket.AF_INET6, 58)):
            for protocol in (*PROTOCOLS.values(), icmp):
                receiver = socket.socket(family, socket.SOCK_RAW, protocol)
                receiver.setblocking(False)
                self.receivers.append(receiver)
        self.number = 0

    @staticmethod
    def _packet_socket(name: str) -> socket.socket:
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        end.bind((name, 0))
        end.setblocking(False)
        return end

    def load(self, ipv4: str, ipv6: str, sets: str) -> None:
        """Load compiled documents in place of the loaded ones; counters begin at zero."""
        run("ipset", "restore", text=sets)
        run("iptables-restore", "--noflush", text=EMPTY + ipv4)
        run("ip6tables-restore", "--noflush", text=EMPTY + ipv6)

    def send(self, packets: list[dict[str, Any]]) -> tuple[list[bool], dict[str, int]]:
        """Send packets; return which were accepted, and how often each rule decided."""
        first = self.number
        for packet in packets:
            name = packet["interface"]
            self.far[name].send(frame(packet, self.number))
            self.number += 1
        passed = set(self._received())
        return [first + index in passed for index in range(len(packets))], dict(self._counters())

    def _received(self) -> Iterator[int]:
        """The numbers of the accepted packets."""
        while readable := select.select(self.receivers, [], [], SETTLED)[0]:
            for receiver in readable:
                data = receiver.recv(2048)
                if receiver is self.far["docker0"] and data[:6] != mac_bytes(GATEWAY_MAC):
                    continue
                position = data.find(MAGIC)
                if position >= 0:
                    yield int.from_bytes(data[position + 4 : position + 8])

    def _counters(self) -> Counter[str]:
        """How often each rule has decided, by its label."""
        counters: Counter[str] = Counter()
        for program in ("iptables-save", "ip6tables-save"):
            for line in run(program, "-c", "-t", "filter").splitlines():
                found = re.match(r'\[(\d+):\d+\] -A CALICO-LAB-.*--comment "([^ "]+)', line)
                if found and " -j LOG" not in line and found[1] != "0":
                    counters[found[2]] += int(found[1])
        return counters


def main() -> None:
    """Answer requests until the input ends."""
    kernel = Kernel()
    for line in sys.stdin:
        request = json.loads(line)
        kernel.load(request["ipv4"], request["ipv6"], request["sets"])
        passed, decided = kernel.send(request["packets"])
        print(json.dumps({"passed": passed, "decided": decided}), flush=True)


if __name__ == "__main__":
    main()
