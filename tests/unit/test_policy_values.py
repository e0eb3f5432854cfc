"""The values that both policy languages share, as tables of what is accepted and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.shared.policy_values import (
    PORT_PROTOCOLS,
    contains_port,
    is_name,
    parse_network,
    parse_ports,
    require_port_protocol,
)

NOT_PORTS: list[object] = [
    *("", "0", "65536", "80-", "-80", "1-2-3", "90-80", "0-80", "80-65536", "http", "²", "٨٠", "8 0", "1e3"),
    *("99999999999999999999", "+80", "80-+90", 0, -1, 80.5, True, False, None, [], {}),
]


@pytest.mark.parametrize("value", ["a0", "a", "notebook", "sshBox", "operator", "a-b", "fd00", "a" * 62])
def test_is_name_accepts(value: str) -> None:
    assert is_name(value)
    assert parse_network(value) is None


@pytest.mark.parametrize(
    "value",
    ["", "A0", "0a", "-a", "a_b", "a.b", "a b", "a\n", "é", "10.0.0.1", "fd00::1", "a:b", "all()", "a" * 63],
)
def test_is_name_refuses(value: str) -> None:
    assert not is_name(value)


@pytest.mark.parametrize(
    ("value", "network"),
    [
        ("172.16.6.66", "172.16.6.66/32"),
        ("172.16.6.0/24", "172.16.6.0/24"),
        ("172.16.0.0/255.255.0.0", "172.16.0.0/16"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("fd00::66", "fd00::66/128"),
        ("FD00:0::/8", "fd00::/8"),
    ],
)
def test_parse_network_returns_the_canonical_form(value: str, network: str) -> None:
    assert str(parse_network(value)) == network


@pytest.mark.parametrize("value", ["", "/", "10.0.0.1/33", "10.0.0", "1/2/3", "fd00::/129", "host"])
def test_parse_network_returns_none_for_other_text(value: str) -> None:
    assert parse_network(value) is None


@pytest.mark.parametrize(
    ("value", "network", "address"),
    [("10.0.0.1/8", "10.0.0.0/8", "10.0.0.1"), ("fd00::7/8", "fd00::/8", "fd00::7")],
)
def test_parse_network_refuses_host_bits(value: str, network: str, address: str) -> None:
    with pytest.raises(ValueError, match="has host bits set") as error:
        parse_network(value)
    assert str(error.value) == (
        f"has host bits set: write {network} for the network or {address} for one address"
    )


@pytest.mark.parametrize(
    ("value", "ports"),
    [
        (80, "80"),
        ("80", "80"),
        ("00080", "80"),
        (1, "1"),
        (65535, "65535"),
        ("8000-8100", "8000-8100"),
        ("8000:8100", "8000-8100"),
        ("80-80", "80"),
    ],
)
def test_parse_ports_returns_the_canonical_form(value: object, ports: str) -> None:
    assert parse_ports(value) == ports


@pytest.mark.parametrize("value", NOT_PORTS, ids=repr)
def test_parse_ports_refuses(value: object) -> None:
    with pytest.raises(ValueError, match="must be a port from 1 to 65535"):
        parse_ports(value)


@given(
    first=st.integers(1, 65535),
    last=st.integers(1, 65535),
    port=st.integers(1, 65535),
)
def test_contains_port_is_a_comparison_of_numbers(first: int, last: int, port: int) -> None:
    first, last = min(first, last), max(first, last)
    ports = parse_ports(f"{first}-{last}")
    assert contains_port(ports, port) is (first <= port <= last)
    assert not contains_port(ports, None)


@pytest.mark.parametrize("protocol", [*PORT_PROTOCOLS, "icmp", None])
def test_require_port_protocol(protocol: str | None) -> None:
    require_port_protocol((), protocol)
    if protocol in PORT_PROTOCOLS:
        require_port_protocol(("80",), protocol)
    else:
        with pytest.raises(ValueError, match="ports need protocol: one of tcp, udp, sctp"):
            require_port_protocol(("80",), protocol)
