"""An agent without a host: the real path from door to audit log, with a host that is in memory.

For people who test their own agents. `ground` makes a directory with an authority, certificates and
a configuration; `host` stands where wrappers would be started; `approver` answers by a script.
Nothing here starts a process or touches a resource of the machine.
"""
