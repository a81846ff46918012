"""What is asked: the catalogue and its adapters; declarations and pure functions, no process."""

from host_agent.operations.apt import adapter as apt
from host_agent.operations.catalogue import Catalogue
from host_agent.operations.exec import adapter as exec_
from host_agent.operations.git import adapter as git
from host_agent.operations.pct import adapter as pct
from host_agent.operations.systemd import adapter as systemd
from host_agent.operations.zfs import adapter as zfs

CATALOGUE = Catalogue(
    (git.ADAPTER, zfs.ADAPTER, systemd.ADAPTER, pct.ADAPTER, apt.ADAPTER, exec_.ADAPTER)
)
"""Every adapter and operation that this build has."""
