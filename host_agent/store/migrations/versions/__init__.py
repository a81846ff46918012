"""One module a revision of the tables, named after it."""
