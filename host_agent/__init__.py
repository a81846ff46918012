"""Typed, approved and audited privileged operations on a host."""

__version__ = "0.1.0"
