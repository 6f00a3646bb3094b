"""Medium programs: several lines of input, counting, formatting."""

from rlif_jax.data.sets.starter.source import Program

TRAIN = (
    Program(
        "Average of a line",
        "Read integers from one line. Print their average with two decimals.",
        ["1 2 4", "5", "0 0 0", "-1 2", "10 20"],
        'xs = list(map(int, input().split()))\nprint(f"{sum(xs) / len(xs):.2f}")',
        'xs = list(map(int, input().split()))\nprint(f"{sum(xs) // len(xs):.2f}")',
    ),
    Program(
        "Print one to n",
        "Read an integer n. Print the numbers from 1 to n, one per line.",
        ["3", "1", "5", "10", "2"],
        "n = int(input())\nfor i in range(1, n + 1):\n    print(i)",
        "n = int(input())\nfor i in range(1, n):\n    print(i)",
    ),
    Program(
        "Sum of n lines",
        "The first line is n. Then n lines follow with one integer each. "
        "Print the sum of the n integers.",
        ["3\n1\n2\n3", "0", "1\n-5", "2\n10\n10", "4\n1\n-1\n1\n-1"],
        "n = int(input())\nprint(sum(int(input()) for _ in range(n)))",
        "import sys\nprint(sum(map(int, sys.stdin.read().split())))",
    ),
    Program(
        "Count a letter",
        "Read a line of text, then a letter on the second line. "
        "Print how often the letter occurs in the text.",
        ["banana\na", "hello\nz", "Anna\na", "a b a\nb", "zzzz\nz"],
        "text = input()\nprint(text.count(input()))",
        "text = input()\nprint(text.lower().count(input()))",
    ),
    Program(
        "Sorted words",
        "Read words from one line. Print them in alphabetical order on one line, "
        "separated by spaces.",
        ["pear apple fig", "x", "b a b", "the end of it", "aa a aaa"],
        "print(*sorted(input().split()))",
        "print(*sorted(set(input().split())))",
    ),
    Program(
        "Pass or fail",
        "Read a score from 0 to 100. Print pass if it is at least 50, "
        "fail if it is less, and invalid if it is not from 0 to 100.",
        ["70", "50", "49", "101", "-1", "0", "100"],
        """
        score = int(input())
        if score < 0 or score > 100:
            print("invalid")
        else:
            print("pass" if score >= 50 else "fail")
        """,
        """
        score = int(input())
        if score < 0 or score > 100:
            print("invalid")
        else:
            print("pass" if score > 50 else "fail")
        """,
    ),
    Program(
        "Star triangle",
        "Read an integer n. Print n lines: line i has i stars.",
        ["3", "1", "5", "2", "7"],
        'n = int(input())\nfor i in range(1, n + 1):\n    print("*" * i)',
        'n = int(input())\nfor i in range(n):\n    print("*" * i)',
    ),
    Program(
        "Multiplication table",
        "Read an integer n. Print its table from 1 to 4 as four lines like 3 x 1 = 3.",
        ["3", "0", "12", "-2", "1"],
        'n = int(input())\nfor i in range(1, 5):\n    print(f"{n} x {i} = {n * i}")',
        'n = int(input())\nfor i in range(4):\n    print(f"{n} x {i} = {n * i}")',
    ),
    Program(
        "Total price",
        "The first line is n. Each of the next n lines has a price and a quantity. "
        "Print the total cost.",
        ["2\n3 2\n10 1", "1\n5 0", "0", "3\n1 1\n2 2\n3 3", "1\n100 100"],
        """
        total = 0
        for _ in range(int(input())):
            price, quantity = map(int, input().split())
            total += price * quantity
        print(total)
        """,
        """
        total = 0
        for _ in range(int(input())):
            price, quantity = map(int, input().split())
            total += price
        print(total)
        """,
    ),
    Program(
        "Count up to zero",
        "Read integers, one per line, until a 0. Print how many came before the 0.",
        ["4\n5\n0", "0", "7\n0", "1\n1\n1\n1\n0", "-3\n0\n8"],
        "count = 0\nwhile int(input()) != 0:\n    count += 1\nprint(count)",
        "count = 1\nwhile int(input()) != 0:\n    count += 1\nprint(count)",
    ),
    Program(
        "Full name",
        "Read a first name and a last name, one per line. "
        "Print the last name in uppercase, a comma, a space, and the first name.",
        ["Ada\nLovelace", "bob\nray", "X\nY", "Grace\nHopper", "Jo Ann\nde Wit"],
        'first = input()\nlast = input()\nprint(f"{last.upper()}, {first}")',
        'first = input()\nlast = input()\nprint(f"{last.capitalize()}, {first}")',
    ),
    Program(
        "Triangle kind",
        "Read three side lengths from one line. Print equilateral if all are "
        "equal, isosceles if exactly two are equal, else scalene.",
        ["3 3 3", "3 4 5", "2 2 3", "5 2 5", "2 7 7"],
        'n = len(set(input().split()))\nprint(["equilateral", "isosceles", "scalene"][n - 1])',
        """
        a, b, c = input().split()
        if a == b == c:
            print("equilateral")
        elif a == b or b == c:
            print("isosceles")
        else:
            print("scalene")
        """,
    ),
    Program(
        "Sum of a line",
        "Read integers from one line. Print their sum.",
        ["1 2 3", "5", "-1 1", "10 20 30 40", "0 0"],
        "print(sum(map(int, input().split())))",
        "a, b, c = map(int, input().split())\nprint(a + b + c)",
    ),
    Program(
        "Maximum of a line",
        "Read integers from one line. Print the largest.",
        ["3 9 2", "5", "-4 -1 -9", "10 9", "0 0 0"],
        "print(max(map(int, input().split())))",
        "print(max(input().split()))",
    ),
    Program(
        "Even or odd",
        "Read an integer n. Print even if n is even, or odd if n is odd.",
        ["4", "7", "0", "-3", "-10"],
        'n = int(input())\nprint("even" if n % 2 == 0 else "odd")',
        'n = int(input())\nprint("odd" if n % 2 == 1 and n > 0 else "even")',
    ),
    Program(
        "Number of words",
        "Read a line of text. Print the number of words in it.",
        ["one two three", "hello", "a b", "to be or not to be", "x  y"],
        "print(len(input().split()))",
        "text = input()\nprint(text.count(' ') + 1)",
    ),
)

