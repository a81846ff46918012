"""Who asks: certificates, principals, revocation, and a small CA."""
