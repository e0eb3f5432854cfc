"""Brings a cluster to the members of the config: asks all hosts, takes the first step, and asks again.

It runs in the readiness gate, on the controller, which is the only one that sees all members. So there is one
decision at a time: whether hosts without data found a cluster or join one, which member joins or leaves, and
which one restarts. No step begins before the one before it has ended, whatever it took, so restarts need no
lock. Nothing is kept on the controller: after an interruption the cluster itself says where it is.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from components.etcd.planning import BlockedError, Cluster, HostState, Member, Step, next_step
from components.etcd.rendering import METRICS_PORT
from components.hosts.remote import Answer, HostError, ask, run
from components.shared.provider import tell

_SCRIPTS = Path(__file__).with_name("scripts")
SURVEY_SECONDS = 20
ELECTION_SECONDS = 15
"""How long a cluster may be without a leader before it counts as one without a quorum."""
CHANGE_SECONDS = 30
"""etcd refuses a change until all members have been connected for 5 s."""
START_SECONDS = 120
CATCH_UP_SECONDS = 600
RESTART_SECONDS = 120
PAUSE_SECONDS = 0.5
TRANSIENT = (
    "unhealthy cluster",
    "too many learner members",
    "in sync with leader",
    "re-configuration failed",
    "no leader",
    "leader changed",
    "request timed out",
    "deadline exceeded",
    "connection refused",
)
"""What etcd says where the same change is accepted some time later (etcd's rpctypes)."""


def _script(name: str) -> str:
    return (_SCRIPTS / name).read_text()


@dataclass(frozen=True)
class Report:
    """What one host reports of its member."""

    state: HostState = field(default_factory=HostState)
    reached: bool = False
    was_healthy: bool = False
    """Whether the gate has seen it healthy, with data that may be lost by now."""
    initial: str = ""
    """The members that it was started with, as long as it has not been healthy."""
    id: str = ""
    leader: str = ""
    members: tuple[Member, ...] = ()
    """The cluster's list; empty where it is not healthy, or does not answer clients."""
    error: str = ""
    """Why a healthy member does not answer."""


def parse(answer: Answer, names: Mapping[str, str]) -> Report:
    """Parse what `survey.sh` prints.

    Args:
        answer: Of a host.
        names: Name of the host by peer URL, for members that have not published their own.
    """
    if answer.status:
        return Report(error=answer.error)
    facts = dict(line.partition(" ")[::2] for line in answer.text.splitlines())
    data = facts.get("data", "none")
    state = HostState(
        data if data in ("own", "other") else "none",  # type: ignore[arg-type]
        facts.get("begins", ""),
        "healthy" in facts,
        "restart" in facts,
    )
    report = Report(
        state,
        reached=True,
        was_healthy="was-healthy" in facts,
        initial=facts.get("initial", ""),
        error=facts.get("error", ""),
    )
    if "members" not in facts:
        return report
    [status] = json.loads(facts["status"])
    return replace(
        report,
        id=_id(status["Status"]["header"]["member_id"]),
        leader=_id(status["Status"].get("leader", 0)),
        members=tuple(_member(one, names) for one in json.loads(facts["members"])["members"]),
    )


def _id(number: int) -> str:
    return f"{number:x}"


def _member(listed: Mapping[str, Any], names: Mapping[str, str]) -> Member:
    url = listed["peerURLs"][0]
    return Member(
        _id(listed["ID"]),
        listed.get("name") or names.get(url, ""),
        url,
        started=bool(listed.get("clientURLs")),
        learner=bool(listed.get("isLearner")),
    )


@dataclass(frozen=True)
class Lab:
    """A lab's hosts, and the cluster that they are to have."""

    ssh: Mapping[str, str]
    """The ssh command of each host of the lab, member or not, that is not lost."""
    wanted: Mapping[str, str]
    """Peer URL by member."""
    peer_urls: Mapping[str, str]
    """The peer URL that each host has or would have."""
    client_port: int
    token: str
    identity: str
    """Identifies the cluster among others that a host may have been a member of; empty if it is not known."""

    def survey(
        self, hosts: Iterable[str] | None = None, seconds: float = SURVEY_SECONDS
    ) -> dict[str, Report]:
        """Ask some hosts at once, or all."""
        ssh = {host: self.ssh[host] for host in (self.ssh if hosts is None else hosts)}
        variables = {"CLUSTER": self.identity, "METRICS_PORT": str(METRICS_PORT)}
        answers = ask(ssh, _script("survey.sh"), dict.fromkeys(ssh, variables), seconds)
        names = {url: name for name, url in self.peer_urls.items()}
        return {host: parse(answer, names) for host, answer in answers.items()}

    def client_url(self, member: Member) -> str:
        """Where a member answers clients: its peers' address, and the clients' port."""
        return f"{member.url.rpartition(':')[0]}:{self.client_port}"


def cluster_of(reports: Mapping[str, Report]) -> tuple[str, Cluster] | None:
    """Return the running cluster and the host that speaks for it; None if no host has its list.

    The leader has the newest list.
    """
    speakers = [host for host, report in reports.items() if report.members]
    if not speakers:
        return None
    speaker = next((host for host in speakers if reports[host].id == reports[host].leader), speakers[0])
    report = reports[speaker]
    states = {host: report.state for host, report in reports.items()}
    return speaker, Cluster(report.members, report.leader, states)


def has_data(reports: Mapping[str, Report]) -> list[str]:
    """The hosts that have data of this cluster."""
    return [host for host, report in reports.items() if report.state.data == "own"]


def founds(reports: Mapping[str, Report]) -> bool:
    """Whether the cluster is still to be founded: no host has data of one that has ever been healthy."""
    began = [reports[host].state for host in has_data(reports)]
    return all(state.begins == "new" and not state.healthy for state in began)


class Convergence:
    """One run to the wanted members."""

    def __init__(self, lab: Lab, now: Callable[[], float] = time.monotonic) -> None:
        self._lab = lab
        self._now = now
        self._hosts = list(lab.ssh)

    def run(self) -> tuple[str, ...]:
        """Take all steps.

        Returns:
            The hosts whose members have to be healthy before it can go on; empty when all steps are taken.

        Raises:
            HostError: A step has failed; the message names the host, the step, the cause and what is next.
        """
        reports = self._lab.survey()
        for host in self._lab.wanted:
            if host not in reports:
                raise HostError(
                    f"{host}: etcd: the host is lost; next: put another one in its place in etcd.members"
                )
            if not reports[host].reached:
                raise HostError(f"{host}: etcd: the host does not answer: {reports[host].error}")
        # Another one that does not answer is not waited for again.
        self._hosts = [host for host, report in reports.items() if report.reached]
        if founds(reports):
            # Former members too: their data are gone with the cluster.
            emptied = [host for host, one in reports.items() if one.was_healthy and not has_data(reports)]
            if emptied:
                raise HostError(
                    f"etcd: no member has data any more, and {' and '.join(emptied)} had. next: set "
                    "etcd.restoreFrom: latest, which restores the last snapshot; or 'pulumi destroy' and "
                    "'pulumi up' for an empty cluster"
                )
            self._found(reports)
            return ()
        while True:
            found = self._cluster()
            if not found:
                return self._without_quorum()
            speaker, cluster = found
            try:
                step = next_step(cluster, self._lab.wanted)
            except BlockedError as blocked:
                if not blocked.hosts:
                    raise HostError(f"etcd: the members were not changed: {blocked}") from None
                return blocked.hosts
            if not step:
                return ()
            self._take(step, speaker, cluster)

    def _cluster(self) -> tuple[str, Cluster] | None:
        """Ask until there is a leader, for a bounded time.

        Raises:
            HostError: The host of a member that stays does not answer any more. It must not be taken for one
                whose data are lost.
        """
        deadline = self._now() + ELECTION_SECONDS
        while True:
            reports = self._lab.survey(self._hosts)
            silent = [host for host in self._lab.wanted if not reports[host].reached]
            found = cluster_of(reports)
            if found and not silent:
                return found[0], self._with_others(*found)
            if self._now() > deadline:
                if silent:
                    raise HostError(
                        f"{silent[0]}: etcd: the host does not answer any more: {reports[silent[0]].error}; "
                        "next: run 'pulumi up' again, which goes on from here"
                    )
                return None
            time.sleep(PAUSE_SECONDS)

    def _with_others(self, speaker: str, cluster: Cluster) -> Cluster:
        """Add the health of members whose hosts leave the lab together with them, as the speaker sees it."""
        lab = self._lab
        others = [one for one in cluster.members if one.started and one.name not in lab.ssh]
        if not others:
            return cluster
        urls = {lab.client_url(one): one.name for one in others}
        variables = {"ARGUMENTS": "endpoint health --write-out=json", "ENDPOINTS": ",".join(urls)}
        # It fails if one of them is unhealthy, and prints all.
        text = run(lab.ssh[speaker], _script("change-members.sh"), variables).text
        answers = json.loads(text) if text.startswith("[") else []
        healthy = {
            urls[one["endpoint"]]: HostState("own", healthy=True) for one in answers if one.get("health")
        }
        return replace(cluster, hosts={**cluster.hosts, **healthy})

    def _found(self, reports: Mapping[str, Report]) -> None:
        """Start all members of a new cluster; it has no leader before a quorum of them runs."""
        initial = ",".join(f"{name}={url}" for name, url in self._lab.wanted.items())
        for host in self._lab.wanted:
            report = reports[host]
            # An interrupted update has started it already.
            if report.state.data != "own" or report.initial != initial:
                self._begin(host, "new", initial)

    def _without_quorum(self) -> tuple[str, ...]:
        """Start what can be started; there is no quorum to keep."""
        reports = self._lab.survey(self._hosts)
        alive = [host for host in has_data(reports) if host in self._lab.wanted]
        lost = [host for host in self._lab.wanted if host not in alive]
        answers = {report.error for report in reports.values() if report.state.healthy and report.error}
        if answers and not any("certificate" in error or "authentication" in error for error in answers):
            raise HostError(f"etcd: the cluster is healthy, and does not answer etcdctl: {answers.pop()}")
        waiting = [host for host in alive if reports[host].state.restart]
        for host in waiting:
            # All at once: with another authority they only speak to each other when all have it.
            tell([f"etcd: restart {host}; there is no quorum to keep"])
            self._on(host, "restart-member.sh", {"WAIT": ""})
        if lost and not waiting:
            raise HostError(
                f"etcd: the cluster has no quorum: {' and '.join(lost)} {_has(lost)} no data of it, and "
                f"{' and '.join(alive) or 'no member'} alone {'are' if len(alive) > 1 else 'is'} no quorum. "
                "next: start the hosts of the other members, if they have their data; or set "
                "etcd.restoreFrom: latest, which restores the last snapshot"
            )
        return tuple(alive)

    def _take(self, step: Step, speaker: str, cluster: Cluster) -> None:
        tell(f"etcd: {sentence}" for sentence in step.sentences)
        lab = self._lab
        match step.kind:
            case "add":
                # Its host may have data of a former member.
                self._on(step.host, "remove-member.sh", {})
                self._change(speaker, f"member add {step.host} --learner --peer-urls={lab.wanted[step.host]}")
            case "start":
                initial = ",".join(f"{one.name or one.id}={one.url}" for one in cluster.members)
                self._begin(step.host, "existing", initial)
                self._until_healthy(step.host, "has not joined", START_SECONDS)
            case "promote":
                assert step.member  # noqa: S101 - a step of this kind has one
                # It may have been interrupted before it started.
                self._until_healthy(step.host, "has not joined", START_SECONDS)
                self._change(speaker, f"member promote {step.member.id}", CATCH_UP_SECONDS)
            case "move":
                assert step.target  # noqa: S101 - a step of this kind has one
                urls = ",".join(lab.client_url(one) for one in cluster.members if cluster.host(one).healthy)
                self._change(speaker, f"move-leader {step.target.id}", urls=urls)
            case "restart":
                self._on(step.host, "restart-member.sh", {"WAIT": "yes"}, RESTART_SECONDS)
                self._until_healthy(step.host, "is not healthy after its restart", START_SECONDS)
            case _:
                assert step.member  # noqa: S101 - a step of this kind has one
                self._change(speaker, f"member remove {step.member.id}")

    def _begin(self, host: str, state: str, initial: str) -> None:
        variables = {"BEGINS": state, "INITIAL_CLUSTER": initial}
        variables |= {"TOKEN": self._lab.token, "CLUSTER": self._lab.identity}
        self._on(host, "begin-member.sh", variables)

    def _on(self, host: str, script: str, variables: Mapping[str, str], seconds: float = 60) -> None:
        answer = run(self._lab.ssh[host], _script(script), variables, seconds)
        if answer.status:
            raise HostError(
                f"{host}: etcd: {script} failed: {answer.error}; next: see 'journalctl -u calico-lab-etcd' "
                "there, then run 'pulumi up' again, which goes on from here"
            )

    def _until_healthy(self, host: str, problem: str, seconds: float) -> None:
        deadline = self._now() + seconds
        while not self._lab.survey([host])[host].state.healthy:
            if self._now() > deadline:
                raise NotJoinedError(
                    host,
                    f"{host}: etcd: the member {problem} within {seconds:g} s; next: see 'journalctl -u "
                    "calico-lab-etcd' there, then run 'pulumi up' again, which goes on from here",
                )
            time.sleep(PAUSE_SECONDS)

    def _change(self, speaker: str, arguments: str, seconds: float = CHANGE_SECONDS, urls: str = "") -> None:
        """Run etcdctl on a host until etcd accepts the change."""
        lab = self._lab
        endpoints = urls or f"{lab.peer_urls[speaker].rpartition(':')[0]}:{lab.client_port}"
        variables = {"ARGUMENTS": arguments, "ENDPOINTS": endpoints}
        deadline = self._now() + seconds
        while True:
            answer = run(lab.ssh[speaker], _script("change-members.sh"), variables)
            if not answer.status:
                return
            if self._now() > deadline or not any(text in answer.error for text in TRANSIENT):
                raise HostError(
                    f"{speaker}: etcd: 'etcdctl {arguments}' failed: {answer.error.splitlines()[-1]}; next: "
                    "make sure that all members are healthy, then run 'pulumi up' again, which goes on there"
                )
            time.sleep(PAUSE_SECONDS)


class NotJoinedError(HostError):
    """A member does not become healthy, and its connections may be the reason."""

    def __init__(self, host: str, message: str) -> None:
        super().__init__(message)
        self.host = host


def _has(hosts: list[str]) -> str:
    return "have" if len(hosts) > 1 else "has"
