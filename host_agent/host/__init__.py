"""Getting onto a host: install, doctor and preflight."""
