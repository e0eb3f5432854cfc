"""Labs of hosts that exist already, each in a stack of its own: they run with no other lab, or beside one."""

from tests.checkout import git_status_stays

__all__ = ["git_status_stays"]
