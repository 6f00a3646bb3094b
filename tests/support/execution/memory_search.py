"""A program that searches its own memory for words that an earlier program may have left."""

MARKS = ("Quagga", "Okapi", "Numbat")  # in the text, the input and the output of a program
SEARCH = """
import re
marks = re.compile(b'|'.join(m[:1] + m[1:] for m in ({words})))
found = set()
with open('/proc/self/maps') as maps, open('/proc/self/mem', 'rb', 0) as memory:
    for line in maps:
        low, high = (int(x, 16) for x in line.split()[0].split('-'))
        if line.split()[1][0] != 'r' or high - low > 1 << 26: continue
        try:
            memory.seek(low)
            found.update(marks.findall(memory.read(high - low)))
        except (OSError, ValueError, OverflowError): pass
print(*sorted(x.decode() for x in found))
"""


def search_for(text: str) -> str:
    """A program that prints which words beginning with a mark it finds in its memory.

    The marks are spelled as character classes, so that the program does not find itself.
    """
    words = ", ".join(f"b'[{mark[0]}]{mark[1:]}[0-9]+'" for mark in (*MARKS, text))
    return SEARCH.format(words=words)
