"""What sudo really grants: sudoers rendered from the catalogue, and audited on the host."""
