"""The channels as they are declared: one module each, and the registry of all of them.

A declaration is the channel's section `[channels.NAME]` and its capabilities, as one class. It
imports nothing but grammars: configuration, metrics and policy read it. What speaks over the
channel is `host_agent.notify.NAME`, which is imported where the channel is configured.
"""
