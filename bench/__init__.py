"""Measures the lab: `python -m bench`. What it measures stands beside its reference, from the same run."""
