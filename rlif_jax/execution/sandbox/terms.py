"""What the judge and the processes below it have agreed on. Standard library only."""

CHANNEL_FD = 3  # where the process of a function has its end of the channel
NONCE = 33  # bytes that begin each call and its answer, the blank at their end included
OUT_OF_MEMORY = 86  # exit status of a program that an uncaught MemoryError ended
RECURSION = 50000  # LiveCodeBench's limit, and that of what is not the program's own

RUN = b"r"  # to a loader, with the descriptors of a process to be made
# From a loader: how far it has got; why the program does not compile follows SYNTAX.
STARTED, COMPILED, SYNTAX = b"started", b"compiled", b"syntax "
# Also from a loader, with the status and the usage as wait4 has filled them in: of the process
# made, and before that of each that it left behind.
ENDED, LEFT_BEHIND = b"e", b"o"
