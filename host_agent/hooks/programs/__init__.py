"""Privileged programs, a module each: what their command lines are as operations.

A module is imported only where its program is seen. Each has `translate(words)`, for the words
after the program's name, all of them literal.
"""
