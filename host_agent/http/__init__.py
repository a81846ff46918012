"""Bytes: listener, TLS and HTTP/1.1. It knows nothing of what is asked."""
