"""What `host-agent doctor` looks at: each part of an installed agent, proven or found wanting.

Every check names itself, says what it saw in a sentence, and what to do about it. Nothing here
changes the host: files are opened for reading, wrappers are started with an argument that every one
of them refuses.
"""
