"""The network as the engine sees it: what waits for what, and what is kept to itself."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from pulumi import RunError

from components.calico import component as calico
from tests.preview.program import Program, config_of, config_with, run, variable

HOSTS = ("a0", "a1", "a2")


@pytest.fixture(scope="module")
def lab() -> Program:
    return run(config_of("lab"))


def with_network(**values: Any) -> Program:  # noqa: ANN401 - values of the config file
    config = copy.deepcopy(config_of("lab"))
    config["calico-lab:network"].update(values)
    return run(config)


def urns(program: Program, *names: str) -> set[str]:
    return {program.named(f"{host}-{name}").urn for host in HOSTS for name in names}


def changed(before: Program, after: Program, name: str) -> bool:
    return before.named(name).inputs != after.named(name).inputs


def test_nothing_of_calico_runs_before_etcd_is_healthy(lab: Program) -> None:
    assert lab.named("etcd-health").urn in lab.named("calico-datastore").dependencies
    for host in HOSTS:
        assert lab.named("calico-datastore").urn in lab.named(f"{host}-calico").dependencies


def test_programs_in_the_kernel_come_with_what_they_need(
    lab: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The archive of its own is built where a stack asks for it.
    monkeypatch.setitem(calico.ARCHIVES, "ebpf", calico.ARCHIVES["iptables"])
    ebpf = with_network(dataplane="ebpf")
    for host in HOSTS:
        for resource, name, text in (
            ("calico-programs", "PACKAGES", "libpcap0.8"),
            ("calico-programs", "FILES", "/usr/bin/mount -t bpf"),
            ("calico-programs", "FILES", "FELIX_BPFENABLED=true"),
            ("calico", "DATAPLANE", "ebpf"),
        ):
            with_rules, with_programs = (variable(one, f"{host}-{resource}", name) for one in (lab, ebpf))
            assert text in with_programs
            assert text not in with_rules


def test_a_felix_that_was_not_built_is_a_plain_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(calico.ARCHIVES, "ebpf", "absent.tar.gz")
    with pytest.raises(RunError, match=r"absent\.tar\.gz: Calico's programs are not there; 'make setup'"):
        with_network(dataplane="ebpf")


def test_what_takes_long_does_not_wait_for_etcd(lab: Program) -> None:
    etcd = urns(lab, "etcd") | {lab.named("etcd-health").urn}
    for name in ("calico-archive", *(f"{host}-calico-programs" for host in HOSTS)):
        assert not etcd & lab.named(name).dependencies


def test_services_start_with_all_that_they_need(lab: Program) -> None:
    for host in HOSTS:
        assert lab.named("calico-archive").urn in lab.named(f"{host}-calico-programs").dependencies
        needed = {lab.named(f"{host}-calico-programs").urn, lab.named("calico-datastore").urn}
        assert needed <= lab.named(f"{host}-calico").dependencies


def test_the_gate_waits_for_the_services_of_all_hosts(lab: Program) -> None:
    gate = lab.named("calico-ready")
    assert urns(lab, "calico") <= gate.dependencies
    assert gate.inputs["port"] == 179
    assert {check["host"]: set(check["peers"]) for check in gate.inputs["checks"]} == {
        host: set(HOSTS) - {host} for host in HOSTS
    }


def test_the_docker_network_waits_for_the_gate(lab: Program) -> None:
    for host in HOSTS:
        network = lab.named(f"{host}-netv")
        assert lab.named("calico-ready").urn in network.dependencies
        assert (network.inputs["kind"], network.inputs["docker_name"]) == ("network", "netv")
        assert network.inputs["variables"]["CIDR"] == "192.168.0.0/16"
        assert network.inputs["host"] == host


def test_a_key_travels_by_stdin_as_a_secret_and_is_for_root_alone(lab: Program) -> None:
    for host in HOSTS:
        programs = lab.named(f"{host}-calico-programs")
        assert any("calico.key" in str(secret) for secret in programs.secrets())
        assert f"the secret of {host}-calico-certificate" in str(programs.inputs["stdin"])
        assert "the secret of" not in programs.plain()
        assert "OWNER=root:root" in programs.inputs["create"]


def test_a_certificate_of_calico_is_a_clients_and_no_peers(lab: Program) -> None:
    for host in HOSTS:
        certificate = lab.named(f"{host}-calico-certificate").inputs
        assert certificate["usages"] == ["client"]
        assert certificate["common_name"] == f"calico-{host}"


def test_programs_place_each_script_that_another_one_runs(lab: Program) -> None:
    scripts = Path(calico.__file__).with_name("scripts").iterdir()
    used = {
        path
        for script in scripts
        for path in re.findall(r"/etc/calico-lab/calico/\S+\.sh", script.read_text())
    }
    assert used
    for host in HOSTS:
        placed = variable(lab, f"{host}-calico-programs", "FILES")
        assert not [path for path in used if f"==> {path}\n" not in placed]


def test_what_is_left_on_a_host_has_what_removes_it(lab: Program) -> None:
    for host in HOSTS:
        for component in ("calico-programs", "calico"):
            assert f"COMPONENT={component}\n" in lab.named(f"{host}-{component}").inputs["delete"]
    assert lab.named("calico-datastore").inputs["delete"]


def test_datastore_is_replaced_for_another_pool_only(lab: Program) -> None:
    pool = "calico-datastore"
    moved = with_network(blockSize=27)
    assert moved.named(pool).inputs["triggers"] != lab.named(pool).inputs["triggers"]
    masked = with_network(natOutgoing=False)
    assert masked.named(pool).inputs["triggers"] == lab.named(pool).inputs["triggers"]
    assert masked.named(pool).inputs["stdin"] != lab.named(pool).inputs["stdin"]


def test_services_restart_for_another_encapsulation_only(lab: Program) -> None:
    tunnelled, masked = with_network(encapsulation="vxlan"), with_network(natOutgoing=False)
    assert changed(lab, tunnelled, "calico-ready")
    assert not changed(lab, masked, "calico-ready")
    for host in HOSTS:
        assert changed(lab, tunnelled, f"{host}-calico")
        assert not changed(lab, masked, f"{host}-calico")


def test_services_know_that_only_the_members_of_etcd_have_changed(lab: Program) -> None:
    fewer, masked = run(config_with({"etcd.members": ["a0"]})), with_network(mtu=1400)
    for host in HOSTS:
        config, members = variable(lab, f"{host}-calico", "CONFIG").split()
        assert variable(fewer, f"{host}-calico", "CONFIG").split()[0] == config
        assert variable(fewer, f"{host}-calico", "CONFIG").split()[1] != members
        assert variable(masked, f"{host}-calico", "CONFIG").split() == [config, members]
        assert variable(with_network(encapsulation="vxlan"), f"{host}-calico", "CONFIG").split()[1] == members


def test_services_are_undone_by_their_installation(lab: Program) -> None:
    for host in HOSTS:
        # An installation that is interrupted is in the host's own record, with what undoes it.
        assert 'delete --skip-not-exists node "$HOST"' in variable(lab, f"{host}-calico", "STOP")
        listed = variable(lab, f"{host}-prepare", "COMPONENTS").split()
        assert {"calico-programs", "calico"} <= set(listed)


def test_no_change_of_config_replaces_the_services(lab: Program) -> None:
    # A replacement would run the script that removes every interface and rule of Calico.
    for host in HOSTS:
        for name in ("calico-programs", "calico"):
            assert "triggers" not in lab.named(f"{host}-{name}").inputs


def test_network_is_replaced_before_its_pool(lab: Program) -> None:
    # A property of the network is the datastore's, so Pulumi removes it, and the containers on it, first.
    moved = with_network(blockSize=27)
    for host in HOSTS:
        network = lab.named(f"{host}-netv")
        assert lab.named("calico-datastore").urn in network.dependencies
        pool = "netv: 192.168.0.0/16 in blocks of /26"
        assert network.inputs["location"] == host
        assert network.inputs["variables"]["POOL"] == pool
        assert moved.named(f"{host}-netv").inputs["variables"]["POOL"] != pool
    assert not changed(lab, with_network(encapsulation="vxlan"), "a0-netv")


def test_nothing_of_the_network_is_touched_before_its_settings_are_checked(lab: Program) -> None:
    checked = lab.named("network-settings")
    assert urns(lab, "docker") <= checked.dependencies
    for host in HOSTS:
        assert checked.urn in lab.named(f"{host}-calico-programs").dependencies
    assert checked.urn in lab.named("calico-datastore").dependencies


def test_an_mtu_is_an_option_of_the_network(lab: Program) -> None:
    assert lab.named("a0-netv").inputs["variables"]["MTU"] == ""
    assert with_network(mtu=1400).named("a0-netv").inputs["variables"]["MTU"] == "1400"


def checks(program: Program) -> dict[str, Any]:
    """What the gate checks, by host."""
    return {check["host"]: check for check in program.named("calico-ready").inputs["checks"]}


def test_the_gate_waits_for_the_sessions_that_there_will_be(lab: Program) -> None:
    reflected = with_network(routeReflectors=["a1"])
    addresses = {"a0": "172.16.6.44", "a1": "172.16.6.218", "a2": "172.16.6.231"}
    for host, peers in {"a0": ["a1"], "a1": ["a0", "a2"], "a2": ["a1"]}.items():
        check = checks(reflected)[host]
        assert check["variables"]["PEERS"] == " ".join(f"{peer}={addresses[peer]}" for peer in peers)
        assert check["variables"]["SESSION"] == "Node"
        assert check["peers"] == {peer: addresses[peer] for peer in peers}
        assert checks(lab)[host]["variables"]["SESSION"] == "Mesh"


def test_the_gate_waits_for_the_address_of_an_end_of_wireguard(lab: Program) -> None:
    encrypted = with_network(wireguard=True)
    for host in HOSTS:
        assert checks(encrypted)[host]["variables"]["WIREGUARD"] == "yes"
        assert checks(lab)[host]["variables"]["WIREGUARD"] == ""


def test_containers_on_the_network_are_asked_for_before_it_is_deleted(lab: Program) -> None:
    (attached,) = lab.of_type(":Attached")
    assert urns(lab, "netv") <= attached.dependencies
    assert attached.inputs["network"] == "netv"
    assert set(attached.inputs["hosts"]) == set(attached.inputs["ssh"]) == set(HOSTS)


def test_services_have_reserved_addresses_and_a_name_for_policies(lab: Program) -> None:
    datastore = lab.named("calico-datastore").inputs["stdin"]
    assert "  reservedCIDRs:\n  - 192.168.0.100/32\n  - 192.168.0.101/32\n" in datastore
    assert lab.named("sshbox").inputs["variables"]["SERVICE"] == "sshBox"
    assert lab.named("notebook").inputs["service"] == "notebook"
    assert lab.named("proxy").inputs["variables"]["SERVICE"] == ""


def test_a_network_policy_is_one_resource_and_gone_with_its_switch(lab: Program) -> None:
    before = {resource.name for resource in lab.resources}
    assert not [name for name in before if "network-policy" in name or "calico-hosts" in name]
    config = copy.deepcopy(config_of("lab"))
    config["calico-lab:network"]["policies"]["sshbox-stays-in"]["enabled"] = True
    switched = run(config)
    new = {resource.name for resource in switched.resources} - before
    assert new == {"calico-hosts", "network-policy-sshbox-stays-in"}
    policy = switched.named("network-policy-sshbox-stays-in")
    assert "kind: GlobalNetworkPolicy" in policy.inputs["stdin"]
    assert policy.inputs["delete"]
    # The ends of tunnels, which stand for hosts as well, are known by then.
    assert switched.named("calico-ready").urn in switched.named("calico-hosts").dependencies
    # A replacement would apply first and remove last, and so remove what it has applied.
    assert "triggers" not in policy.inputs
    assert "triggers" not in switched.named("calico-hosts").inputs
