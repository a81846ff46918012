"""Signal, through signal-cli or signal-cli-rest-api."""
