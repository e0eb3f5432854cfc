"""Backup: copies of the notebooks' work on other hosts, each verified by a trial restore."""
