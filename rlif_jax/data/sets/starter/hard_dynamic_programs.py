"""Hard programs: dynamic programming over the input."""

from rlif_jax.data.sets.starter.source import Program

TRAIN = (
    Program(
        "Knapsack",
        "The first line has n and a capacity. Each of the next n lines has the weight "
        "and value of an item, used at most once. Print the largest total value that fits.",
        [
            "3 5\n2 3\n3 4\n4 5",
            "1 1\n2 9",
            "2 10\n5 1\n5 2",
            "1 4\n2 3",
            "3 6\n3 5\n3 5\n4 8",
            "2 0\n1 1\n1 1",
        ],
        """
        n, capacity = map(int, input().split())
        best = [0] * (capacity + 1)
        for _ in range(n):
            weight, value = map(int, input().split())
            for c in range(capacity, weight - 1, -1):
                best[c] = max(best[c], best[c - weight] + value)
        print(best[capacity])
        """,
        """
        n, capacity = map(int, input().split())
        best = [0] * (capacity + 1)
        for _ in range(n):
            weight, value = map(int, input().split())
            for c in range(weight, capacity + 1):
                best[c] = max(best[c], best[c - weight] + value)
        print(best[capacity])
        """,
    ),
    Program(
        "Longest common subsequence",
        "Read two words, one per line. Print the length of their longest common subsequence.",
        ["abcde\nace", "abc\nxyz", "aa\na", "banana\natana", "abc\ncba", "same\nsame"],
        """
        a, b = input(), input()
        row = [0] * (len(b) + 1)
        for x in a:
            new = [0]
            for j, y in enumerate(b):
                new.append(row[j] + 1 if x == y else max(row[j + 1], new[j]))
            row = new
        print(row[-1])
        """,
        "a, b = input(), input()\nprint(len(set(a) & set(b)))",
    ),
    Program(
        "Edit distance",
        "Read two words, one per line. Print the fewest single-letter insertions, "
        "deletions and replacements that turn the first into the second.",
        ["cat\ncut", "abc\nbcd", "kitten\nsitting", "same\nsame", "a\nabc", "flaw\nlawn"],
        """
        a, b = input(), input()
        row = list(range(len(b) + 1))
        for i, x in enumerate(a, 1):
            new = [i]
            for j, y in enumerate(b, 1):
                new.append(min(row[j] + 1, new[j - 1] + 1, row[j - 1] + (x != y)))
            row = new
        print(row[-1])
        """,
        """
        a, b = input(), input()
        print(sum(x != y for x, y in zip(a, b)) + abs(len(a) - len(b)))
        """,
    ),
    Program(
        "Word break",
        "Read a text without spaces, then a line of words. Print yes if the text can be "
        "split into these words, each used any number of times, else no.",
        ["applepie\napple pie", "catsand\ncats an", "aaab\na aa ab", "abcd\nabc ab cd", "x\ny"],
        """
        text, words = input(), input().split()
        good = [True]
        for end in range(1, len(text) + 1):
            fits = [w for w in words if text[:end].endswith(w)]
            good.append(any(good[end - len(w)] for w in fits))
        print("yes" if good[-1] else "no")
        """,
        """
        text, words = input(), input().split()
        for word in words:
            text = text.replace(word, "")
        print("no" if text else "yes")
        """,
    ),
)

VALIDATION = (
    Program(
        "Grid paths",
        "The first line is n. Then n rows of n characters follow, . for free and # for a "
        "wall. Print the number of paths from the top left to the bottom right that go only right "
        "or down.",
        ["2\n..\n..", "1\n.", "2\n.#\n#.", "3\n...\n.#.\n...", "1\n#", "3\n...\n...\n..."],
        """
        n = int(input())
        ways = [1] + [0] * (n - 1)
        for _ in range(n):
            for j, c in enumerate(input()):
                if c == "#":
                    ways[j] = 0
                elif j > 0:
                    ways[j] += ways[j - 1]
        print(ways[-1])
        """,
        """
        n = int(input())
        ways = [1] + [0] * (n - 1)
        for _ in range(n):
            for j, c in enumerate(input()):
                if j > 0:
                    ways[j] += ways[j - 1]
        print(ways[-1])
        """,
    ),
)
