"""What a candidate's process, the judge and the reader of programs have agreed on."""

CHANNEL_FD = 3  # where the process has its end of the channel
NONCE = 33  # bytes that begin each input and its answer, the blank at their end included
OUT_OF_MEMORY = 86  # exit status of a program that an uncaught MemoryError ended
RECURSION = 50000  # LiveCodeBench's limit, and that of what is not the program's own

PRELUDE_MODULES = (  # of LiveCodeBench's import block, in its order
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random"),
    *("statistics", "itertools", "functools", "operator", "io", "sys", "json"),
)
