"""What sudo really grants."""
