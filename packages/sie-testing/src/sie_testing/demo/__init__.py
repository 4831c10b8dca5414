"""`make demo`: the guide's five steps on one machine, with the toolkit's own commands, as an operator runs them.

`connected` is the side with a hub and a registry; `far` is the side without either, in a network namespace of
its own. Every server is a process of its own and every step is a command that can be run by hand: they are
kept in the work folder, in `transcript.txt`.
"""
