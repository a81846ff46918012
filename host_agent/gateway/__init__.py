"""The door: HTTP over mutual TLS."""
