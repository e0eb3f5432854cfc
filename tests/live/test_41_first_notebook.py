"""The first notebook in the lab: its cells run to the end, and show what they explain."""

import json

from bench import kernel
from workspace.outputs import PROJECT, Outputs

FIRST = PROJECT / "images" / "notebook" / "first" / "the-lab-from-inside.ipynb"


def test_first_notebook_shows_the_network_from_inside(outputs: Outputs, token: str) -> None:
    cells = json.loads(FIRST.read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    shown = kernel.run_cell(outputs.proxy_url.rstrip("/"), token, code)
    assert "The address of this container: 192.168.0.100" in shown
    assert "default via 169.254.1.1" in shown
    assert "169.254.1.1 dev" in shown
    assert "ee:ee:ee:ee:ee:ee" in shown
    assert "192.168.0.100    is in 192.168.0.64/26" in shown
    assert "tcp/8888  (notebook) answers" in shown
    for name, address in outputs.hosts.items():
        assert f"{name:12} {address:16}" in shown
        assert "no answer" not in shown.partition(f"{name:12} {address:16}")[2].partition("\n")[0]
    assert "192.168.0.101    is in 192.168.0.64/26" in shown
