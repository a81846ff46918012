"""The benchmark (`make bench`): speed against the bare command and against peers, in one run."""
