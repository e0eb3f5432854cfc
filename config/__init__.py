"""The config: the typed model of the whole file, its validation, and what is generated from it."""
