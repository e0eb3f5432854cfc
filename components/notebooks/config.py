"""The sections `notebook` and `notebooks` of the config, and the notebooks that they describe."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from components.notebooks.roster import RosterError, roster_lines
from components.services.config import Cpus, ServiceConfig, cpus_field, memory_field
from components.services.packages import packages_lock
from components.shared.section import (
    Address,
    ExpandedPath,
    HostName,
    Section,
    Whole,
    problem_at,
)

NOTEBOOK_PORT = 8888
"""The TCP port of every notebook on the container network."""
ORIGINAL = "notebook"
"""The name of the notebook of the section `notebook`; its path is `/`."""
RESERVED = frozenset(
    {
        # Paths of Jupyter Server and JupyterLab under the original's base URL, `/`.
        *(
            "api",
            "custom",
            "doc",
            "edit",
            "favicon",
            "files",
            "git-pull",
            "hub",
            "kernelspecs",
            "lab",
            "login",
        ),
        *("logout", "lsp", "metrics", "nbconvert", "nbextensions", "notebook", "notebooks", "oauth2"),
        *("services", "shared", "static", "terminals", "tree", "view", "voila"),
    }
)
"""Names that no member may have: the proxy would take a path of the original notebook for the member's."""
MEMORY_MIB = 1024
PIDS = 512


def _notebook_name(value: str) -> str:
    if value in RESERVED:
        raise ValueError("is a path of Jupyter's own; must be another name")
    return value


NotebookName = Annotated[HostName, AfterValidator(_notebook_name)]
Restore = Annotated[
    str, StringConstraints(pattern=r"^(latest|empty|\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2})?Z?)?)$")
]
"""A moment to go back to: `latest`, or a UTC time such as `2026-11-28T10:00`; or `empty`."""
# The hash of jupyter_server.auth.passwd().
PasswordHash = Annotated[str, StringConstraints(pattern=r"^(argon2|sha1|sha256):\S+$")]
_RESTORE = (
    "The state of the saved work to go back to, once whenever the value changes: `latest`, a UTC time such "
    "as `2026-11-28T10:00` for the newest backup that is not younger, or `empty` for a new work folder."
)
_ENABLED = "Whether it runs. A notebook that is off keeps its saved work."


def _pids(default: Any) -> Any:  # noqa: ANN401 - as pydantic's Field
    return Field(default, ge=64, le=4_194_304, description="The most processes and threads.")


class NotebookConfig(ServiceConfig):
    """The `notebook` section of the config."""

    host: HostName = Field("a1", description="The host that runs it; its saved work moves along.")
    address: Address = Field(description="Its fixed address on the container network.")
    memory: Whole = memory_field(MEMORY_MIB, 256, "it and its kernels")
    cpus: Cpus = cpus_field(1.0, "it and its kernels")
    pids: Whole = _pids(PIDS)
    enabled: bool = Field(default=True, description=_ENABLED)
    restore: Restore | None = Field(None, description=_RESTORE)


class MemberConfig(Section):
    """One notebook of a class. What it does not say, the section says."""

    host: HostName | None = Field(None, description="The host that runs it; without it, `placement` decides.")
    address: Address | None = Field(
        None, description="Its fixed address on the container network; without it, any that is free."
    )
    memory: Annotated[Whole, Field(ge=256)] | None = Field(
        None, description="The memory of it and its kernels, in MiB."
    )
    cpus: Annotated[Cpus, Field(ge=0.1)] | None = Field(
        None, description="The processors of it and its kernels."
    )
    pids: Annotated[Whole, Field(ge=64)] | None = Field(None, description="The most processes and threads.")
    enabled: bool = Field(default=True, description=_ENABLED)
    password: PasswordHash | None = Field(
        None,
        description="The hash of a password, as of `jupyter server password`; without it, a token opens it.",
    )
    restore: Restore | None = Field(None, description=_RESTORE)


class Student(MemberConfig):
    """A line of the roster: a member with its name."""

    name: NotebookName


def _students(path: Path) -> Iterator[tuple[int, Student]]:
    """The students, each with the number of its line."""
    for number, fields in roster_lines(path):
        try:
            yield number, Student.model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            problem = first["msg"].removeprefix("Value error, ")
            raise RosterError(f"line {number}, {'.'.join(map(str, first['loc']))}: {problem}") from None


