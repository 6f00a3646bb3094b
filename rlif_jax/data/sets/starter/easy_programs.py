"""Easy programs: read a line or two, print one answer.

Each question gives the lines that read the input: a very small model seldom finds them alone.
"""

from rlif_jax.data.sets.starter.source import Program

INTEGER = "n = int(input())"
TEXT = "text = input()"
WORD = "word = input()"
NAME = "name = input()"

TRAIN = (
    Program(
        "Print the double",
        "Print n * 2.",
        ["5", "0", "-3", "100", "1"],
        "n = int(input())\nprint(n * 2)",
        "n = int(input())\nprint(n ** 2)",
        begin=INTEGER,
    ),
    Program(
        "Print a greeting",
        'Print "Hello " + name.',
        ["Ann", "Bob", "Mary Lou", "x", "Zoe 2"],
        'name = input()\nprint("Hello " + name)',
        'name = input()\nprint("Hello, " + name)',
        begin=NAME,
    ),
    Program(
        "Print the word length",
        "Print the length of the word.",
        ["hello", "a", "python", "abcdefghij", "zz"],
        "word = input()\nprint(len(word))",
        "word = input()\nprint(len(set(word)))",
        begin=WORD,
    ),
    Program(
        "Print the square",
        "Print n squared.",
        ["4", "0", "-3", "12", "1"],
        "n = int(input())\nprint(n * n)",
        "n = int(input())\nprint(n + n)",
        begin=INTEGER,
    ),
)

VALIDATION = (
    Program(
        "Print in lowercase",
        "Print the text in lowercase.",
        ["HELLO", "Hello World", "ABC 123", "xyz", "Q"],
        "print(input().lower())",
        "print(input().swapcase())",
        begin=TEXT,
    ),
    Program(
        "Print ten times",
        "Print n times 10.",
        ["5", "0", "-1", "99", "1000"],
        "n = int(input())\nprint(n * 10)",
        "n = int(input())\nprint(str(n) * 10)",
        begin=INTEGER,
    ),
)
