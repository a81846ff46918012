"""What the agent answers, as models: the views build them, OpenAPI prints them, clients read them.

Members are answered in the order in which they stand here, and those that were not given are left
out. A reader passes over members that it does not know. Text in here is the host's or somebody's:
escape it before a person's terminal sees it.
"""
