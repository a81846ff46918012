"""What is asked: the catalogue and its adapters; declarations and pure functions, no process."""

from host_agent.operations import git, pct, systemd, zfs
from host_agent.operations.catalogue import Catalogue
from host_agent.operations.exec import SPECS as EXEC_SPECS

CATALOGUE = Catalogue((*git.SPECS, *zfs.SPECS, *systemd.SPECS, *pct.SPECS, *EXEC_SPECS))
"""Every operation that this build has."""
