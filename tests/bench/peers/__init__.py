"""The programs that are compared: each one a process of its own, written as somebody who knows its library would.

Each is called with one argument, the fields of `tests.bench.peers.task.Task` in JSON, and prints what it measured.
"""
