"""Torture: the promises of the product held against kills, stops, full and damaged memory.

Purpose: `python -m agent torture`, run by users on their own kernel, file system and container. The
rows of `cases.CASES` are what is done; `session` runs each row in a process of its own and makes
one report; docs/RELIABILITY.md says which promise each row is evidence for.

Not promised: a run that held proves nothing about schedules that it did not try. The seed repeats
what the torture decides (whom, when, which byte), not what the kernel's scheduler makes of it.
"""
