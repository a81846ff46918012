"""Migrations of the request store; `schema.migrate` runs them."""
