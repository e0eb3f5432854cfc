"""The notebook image by plain Docker: its tools and packages, what lasts, how it starts, when it culls."""

import json
import zipfile
from pathlib import Path

import pytest
import requests

from bench import kernel
from tests.unit.images import notebooks
from tests.unit.images.notebooks import FIRST, TOKEN, WORK, Notebook, await_true

TOOLS = ("curl", "dig", "git", "ip", "nc", "ping", "pip", "python", "tcpdump", "traceroute")


def wheel(folder: Path, name: str, version: str, source: str) -> str:
    """Make a wheel of one module, as a registry would give it."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in files)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(member, text)
    path.chmod(0o644)
    return path.name


def test_notebook_without_variables_answers_at_the_root_for_its_token_only(notebook: Notebook) -> None:
    assert notebook.get("contents").status_code == 200
    for path in ("contents", "kernels", "terminals", "sessions"):
        assert requests.get(f"{notebook.url}/api/{path}", timeout=10).status_code == 403


@pytest.mark.parametrize("tool", TOOLS)
def test_tool_is_on_the_path(notebook: Notebook, tool: str) -> None:
    assert notebook.run(f"command -v {tool}").strip().endswith(f"/{tool}")


def test_ping_and_traceroute_need_no_capability(notebook: Notebook) -> None:
    assert " 0% packet loss" in notebook.run("ping -c 1 127.0.0.1")
    assert " 1  127.0.0.1" in notebook.run("traceroute -n -q 1 127.0.0.1")


def test_tcpdump_works_with_the_capability(image: str, tmp_path: Path) -> None:
    command = "tcpdump -i lo -c 1 -nn icmp & sleep 1; ping -c 2 127.0.0.1 >/dev/null; wait"
    options = ["--cap-drop=ALL", "--cap-add=NET_RAW", "--rm", f"--label={notebooks.LABEL}"]
    assert "ICMP echo" in notebooks.docker("run", *options, image, "bash", "-c", command)


def test_image_has_no_program_that_changes_its_user(notebook: Notebook) -> None:
    assert notebook.run("find / -xdev -type f -perm /6000 2>/dev/null", check=False) == ""


def test_kernel_imports_the_packages(notebook: Notebook) -> None:
    code = """
