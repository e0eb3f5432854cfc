"""`lab graph`: drawings for the cases of `lab status`. Mermaid and Graphviz accept the files in `graph/`."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import graph
from tests.unit.diagnosis import lab_cases
from tests.unit.diagnosis.lab_cases import CASES, FOLDER

DRAWN = sorted((Path(__file__).parent / "graph").iterdir())


def drawn(case: Path) -> graph.Graph:
    return graph.graph(lab_cases.status(json.loads(case.read_text())))


@pytest.mark.parametrize("path", DRAWN, ids=lambda path: path.name)
def test_graph_drawing(path: Path) -> None:
    language = {".mmd": graph.mermaid, ".dot": graph.dot}[path.suffix]
    assert language(drawn(FOLDER / "cases" / f"{path.stem}.json")) == path.read_text().rstrip("\n")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_graph_edges_have_nodes(case: Path) -> None:
    seen = drawn(case)
    nodes = [node.name for node in seen.nodes]
    assert len(set(nodes)) == len(nodes)
    assert {node.group for node in seen.nodes} <= {group.name for group in seen.groups}
    assert {end for edge in seen.edges for end in edge.ends} <= set(nodes)
    assert json.loads(json.dumps(graph.document(seen)))["edges"]


@given(st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp"))))
def test_graph_labels_are_escaped(text: str) -> None:
    def one(text: str) -> graph.Graph:
        nodes = [graph.Node("a/1", "a", [text], well=True), graph.Node("a/2", "a", ["2"], well=False)]
        return graph.Graph(
            [graph.Group("a", [text], well=True)], nodes, [graph.Edge(("a/1", "a/2"), "e", well=True)]
        )

    for language, backslash in ((graph.mermaid, ""), (graph.dot, "\\")):
        plain, text_of = language(one("x")), language(one(text))
        assert len(text_of.split("\n")) == len(plain.split("\n"))
        # Without what is escaped, each label has its two quotes and no more.
        bare = text_of.replace("\\\\", "").replace('\\"', "") if backslash else text_of
        assert bare.count('"') == plain.count('"')
