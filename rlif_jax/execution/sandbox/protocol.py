"""Constants of the protocol between the judge and its processes. Standard library only."""

CHANNEL_FD = 3  # the channel's descriptor in the process of a function
NONCE = 33  # bytes that begin each call and its answer, the blank at their end included
OUT_OF_MEMORY = 86  # exit status of a program that an uncaught MemoryError ended
RECURSION = 50000  # LiveCodeBench's limit, and that of our own code in a program's process

RUN = b"r"  # to a loader, with the descriptors of the process to fork
# From a loader: its progress; SYNTAX is followed by the compiler's message.
STARTED, COMPILED, SYNTAX = b"started", b"compiled", b"syntax "
# Also from a loader, with the status and the usage as wait4 filled them in: ENDED for the forked
# process, and before it LEFT_BEHIND for each process that it left.
ENDED, LEFT_BEHIND = b"e", b"o"
