"""`lab graph`: what is drawn of the cases of `lab status`; Mermaid and Graphviz have read these files."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import graph
from tests.unit.lab import lab_cases
from tests.unit.lab.lab_cases import CASES, HERE

DRAWN = sorted((HERE / "graph").iterdir())


def drawn(case: Path) -> graph.Graph:
    return graph.graph(lab_cases.status(json.loads(case.read_text())))


@pytest.mark.parametrize("path", DRAWN, ids=lambda path: path.name)
def test_the_drawing(path: Path) -> None:
    language = {".mmd": graph.mermaid, ".dot": graph.dot}[path.suffix]
    assert language(drawn(HERE / "cases" / f"{path.stem}.json")) == path.read_text().rstrip("\n")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_what_an_edge_names_is_there(case: Path) -> None:
    seen = drawn(case)
    nodes = [node.name for node in seen.nodes]
    assert len(set(nodes)) == len(nodes)
    assert {node.group for node in seen.nodes} <= {group.name for group in seen.groups}
    assert {end for edge in seen.edges for end in edge.ends} <= set(nodes)
    assert json.loads(json.dumps(graph.document(seen)))["edges"]


@given(st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp"))))
def test_no_text_ends_a_label(text: str) -> None:
    def one(text: str) -> graph.Graph:
        nodes = [graph.Node("a/1", "a", [text], well=True), graph.Node("a/2", "a", ["2"], well=False)]
        return graph.Graph(
            [graph.Group("a", [text], well=True)], nodes, [graph.Edge(("a/1", "a/2"), "e", well=True)]
        )

    for language, backslash in ((graph.mermaid, ""), (graph.dot, "\\")):
        plain, told = language(one("x")), language(one(text))
        assert len(told.split("\n")) == len(plain.split("\n"))
        # Without what is escaped, each label has its two quotes and no more.
        bare = told.replace("\\\\", "").replace('\\"', "") if backslash else told
        assert bare.count('"') == plain.count('"')
