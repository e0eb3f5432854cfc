"""Notebooks: one for the original lab, and one for each member of a class."""
