"""For runners of tests: which user a wrapper would run as."""

from host_agent.operations.catalogue import RunAs


class AsDeclared:
    """Says what sudo would: root, or the identity's unix user."""

    def user_of(self, run_as: RunAs, unix_user: str | None) -> str | None:
        return "root" if run_as is RunAs.ROOT else unix_user