import matplotlib, numpy, pandas, scipy.stats, numpy.testing
matplotlib.use("agg")
import matplotlib.pyplot
matplotlib.pyplot.plot([1, 2]); matplotlib.pyplot.savefig("/tmp/plot.png")
print(pandas.Series(numpy.arange(4)).sum(), round(scipy.stats.norm.cdf(0), 1))
"""
    assert kernel.run_cell(notebook.url, TOKEN, code) == "6 0.5\n"


def test_pip_install_lasts_and_does_not_change_the_server(image: str, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    own = wheel(wheels, "ownpackage", "1.0", "VALUE = 'own'\n")
    # Another than the image's, without what JupyterLab uses of it.
    newer = wheel(wheels, "six", "99.0", "VALUE = 'newer'\n")
    with notebooks.volume() as volume:
        options = [f"--volume={volume}:{WORK}", f"--volume={wheels}:/wheels:ro"]
        with notebooks.container(image, tmp_path, options=options) as first:
            first.await_start()
            first.run(f"pip install --no-index /wheels/{own} /wheels/{newer}")
        with notebooks.container(image, tmp_path, options=options) as second:
            second.await_start()
            code = "import ownpackage, six, numpy; print(ownpackage.VALUE, six.VALUE)"
            assert kernel.run_cell(second.url, TOKEN, code) == "own newer\n"
            assert "99.0" not in second.run("/opt/notebook/bin/pip list")
            assert second.run("pip show ownpackage").splitlines()[0] == "Name: ownpackage"


def test_broken_environment_is_made_again_by_the_next_kernel(image: str, tmp_path: Path) -> None:
    with notebooks.container(image, tmp_path) as one:
        one.await_start()
        one.run("echo 'raise RuntimeError' >~/.venv/lib/python3*/site-packages/ipykernel.py; rm -rf ~/.venv")
        assert kernel.run_cell(one.url, TOKEN, "import sys; print(sys.prefix)") == f"{WORK}/.venv\n"


def test_environment_of_another_python_gets_one_beside_it(image: str, tmp_path: Path) -> None:
    with notebooks.volume() as volume:
        options = [f"--volume={volume}:{WORK}"]
        before = "mkdir -p ~/.venv/bin ~/.venv/lib/python3.8 && ln -s /usr/bin/python3.8 ~/.venv/bin/python3"
        notebooks.docker("run", "--rm", *options, image, "bash", "-c", before)
        with notebooks.container(image, tmp_path, options=options) as one:
            one.await_start()
            assert kernel.run_cell(one.url, TOKEN, "import sys; print(sys.prefix)") == f"{WORK}/.venv\n"
            assert "python3.8" in one.run("ls ~/.venv/lib")


def test_path_is_the_base_of_every_address(image: str, tmp_path: Path) -> None:
    with notebooks.container(image, tmp_path, variables={"NOTEBOOK_PATH": "/alice/"}) as one:
        one.await_start()
        assert one.url.endswith("/alice")
        assert one.get("contents").status_code == 200
        assert kernel.run_cell(one.url, TOKEN, "print(6*7)") == "42\n"
        root = one.url.removesuffix("/alice")
        assert requests.get(f"{root}/api/contents", timeout=10).status_code == 404


def test_notebook_keeps_the_login_of_another_at_the_same_proxy(
    notebook: Notebook, image: str, tmp_path: Path
) -> None:
    variables = {"NOTEBOOK_NAME": "alice", "NOTEBOOK_PATH": "/alice/"}
    at_proxy = {"Host": "lab.example:8888"}
    with notebooks.container(image, tmp_path, variables=variables) as student:
        student.await_start()
        page = requests.get(
            f"{notebook.url}/lab",
            params={"token": TOKEN},
            headers=at_proxy,
            allow_redirects=False,
            timeout=10,
        )
        (login,) = [name for name in page.cookies.keys() if name != "_xsrf"]  # noqa: SIM118 - no dictionary
        sent = {**at_proxy, "Cookie": f"{login}={page.cookies[login]}"}
        answer = requests.get(f"{student.url}/lab", headers=sent, allow_redirects=False, timeout=10)
        assert answer.status_code == 302
        assert login not in answer.headers.get("Set-Cookie", "")


def test_health_check_fails_when_the_server_does_not_answer(image: str, tmp_path: Path) -> None:
    with notebooks.container(image, tmp_path) as one:
        one.await_start()
        stop = (
            "for p in /proc/[0-9]*; do grep -qs [b]in/jupyter-lab $p/cmdline && kill -STOP ${p#/proc/}; done"
        )
        one.run(stop, check=False)
        assert "unhealthy" in one.run("timeout 3 health || echo unhealthy")


def test_password_in_place_of_the_token(image: str, tmp_path: Path) -> None:
    with notebooks.container(image, tmp_path, password=notebooks.hashed("open sesame")) as one:
        one.await_start()
        assert one.get("contents").status_code == 403
        session = requests.Session()
        page = session.get(f"{one.url}/login", timeout=10).text
        assert "Where is my password?" in page
        assert "pulumi stack output" not in page
        for password, status in {"wrong": 401, "open sesame": 200}.items():
            form = {"password": password, "_xsrf": session.cookies["_xsrf"]}
            assert session.post(f"{one.url}/login", data=form, timeout=10).status_code == status
        assert session.get(f"{one.url}/api/contents", timeout=10).status_code == 200


# An upstream repository with two files, and a folder of the user's that has the name of another repository.
UPSTREAM = """
git init -qb main ~/up/course; cd ~/up/course; git config user.name a; git config user.email a@b
printf 'one\\ntwo\\n' >a; echo b >b; git add .; git commit -qm 1; mkdir ~/taken; touch ~/taken/mine
"""
NEWS = """
cd ~/up/course; printf 'one\\ntheirs\\n' >a; echo more >>b; echo theirs >c; git add .; git commit -qm 2
"""


def test_repositories_are_cloned_and_merged_and_work_is_kept(image: str, tmp_path: Path) -> None:
    urls = f"file://{WORK}/up/course file:///nowhere/missing.git file:///elsewhere/taken.git"
    variables = {"NOTEBOOK_REPOSITORIES": urls}
    with notebooks.volume() as volume:
        options = [f"--volume={volume}:{WORK}"]
        notebooks.docker("run", "--rm", *options, image, "bash", "-euc", UPSTREAM)
        with notebooks.container(image, tmp_path, variables=variables, options=options) as one:
            one.await_start()
            await_true(lambda: one.log().count("the repository ") == 3, one.log, 30)
            assert "the repository course is up to date" in one.log()
            assert "the repository missing could not be pulled" in one.log()
            assert f"{WORK}/taken is not a clone of it; rename that folder" in one.log()
            assert one.run("cat ~/course/a; ls ~/taken") == "one\ntwo\nmine\n"
            one.run("cd ~/course; printf 'one\\nmine\\n' >a; echo new >c")
        notebooks.docker("run", "--rm", *options, image, "bash", "-euc", NEWS)
        with notebooks.container(image, tmp_path, variables=variables, options=options) as one:
            one.await_start()
            await_true(lambda: one.log().count("the repository ") == 3, one.log, 30)
            assert one.run("cd ~/course; cat a b c c__*") == "one\nmine\nb\nmore\ntheirs\nnew\n"


def test_shared_folder_is_in_the_work_folder(image: str, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "task.txt").write_text("read me\n")
    with notebooks.volume() as volume:
        options = [f"--volume={volume}:{WORK}"]
        mount = f"--volume={shared}:/home/notebook/shared:ro"
        with notebooks.container(image, tmp_path, options=[*options, mount]) as one:
            one.await_start()
            answer = one.get("contents/shared/task.txt")
            assert answer.json()["content"] == "read me\n"
            assert "Read-only file system" in one.run("touch ~/shared/mine", check=False)
        with notebooks.container(image, tmp_path, options=options) as one:
            one.await_start()
            assert one.get("contents/shared").status_code == 404
            assert "shared" not in one.run("ls -A ~")


def test_folder_of_the_user_with_that_name_is_kept(image: str, tmp_path: Path) -> None:
    with notebooks.volume() as volume:
        options = [f"--volume={volume}:{WORK}"]
        notebooks.docker("run", "--rm", *options, image, "bash", "-c", "mkdir ~/shared; touch ~/shared/mine")
        mount = f"--volume={tmp_path}:/home/notebook/shared:ro"
        with notebooks.container(image, tmp_path, options=[*options, mount]) as one:
            one.await_start()
            assert one.run("ls ~/shared") == "mine\n"


def test_work_folder_of_another_user_is_explained(image: str, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir(mode=0o755)
    with notebooks.container(image, tmp_path, options=[f"--volume={work}:{WORK}:ro"]) as one:
        await_true(lambda: "not writable by the user 8888" in one.log(), one.log, 30)
        assert notebooks.docker("wait", one.name).strip() == "1"


def test_full_work_folder_does_not_stop_the_start(image: str, tmp_path: Path) -> None:
    # 8888's, with room for JupyterLab's own files and not for the environment.
    with notebooks.container(image, tmp_path, options=[f"--tmpfs={WORK}:uid=8888,size=48k"]) as one:
        one.await_start()
        assert "kernels use the image's" in one.log()
        assert kernel.run_cell(one.url, TOKEN, "import sys; print(sys.prefix)") == "/opt/notebook\n"


def test_first_notebook_is_placed_once(image: str, tmp_path: Path) -> None:
    with notebooks.volume() as volume:
        options = [f"--volume={volume}:{WORK}"]
        with notebooks.container(image, tmp_path, options=options) as one:
            one.await_start()
            given = json.loads((notebooks.IMAGE / "first" / FIRST).read_text())
            assert json.loads(one.run(f"cat ~/{FIRST}")) == given
            one.run(f"echo mine >~/{FIRST}; echo '{{}}' >~/.jupyter/lab/workspaces/*")
        with notebooks.container(image, tmp_path, options=options) as one:
            one.await_start()
            assert one.run(f"cat ~/{FIRST} ~/.jupyter/lab/workspaces/*") == "mine\n{}\n"


HOSTS = {"a0": "127.0.0.2", "a1": "127.0.0.1"}
LAB = {
    "host": "a1",
    "hosts": HOSTS,
    "containers": {"sshbox": "127.0.0.3"},
    "blockSize": 26,
}


@pytest.mark.parametrize("lab", ["", json.dumps(LAB)], ids=["without", "with"])
def test_first_notebook_runs_green(image: str, tmp_path: Path, lab: str) -> None:
    (tmp_path / "lab.json").write_text(lab)
    options = [f"--volume={tmp_path}/lab.json:/run/lab.json:ro"] if lab else []
    with notebooks.container(image, tmp_path, options=options) as one:
        one.await_start()
        one.run(f"jupyter nbconvert --to notebook --execute --output /tmp/done {FIRST}")
        done = json.loads(one.run("cat /tmp/done.ipynb"))
        cells = [cell for cell in done["cells"] if cell["cell_type"] == "code"]
        outputs = [output for cell in cells for output in cell["outputs"]]
        assert {output["output_type"] for output in outputs} == {"stream"}
        text = "".join("".join(output["text"]) for output in outputs)
        assert "This container is notebook" in text
        assert "default via" in text
        assert "not found" not in text
        for name in HOSTS if lab else ():
            assert f"{name:12} " in text


def test_idle_kernels_and_terminals_are_culled_and_busy_ones_are_not(image: str, tmp_path: Path) -> None:
    with notebooks.container(image, tmp_path, variables={"NOTEBOOK_CULL_SECONDS": "15"}) as one:
        one.await_start()
        idle, busy = (one.post("kernels").json()["id"] for _ in range(2))
        assert one.post("terminals").status_code == 200
        session = kernel.login(one.url, TOKEN)
        connection = kernel.connect(f"{one.url}/api/kernels/{busy}", session)
        connection.send(json.dumps(kernel.execute_request("busy", "import time; time.sleep(600)")))

        def left() -> list[str]:
            return [running["id"] for running in one.get("kernels").json()]

        await_true(lambda: idle not in left(), one.log, 150)
        await_true(lambda: one.get("terminals").json() == [], one.log, 150)
        assert left() == [busy]
        connection.close()


def test_idle_kernels_are_culled_after_an_hour_by_default(notebook: Notebook) -> None:
    code = "from traitlets.config.loader import PyFileConfigLoader as Loader; import json;"
    code += "print(json.dumps(Loader('jupyter_server_config.py', '/etc/jupyter').load_config()))"
    settings = json.loads(notebook.run(f'/opt/notebook/bin/python -c "{code}"'))
    manager = settings["MappingKernelManager"]
    assert manager["cull_idle_timeout"] == settings["TerminalManager"]["cull_inactive_timeout"] == 3600
    assert manager["cull_busy"] is False
    assert manager["cull_connected"] is True
