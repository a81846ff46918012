"""Settings of agent hosts, edited so that they call the hook, and put back as they were."""
