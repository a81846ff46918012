"""What is asked: the catalogue and its adapters; declarations and pure functions, no process."""

from host_agent.operations import git, zfs
from host_agent.operations.catalogue import Catalogue

CATALOGUE = Catalogue((*git.SPECS, *zfs.SPECS))
"""Every operation that this build has."""
