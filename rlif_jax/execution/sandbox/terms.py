"""What the judge and a candidate's process have agreed on."""

CHANNEL_FD = 3  # where the process has its end of the channel
NONCE = 33  # bytes that begin each input and its answer, the blank at their end included
OUT_OF_MEMORY = 86  # exit status of a program that an uncaught MemoryError ended
