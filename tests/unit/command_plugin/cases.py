"""The table of cases: an operation of the plugin, with its inputs and its result.

`${directory}` is an empty directory of the case, `${key}` and so on are files of the sshd of the tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from command_plugin.properties import ASSET, SIGNATURE, UNKNOWN, Secret

Properties: TypeAlias = dict[str, Any]

ARCHIVE: Final = "0def7320c3a5731c473e5ecbe6d01bc7"


@dataclass(frozen=True)
class Connection:
    """The connection to the sshd of the tests, with some settings changed; None leaves one out."""

    changed: Properties = field(default_factory=dict)
    secret: bool = True


@dataclass(frozen=True)
class Expect:
    """The result of an operation."""

    outputs: Properties = field(default_factory=dict)
    """What the operation adds to the inputs."""
    failures: tuple[str, ...] = ()
    """The reasons for which `Check` refuses the inputs, a part of each."""
    changes: dict[str, str] = field(default_factory=dict)
    """The paths that `Diff` reports."""
    error: tuple[str, ...] | None = None
    """Parts of the error message; None where the operation succeeds."""
    not_in_error: tuple[str, ...] = ()
    id: str = ".*"
    """A regular expression."""
    shown: tuple[str, ...] = ()
    """Parts of what the engine shows while the operation runs."""
    not_shown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """One operation."""

    type: str
    operation: str
    inputs: Properties | None = None
    state: Properties = field(default_factory=dict)
    expect: Expect = field(default_factory=Expect)
    preview: bool = False
    ignored: tuple[str, ...] = ()
    """`ignoreChanges`."""
    before: str = ""
    """Shell commands that prepare the directory."""
    after: str = ""
    """Shell commands that test what the operation has done in the directory."""
    official: Expect | None = None
    """What the official plugin does, where that is different on purpose; the README has the reasons."""
    official_hangs: bool = False


LOCAL: Final = "local:Command"
REMOTE: Final = "remote:Command"
COPY: Final = "remote:CopyToRemote"

SILENT: Final = {"stdout": "", "stderr": ""}
UNKNOWN_OUTPUTS: Final = {"stdout": UNKNOWN, "stderr": UNKNOWN}
CREATED: Final = {"create": "echo created", "stdout": "created", "stderr": ""}
DEFAULTS: Final[Properties] = {"user": "root", "port": 22, "dialErrorLimit": 10, "perDialTimeout": 15}
STAND_IN: Final = "the stand-in of the command plugin does not have "


def stdout(text: str) -> Expect:
    """The result of a command that prints this and nothing on stderr."""
    return Expect({"stdout": text, "stderr": ""})


def local(create: Any, expect: Expect, inputs: Properties | None = None, **more: Any) -> Case:  # noqa: ANN401
    """The creation of a `local.Command`."""
    return Case(LOCAL, "create", {"create": create, **(inputs or {})}, expect=expect, **more)


def remote(create: Any, expect: Expect, inputs: Properties | None = None, **more: Any) -> Case:  # noqa: ANN401
    """The creation of a `remote.Command`."""
    given = {"connection": Connection(), "create": create, **(inputs or {})}
    return Case(REMOTE, "create", given, expect=expect, **more)


def file(hash_: str = "a", path: str = "${directory}/file") -> Properties:
    """A file as the SDK passes it."""
    return {SIGNATURE: ASSET, "path": path, "hash": hash_ * 64}


def copy(**changed: Any) -> Properties:  # noqa: ANN401 - inputs of any type
    """The inputs of a copy."""
    return {"connection": Connection(), "source": file(), "remotePath": "${directory}/copy", **changed}


CHECK: Final = {
    "local-check": Case(
        LOCAL,
        "check",
        {
            "create": "a",
            "environment": {"A": Secret("1")},
            "triggers": [1, "x", {"y": UNKNOWN}],
            "interpreter": [],
            "logging": "none",
        },
    ),
    "local-check-type": Case(
        LOCAL,
        "check",
        {"create": 1, "environment": "A=1"},
        expect=Expect(failures=("Field 'create' ", "Field 'environment' ")),
    ),
    "local-check-unknown-property": Case(
        LOCAL, "check", {"craete": "a"}, expect=Expect(failures=("Unrecognized field 'craete'",))
    ),
    "local-check-absent": Case(
        LOCAL,
        "check",
        {"assetPaths": ["*"], "archivePaths": ["*"]},
        expect=Expect(failures=(STAND_IN + "'assetPaths'", STAND_IN + "'archivePaths'")),
        official=Expect(),
    ),
    "remote-check-defaults": Case(
        REMOTE,
        "check",
        {"connection": {"host": "h"}, "create": "a"},
        expect=Expect({"connection": Secret({"host": "h", **DEFAULTS})}),
    ),
    "remote-check-proxy-defaults": Case(
        REMOTE,
        "check",
        {
            "connection": Secret(
                {"host": "h", "port": 2222, "proxy": {"host": "j", "user": "u", "privateKey": "k"}}
            )
        },
        expect=Expect(
            {
                "connection": Secret(
                    {
                        "host": "h",
                        **DEFAULTS,
                        "port": 2222,
                        "proxy": {"host": "j", **DEFAULTS, "user": "u", "privateKey": Secret("k")},
                    }
                )
            }
        ),
    ),
    "remote-check-no-connection": Case(
        REMOTE, "check", {"create": "a"}, expect=Expect(failures=("Missing required field 'connection'",))
    ),
    "remote-check-no-host": Case(
        REMOTE,
        "check",
        {"connection": {"user": "root"}},
        expect=Expect(failures=("Missing required field 'host'",)),
    ),
    "remote-check-unknown-setting": Case(
        REMOTE,
        "check",
        {"connection": {"host": "h", "hostkey": "k"}},
        expect=Expect(failures=("Unrecognized field 'hostkey'",)),
    ),
    "remote-check-absent": Case(
        REMOTE,
        "check",
        {"connection": {"host": "h", **DEFAULTS, "password": Secret("p")}, "environment": {"A": "1"}},
        expect=Expect(failures=(STAND_IN + "'password'", STAND_IN + "'environment'")),
        official=Expect({"connection": Secret({"host": "h", **DEFAULTS, "password": Secret("p")})}),
    ),
    "copy-check": Case(
        COPY,
        "check",
        {"connection": {"host": "h"}, "source": file(path="/x"), "remotePath": "/x"},
        expect=Expect({"connection": Secret({"host": "h", **DEFAULTS})}),
    ),
    **{
        f"copy-check-{name}": Case(
            COPY,
            "check",
            {"connection": Secret({"host": "h", **DEFAULTS}), "source": source, "remotePath": "/x"},
            expect=Expect(failures=(STAND_IN + "a 'source' other than one file",)),
            official=Expect(),
        )
        for name, source in {
            "text": {SIGNATURE: ASSET, "text": "x", "hash": "a" * 64},
            "directory": {SIGNATURE: ARCHIVE, "path": "/x", "hash": "a" * 64},
        }.items()
    },
    "copyfile-check": Case(
        "remote:CopyFile",
        "check",
        {"connection": Secret({"host": "h", **DEFAULTS}), "localPath": "/x", "remotePath": "/y"},
        expect=Expect(failures=(STAND_IN + "command:remote:CopyFile",)),
        official=Expect(),
    ),
}

DIFF: Final = {
    "local-diff-none": Case(
        LOCAL,
        "diff",
        {"create": "a", "environment": {"A": "1"}, "triggers": [1, "x", {"y": [True]}]},
        {"create": "a", "environment": {"A": "1"}, "triggers": [1, "x", {"y": [True]}], **SILENT},
    ),
    # Every input but `triggers` is an update, also where no command would run.
    "local-diff-every-input": Case(
        LOCAL,
        "diff",
        {
            "create": "b",
            "environment": {"B": "2", "C": "1"},
            "interpreter": ["sh", "-c"],
            "logging": "stdout",
        },
        {
            "create": "a",
            "dir": "x",
            "environment": {"A": "1", "B": "1"},
            "interpreter": ["sh"],
            "logging": "none",
            **SILENT,
        },
        expect=Expect(
            changes={
                "create": "update",
                "dir": "delete",
                "environment.A": "delete",
                "environment.B": "update",
                "environment.C": "add",
                "interpreter[1]": "add",
                "logging": "update",
            }
        ),
    ),
    "local-diff-secret": Case(
        LOCAL,
        "diff",
        {"create": Secret("x"), "environment": Secret({"A": "2"}), "stdin": Secret("same")},
        {"create": "x", "environment": Secret({"A": "1"}), "stdin": Secret("same"), **SILENT},
        expect=Expect(changes={"create": "update", "environment": "update"}),
    ),
    "local-diff-ignored": Case(
        LOCAL,
        "diff",
        {"create": "a", "stdin": "y"},
        {"create": "a", "stdin": "x", **SILENT},
        ignored=("stdin",),
    ),
    "local-diff-unknown": Case(
        LOCAL,
        "diff",
        {"create": UNKNOWN},
        {"create": "a", **SILENT},
        expect=Expect(changes={"create": "update"}),
    ),
    "local-diff-triggers-added": Case(
        LOCAL,
        "diff",
        {"create": "a", "triggers": [1]},
        {"create": "a", **SILENT},
        expect=Expect(changes={"triggers": "add replace"}),
    ),
    "local-diff-triggers-removed": Case(
        LOCAL,
        "diff",
        {"create": "a"},
        {"create": "a", "triggers": [1], **SILENT},
        expect=Expect(changes={"triggers": "delete replace"}),
    ),
    # The SDK's `replace_on_changes` makes the engine replace the resource.
    "local-diff-triggers-item": Case(
        LOCAL,
        "diff",
        {"triggers": [True, "x", "y"]},
        {"triggers": [1, "x"], **SILENT},
        expect=Expect(changes={"triggers[0]": "update", "triggers[2]": "add"}),
    ),
    # One path for the whole connection, because that is secret.
    "remote-diff-connection": Case(
        REMOTE,
        "diff",
        {"connection": Secret({"host": "b", "port": 22}), "create": "c"},
        {"connection": Secret({"host": "a", "port": 22}), "create": "c", **SILENT},
        expect=Expect(changes={"connection": "update"}),
    ),
    "copy-diff-same-hash": Case(COPY, "diff", copy(source=file(path="/new")), copy(source=file(path="/old"))),
    "copy-diff": Case(
        COPY,
        "diff",
        copy(source=file("b"), remotePath="/y"),
        copy(),
        expect=Expect(changes={"source": "update", "remotePath": "update"}),
    ),
}

LOCAL_CASES: Final = {
    "local-create": local(
        "echo hello, $NAME!; echo careful >&2",
        Expect(
            {"stdout": "hello, world!", "stderr": "careful"},
            id="local-create[0-9a-f]{8}",
            shown=("hello, world!", "careful"),
        ),
        {"environment": {"NAME": "world"}},
    ),
    "local-create-nothing": Case(
        LOCAL,
        "create",
        {"update": "touch ${directory}/ran", "delete": "touch ${directory}/ran"},
        expect=Expect(SILENT),
        after="test ! -e ran",
    ),
    "local-create-preview": local(
        "touch ${directory}/ran",
        Expect(UNKNOWN_OUTPUTS),
        {"environment": {"NAME": UNKNOWN}},
        preview=True,
        after="test ! -e ran",
    ),
    "local-create-fails": local(
        "echo fine so far; echo oops >&2; exit 3", Expect(error=("exit status 3: running", "oops"))
    ),
    "local-create-fails-without-stderr": local(
        "echo reason; exit 1", Expect(error=("exit status 1: running", "reason"))
    ),
    "local-create-killed": local("kill -9 $$", Expect(error=("signal: ", "running"))),
    "local-error-command": local(
        "export TOKEN=s3cret\nls /nowhere",
        Expect(error=("exit status 2", "No such file"), not_in_error=("s3cret",)),
        official=Expect(error=("exit status 2", "s3cret")),
    ),
    "local-error-secret": local(
        "cat >&2; exit 1",
        Expect(error=("exit status 1", "[secret]"), not_in_error=("hunter22",), not_shown=("hunter22",)),
        {"stdin": Secret("hunter22")},
        official=Expect(error=("exit status 1", "hunter22")),
    ),
    "local-dir": local("pwd", stdout("${directory}"), {"dir": "${directory}"}),
    "local-dir-missing": local(
        "pwd", Expect(error=("no such file or directory", "/nowhere")), {"dir": "${directory}/nowhere"}
    ),
    "local-interpreter": local(
        "$HOME is not expanded",
        stdout("said: $HOME is not expanded"),
        {"interpreter": ["/bin/echo", "said:"]},
    ),
    "local-interpreter-missing": local(
        "x", Expect(error=("no such file or directory", "/nowhere/sh")), {"interpreter": ["/nowhere/sh"]}
    ),
    "local-stdin": local("cat", stdout("one\ntwo"), {"stdin": "one\ntwo\n"}),
    "local-stdin-empty": local("cat; echo done", stdout("done"), {"stdin": ""}),
    "local-stdin-unread": local("echo done", stdout("done"), {"stdin": "much ado " * 100000}),
    # The last newline is removed, and nothing else.
    "local-last-newline": local(
        "printf 'a\\n\\n'; printf ' b ' >&2", Expect({"stdout": "a\n", "stderr": " b "})
    ),
    "local-not-utf8": local("printf 'a\\377b'", stdout("a\ufffdb"), official=Expect(error=())),
    "local-long-line": local(
        "head -c 300000 /dev/zero | tr '\\0' x", stdout("x" * 300000), official_hangs=True
    ),
    **{
        f"local-logging-{logging}": local(
            "echo to-out; echo to-err >&2",
            Expect({"stdout": "to-out", "stderr": "to-err"}, shown=shown, not_shown=not_shown),
            {"logging": logging},
        )
        for logging, shown, not_shown in [
            ("none", (), ("to-out", "to-err")),
            ("stdout", ("to-out",), ("to-err",)),
            ("stderr", ("to-err",), ("to-out",)),
            ("stdoutAndStderr", ("to-out", "to-err"), ()),
        ]
    },
    "local-secret-inputs": local(
        Secret("echo $A"),
        stdout("deep"),
        {"environment": {"A": Secret("deep"), "B": "open"}, "triggers": ["x", Secret("y")]},
    ),
    "local-update": Case(
        LOCAL, "update", {"create": "echo created", "update": "echo updated"}, CREATED, stdout("updated")
    ),
    "local-update-by-create": Case(
        LOCAL, "update", {"create": "echo created again"}, CREATED, stdout("created again")
    ),
    "local-update-nothing": Case(LOCAL, "update", {"delete": "true"}, CREATED, stdout("created")),
    "local-update-preview": Case(
        LOCAL,
        "update",
        {"create": "touch ${directory}/ran"},
        CREATED,
        Expect(UNKNOWN_OUTPUTS),
        preview=True,
        after="test ! -e ran",
    ),
    "local-update-preview-same": Case(
        LOCAL, "update", {"create": "echo created"}, CREATED, stdout("created"), preview=True
    ),
    "local-update-preview-added": Case(
        LOCAL,
        "update",
        {"create": "echo created", "stdin": "new"},
        CREATED,
        Expect(UNKNOWN_OUTPUTS),
        preview=True,
        official=stdout("created"),
    ),
    "local-update-previous-output": Case(
        LOCAL,
        "update",
        {"create": "echo $PULUMI_COMMAND_STDOUT and ${PULUMI_COMMAND_STDERR-unset}"},
        {**CREATED, "stdout": Secret("the old")},
        stdout("the old and unset"),
    ),
    "local-update-previous-output-off": Case(
        LOCAL,
        "update",
        {"create": "echo [$PULUMI_COMMAND_STDOUT]", "addPreviousOutputInEnv": False},
        CREATED,
        stdout("[]"),
    ),
    "local-read": Case(LOCAL, "read", state=CREATED),
    "local-delete": Case(
        LOCAL,
        "delete",
        state={**CREATED, "delete": "echo $PULUMI_COMMAND_STDOUT >${directory}/gone"},
        after='test "$(cat gone)" = created',
    ),
    "local-delete-nothing": Case(LOCAL, "delete", state={**CREATED, "create": "exit 1"}),
    "local-delete-fails": Case(
        LOCAL,
        "delete",
        state={**CREATED, "delete": "echo stuck >&2; exit 5"},
        expect=Expect(error=("exit status 5", "stuck")),
    ),
}

REMOTE_CASES: Final = {
    "remote-create": remote(
        "echo hello from $USER; echo careful >&2",
        Expect(
            {"stdout": "hello from ${user}", "stderr": "careful"},
            id="remote-create[0-9a-f]{8}",
            shown=("hello from", "careful"),
        ),
    ),
    "remote-create-nothing": Case(
        REMOTE, "create", {"connection": Connection({"port": 1}), "delete": "true"}, expect=Expect(SILENT)
    ),
    "remote-create-preview": remote(
        "true", Expect(UNKNOWN_OUTPUTS), {"connection": Secret({"host": UNKNOWN})}, preview=True
    ),
    "remote-create-fails": remote(
        "echo oops >&2; exit 3",
        Expect(error=("${user}@127.0.0.1:", "Process exited with status 3: running", "oops")),
        official=Expect(error=("Process exited with status 3: running", "oops")),
    ),
    "remote-create-killed": remote("kill -9 $$", Expect(error=("Process exited ", "from signal KILL"))),
    "remote-output-closed": remote(
        "exec >&- 2>&-; sleep 0.3; exit 6", Expect(error=("Process exited with status 6",))
    ),
    "remote-long-line": remote(
        "head -c 3000000 /dev/zero | tr '\\0' x", stdout("x" * 3000000), official_hangs=True
    ),
    "remote-stdin": remote("wc -c", stdout("5000000"), {"stdin": "0123456789" * 500000}),
    "remote-stdin-empty": remote("cat; echo done", stdout("done")),
    "remote-stdin-unread": remote("echo done", stdout("done"), {"stdin": "much ado " * 1000000}),
    "remote-dial-refused": remote(
        "true",
        Expect(
            error=("after 2 failed attempts", "connection refused"),
            shown=("Dial 1/2 failed: retrying", "Dial 2/2 failed: retrying"),
        ),
        {"connection": Connection({"port": 1, "dialErrorLimit": 2})},
    ),
    "remote-host-key-mismatch": remote(
        "touch ${directory}/ran",
        Expect(error=("after 0 failed attempts", "host key mismatch")),
        {"connection": Connection({"hostKey": "${stranger.pub}", "dialErrorLimit": 0})},
        after="test ! -e ran",
    ),
    "remote-host-key-invalid": remote(
        "true",
        Expect(error=("failed to parse host key",)),
        {"connection": Connection({"hostKey": "nonsense"})},
    ),
    "remote-host-key-none": remote("echo in", stdout("in"), {"connection": Connection({"hostKey": None})}),
    "remote-key-refused": remote(
        "true",
        Expect(
            error=("after 1 failed attempts", "unable to authenticate"), shown=("Dial 1/1 failed: retrying",)
        ),
        {"connection": Connection({"privateKey": Secret("${stranger}"), "dialErrorLimit": 1})},
    ),
    "remote-key-with-passphrase": remote(
        "true",
        Expect(error=(), not_in_error=("failed attempts", "BEGIN")),
        {"connection": Connection({"privateKey": Secret("${locked_key}")})},
    ),
    "remote-proxy": remote(
        "echo through", stdout("through"), {"connection": Connection({"proxy": Connection(secret=False)})}
    ),
    "remote-proxy-refused": remote(
        "true",
        Expect(error=("proxy", "after 0 failed attempts", "connection refused")),
        {"connection": Connection({"proxy": Connection({"port": 1, "dialErrorLimit": 0}, secret=False)})},
    ),
    "remote-behind-proxy-refused": remote(
        "true",
        Expect(error=("after 1 failed attempts",)),
        {"connection": Connection({"port": 1, "dialErrorLimit": 1, "proxy": Connection(secret=False)})},
    ),
    "remote-update": Case(
        REMOTE,
        "update",
        {"connection": Connection(), "create": "echo created", "update": "echo updated"},
        {"connection": Connection(), **CREATED},
        stdout("updated"),
    ),
    "remote-update-nothing": Case(
        REMOTE,
        "update",
        {"connection": Connection({"port": 1})},
        {"connection": Connection(), **CREATED},
        stdout("created"),
    ),
    # The sshd of the tests accepts PULUMI_COMMAND_STDOUT and not PULUMI_COMMAND_STDERR.
    "remote-update-previous-output": Case(
        REMOTE,
        "update",
        {"connection": Connection(), "create": "echo $PULUMI_COMMAND_STDOUT and $PULUMI_COMMAND_STDERR"},
        {"connection": Connection(), **CREATED, "stderr": "warned"},
        stdout("created and"),
    ),
    "remote-delete": Case(
        REMOTE,
        "delete",
        state={"connection": Connection(), "delete": "touch ${directory}/gone", **SILENT},
        after="test -e gone",
    ),
    "remote-delete-nothing": Case(
        REMOTE, "delete", state={"connection": Connection({"port": 1}), "create": "true", **SILENT}
    ),
}

UPDATES: Final[list[tuple[str, Properties, str]]] = [
    ("", {"source": file("b")}, 'test "$(cat copy)" = new'),
    ("-preview", {"source": file("b")}, 'test "$(cat copy)" = old'),
    ("-path", {"remotePath": "${directory}/copy2"}, 'test "$(cat copy2)" = new; test "$(cat copy)" = old'),
    ("-connection", {"connection": Connection({"port": 1})}, 'test "$(cat copy)" = old'),
]
COPY_CASES: Final = {
    "copy-create": Case(
        COPY,
        "create",
        copy(remotePath="${directory}/a/b/copy"),
        expect=Expect(id="[0-9a-f]{8}"),
        before="head -c 5000001 /dev/urandom >file",
        after="cmp file a/b/copy",
    ),
    "copy-create-in-directory": Case(
        COPY,
        "create",
        copy(remotePath="${directory}/d"),
        before="printf content >file; mkdir d",
        after='test "$(cat d/file)" = content',
    ),
    "copy-create-overwrites": Case(
        COPY,
        "create",
        copy(),
        before="printf content >file; printf 'longer than that' >copy",
        after='test "$(cat copy)" = content',
    ),
    "copy-create-missing": Case(
        COPY, "create", copy(), expect=Expect(error=("open ${directory}/file: no such file or directory",))
    ),
    "copy-create-refused": Case(
        COPY,
        "create",
        copy(remotePath="${directory}/plain/copy"),
        expect=Expect(error=()),
        before="printf content >file; printf x >plain",
    ),
    "copy-create-preview": Case(
        COPY,
        "create",
        copy(),
        expect=Expect(id=""),
        preview=True,
        before="printf content >file",
        after="test ! -e copy",
    ),
    **{
        f"copy-update{name}": Case(
            COPY,
            "update",
            copy(**changed),
            copy(),
            preview=name == "-preview",
            before="printf new >file; printf old >copy",
            after=after,
        )
        for name, changed, after in UPDATES
    },
    "copy-delete": Case(
        COPY, "delete", state=copy(), before="printf old >copy", after='test "$(cat copy)" = old'
    ),
}

CASES: Final[dict[str, Case]] = CHECK | DIFF | LOCAL_CASES | REMOTE_CASES | COPY_CASES
