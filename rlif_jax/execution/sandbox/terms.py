"""What the judge and the processes below it have agreed on. Standard library only."""

CHANNEL_FD = 3  # where the process of a function has its end of the channel
NONCE = 33  # bytes that begin each call and its answer, the blank at their end included
OUT_OF_MEMORY = 86  # exit status of a program that an uncaught MemoryError ended
RECURSION = 50000  # LiveCodeBench's limit, and that of what is not the program's own

# From the judge to a loader, with the descriptors of the process to be made; of the process made.
RUN, STOP, COUNT = b"run", b"stop", b"count"
# From a loader to the judge: how far it has got; a text follows SYNTAX and COUNTED.
STARTED, COMPILED, SYNTAX, COUNTED = b"started", b"compiled", b"syntax ", b"counted "
# Also from a loader: a process that was left behind, or the one made and what ended it; the
# status and the usage follow as wait4 has filled them in.
LEFT_BEHIND = b"o"
LIMITS = (b"-", b"c", b"m", b"p")  # for none, and by the numbers of processes.py
BY_ORDER = b"j"
LIMIT_NAMES = {b"-": "", b"c": "cpu", b"m": "memory", b"p": "processes", b"j": "judge"}
