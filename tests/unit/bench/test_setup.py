"""The cost of a setup, as it is read from its output."""

from bench.setup import Cost, costs

OUTPUT = """\
[1/5] Go: go1.26.8 from PATH (0.0 s)
[4/5] Pulumi ...
[5/5] base images ...
[4/5]   10 s  sync
[5/5] base images: made (93.0 s, 60 s of processor time)
[4/5] Pulumi: v3.259.0, built from its Go modules (210.0 s, 380 s of processor time)
setup is complete after 303.1 s
"""


def test_costs() -> None:
    assert list(costs(OUTPUT.splitlines(keepends=True))) == [
        Cost("Go", 0.0, 0.0),
        Cost("base images", 93.0, 60.0),
        Cost("Pulumi", 210.0, 380.0),
    ]
