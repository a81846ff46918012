"""Registered commands."""
