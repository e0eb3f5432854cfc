"""A stand-in for the `command` plugin 1.2.1 of Pulumi; the README says what it has."""

VERSION = "1.2.1"