VALIDATION = (
    Program(
        "Even numbers of a line",
        "Read integers from one line. Print the even ones on one line, "
        "in the same order, or none if there are no even ones.",
        ["1 2 3 4", "1 3", "0", "-2 5 8", "7"],
        'xs = [x for x in input().split() if int(x) % 2 == 0]\nprint(*xs or ["none"])',
        "xs = [x for x in input().split() if int(x) % 2 == 0]\nprint(*xs)",
    ),
    Program(
        "Countdown to liftoff",
        "Read an integer n. Print n, n - 1, ..., 1, one per line, then print liftoff.",
        ["3", "1", "0", "5", "2"],
        'n = int(input())\nfor i in range(n, 0, -1):\n    print(i)\nprint("liftoff")',
        'n = int(input())\nfor i in range(n, -1, -1):\n    print(i)\nprint("liftoff")',
    ),
    Program(
        "Longest line",
        "The first line is n. Then n lines of text follow. Print the length of the longest line.",
        ["2\nabc\nhello", "1\nx", "3\na b\ncc\nddd d", "2\nsame\nsame", "3\nlonger\nb\nc"],
        "print(max(len(input()) for _ in range(int(input()))))",
        "n = int(input())\nprint(max(len(input().split()[0]) for _ in range(n)))",
    ),
    Program(
        "Shipping cost",
        "Read a weight in kilograms. Shipping costs 5 for up to 2 kilograms, "
        "and 3 more for every further kilogram. Print the cost.",
        ["4", "2", "1", "3", "10"],
        "w = int(input())\nprint(5 + 3 * max(0, w - 2))",
        "w = int(input())\nprint(5 + 3 * (w - 2))",
    ),
    Program(
        "Smallest and largest",
        "Read integers from one line. Print the smallest and the largest, separated by a space.",
        ["3 9 2", "5", "-4 -1 -9", "10 9", "0 0 0"],
        "xs = list(map(int, input().split()))\nprint(min(xs), max(xs))",
        "xs = input().split()\nprint(min(xs), max(xs))",
    ),
)
