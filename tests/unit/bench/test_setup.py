"""The cost of a setup: read from what it says, whether its steps tell their processor time or not."""

import os
import subprocess

from bench.setup import Cost, costs, used_by_children

ONE_AFTER_THE_OTHER = """\
[1/3] Go: go1.26.8 from PATH (0.0 s)
[2/3] Pulumi ...
      building pulumi with go1.26.8
        10 s  sync
[2/3] Pulumi: v3.259.0, built from its Go modules (327.7 s)
[3/3] Calico: v3.31.0 and the Docker driver (360.0 s)
everything is there after 690.1 s
"""
SIDE_BY_SIDE = """\
[4/5] Pulumi ...
[5/5] base images ...
[4/5]   10 s  sync
[5/5] base images: made (93.0 s, 60 s of processor time)
[4/5] Pulumi: v3.259.0, built from its Go modules (210.0 s, 380 s of processor time)
"""


def test_steps_that_follow_each_other_share_the_processor_time_of_the_run() -> None:
    found = costs(iter(ONE_AFTER_THE_OTHER.splitlines(keepends=True)), iter([1.0, 601.0, 1000.5]))
    assert list(found) == [Cost("Go", 0.0, 1.0), Cost("Pulumi", 327.7, 600.0), Cost("Calico", 360.0, 399.5)]


def test_steps_side_by_side_tell_their_own() -> None:
    found = costs(iter(SIDE_BY_SIDE.splitlines(keepends=True)), iter([100.0, 440.0]))
    assert list(found) == [Cost("base images", 93.0, 60.0), Cost("Pulumi", 210.0, 380.0)]


def test_the_processor_time_of_children_that_have_ended_counts() -> None:
    used = used_by_children(os.getpid())
    before = next(used)
    subprocess.run(["sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"], check=True)
    assert next(used) > before