class NotebooksConfig(Section):
    """The `notebooks` section of the config."""

    members: dict[NotebookName, MemberConfig] = Field(
        default_factory=dict,
        description="Notebooks by name: those of teachers, and others that are not isolated.",
    )
    students: ExpandedPath | None = Field(
        None,
        description="A CSV file with one student's notebook in each line: the first line names the columns, "
        "`name` and any keys of a member.",
    )
    placement: Literal["spread"] = Field(
        "spread",
        description="The host of a notebook that names none: `spread` takes the host with the most free "
        "memory, and leaves every notebook where it is.",
    )
    hosts: tuple[HostName, ...] | None = Field(
        None, min_length=1, description="The hosts that `placement` may use; without it, all on the network."
    )
    memory: Whole = memory_field(MEMORY_MIB, 256, "each notebook and its kernels")
    cpus: Cpus = cpus_field(1.0, "each notebook and its kernels")
    pids: Whole = _pids(PIDS)
    cull_seconds: Whole = Field(
        3600, ge=60, le=31_536_000, description="A kernel that is idle for so long, in seconds, is stopped."
    )
    repositories: tuple[Annotated[str, StringConstraints(pattern=r"^https?://\S+$")], ...] = Field(
        (),
        description="Git repositories that every notebook has in its work folder, the one of the section "
        "`notebook` too.",
    )
    packages: ExpandedPath | None = Field(
        None,
        description="A list of the Python packages that the notebooks have, in the place of "
        "`images/notebook/packages.in`. `python3 -m workspace lock --packages FILE` writes its lock file.",
    )
    isolation: Literal["students", "none"] = Field(
        "students", description="`students`: no student's notebook reaches another student's."
    )
    keep_work: bool = Field(
        default=True,
        description="Whether `destroy`, and the removal of a notebook of the class, are refused, because "
        "they delete saved work. The notebook of the section `notebook` is not of the class.",
    )
    _roster: dict[str, MemberConfig] = PrivateAttr(default_factory=dict)

    @field_validator("packages")
    @classmethod
    def _packages_are_locked(cls, packages: Path | None) -> Path | None:
        if packages:
            packages_lock(packages, Path())
        return packages

    @model_validator(mode="after")
    def _read_students(self) -> "NotebooksConfig":
        if self.students is None:
            return self
        try:
            for number, student in _students(self.students):
                if student.name in self._roster or student.name in self.members:
                    problem = f"line {number}, name: {student.name!r} is taken; must be a name of its own"
                    raise problem_at("students", str(self.students), problem)
                self._roster[student.name] = student
        except RosterError as error:
            raise problem_at("students", str(self.students), str(error)) from None
        return self

    @property
    def roster(self) -> Mapping[str, MemberConfig]:
        """The students' notebooks, by name."""
        return self._roster


@dataclass(frozen=True)
class Notebook:
    """A notebook as the two sections describe it."""

    name: str
    section: str
    """Where the config has it, for messages: `notebook`, or `notebooks.members.alice`."""
    host: str | None
    """None where the placement decides."""
    address: str | None
    memory: int
    """MiB."""
    cpus: float
    pids: int
    enabled: bool
    password: str | None
    restore: str | None
    student: bool

    @property
    def service(self) -> str:
        """Its name in network policies, and as a Pulumi resource."""
        return ORIGINAL if self.name == ORIGINAL else f"notebook-{self.name}"

    @property
    def container(self) -> str:
        """The name of its container on the host."""
        return f"calico-lab-{self.service}"

    @property
    def volume(self) -> str:
        """The name of the volume with its saved work."""
        return f"{self.container}-work"

    @property
    def path(self) -> str:
        """Its path on the proxy."""
        return "/" if self.name == ORIGINAL else f"/{self.name}/"


def notebooks(original: NotebookConfig, section: NotebooksConfig) -> dict[str, Notebook]:
    """Returns all notebooks of a lab by name, the original's first."""
    return {notebook.name: notebook for notebook in _notebooks(original, section)}


def _notebooks(original: NotebookConfig, section: NotebooksConfig) -> Iterator[Notebook]:
    yield Notebook(
        name=ORIGINAL,
        section="notebook",
        host=original.host,
        address=str(original.address),
        memory=original.memory,
        cpus=original.cpus,
        pids=original.pids,
        enabled=original.enabled,
        password=None,
        restore=original.restore,
        student=False,
    )
    for name, member in {**section.members, **section.roster}.items():
        student = name in section.roster
        yield Notebook(
            name=name,
            section=f"notebooks.students.{name}" if student else f"notebooks.members.{name}",
            host=member.host,
            address=str(member.address) if member.address else None,
            memory=member.memory or section.memory,
            cpus=member.cpus or section.cpus,
            pids=member.pids or section.pids,
            enabled=member.enabled,
            password=member.password,
            restore=member.restore,
            student=student,
        )
