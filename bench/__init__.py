"""Measures the lab: `python -m bench`. Each figure is shown with its reference from the same run."""
