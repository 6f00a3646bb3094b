"""Hard programs: parsing, simulations, two-step loops, edge cases."""

from rlif_jax.data.sets.starter.source import Program

TRAIN = (
    Program(
        "Primes up to n",
        "Read an integer n. Print all primes up to n on one line separated by "
        "spaces, or none if there are none.",
        ["10", "1", "2", "30", "0", "25"],
        """
        n = int(input())
        primes = [p for p in range(2, n + 1) if all(p % d for d in range(2, p))]
        print(*primes or ["none"])
        """,
        """
        n = int(input())
        primes = [p for p in range(2, n) if all(p % d for d in range(2, p))]
        print(*primes or ["none"])
        """,
    ),
    Program(
        "Best single trade",
        "Read daily prices from one line. Print the largest profit from "
        "buying on one day and selling on a later day, or 0 if there is no profit.",
        ["7 1 5 3 6 4", "5 4 3", "1 9", "8", "3 8 1 2", "2 2 2"],
        """
        prices = list(map(int, input().split()))
        best, low = 0, prices[0]
        for price in prices:
            low = min(low, price)
            best = max(best, price - low)
        print(best)
        """,
        "prices = list(map(int, input().split()))\nprint(max(prices) - min(prices))",
    ),
    Program(
        "Most frequent word",
        "Read a line of words. Print the most frequent word. "
        "On a tie print the one that comes first in alphabetical order.",
        ["b a b", "x", "b a", "to be or not to be", "c c a a b"],
        "words = input().split()\nprint(min(words, key=lambda w: (-words.count(w), w)))",
        "words = input().split()\nprint(max(words, key=words.count))",
    ),
    Program(
        "Robot walk",
        "A robot starts at 0 0. Read a line of letters: U adds 1 to y, D subtracts 1, "
        "R adds 1 to x, L subtracts 1. Print the final x and y.",
        ["UURD", "R", "LLLL", "UDLR", "DDRRU"],
        """
        moves = input()
        print(moves.count("R") - moves.count("L"), moves.count("U") - moves.count("D"))
        """,
        """
        moves = input()
        print(moves.count("U") - moves.count("D"), moves.count("R") - moves.count("L"))
        """,
    ),
    Program(
        "Bracket depth",
        "Read a line of ( and ). Print the greatest nesting depth, "
        "or -1 if the brackets do not match.",
        ["(())()", "()", "(()", ")(", "((()))", "())(()"],
        """
        depth = best = 0
        good = True
        for c in input():
            depth += 1 if c == "(" else -1
            good = good and depth >= 0
            best = max(best, depth)
        print(best if good and depth == 0 else -1)
        """,
        """
        depth = best = 0
        for c in input():
            depth += 1 if c == "(" else -1
            best = max(best, depth)
        print(best if depth == 0 else -1)
        """,
    ),
    Program(
        "Islands in a row",
        "Read a line of 0s and 1s. Print the number of groups of neighbouring "
        "1s and the length of the longest group.",
        ["110111", "0", "1", "10101", "0110", "111"],
        """
        groups = input().replace("0", " ").split()
        print(len(groups), max(map(len, groups), default=0))
        """,
        """
        line = input()
        print(line.count("10"), max(map(len, line.split("0"))))
        """,
    ),
    Program(
        "Bank account",
        "The first line is n. Then n commands follow: deposit x or withdraw x. "
        "The balance starts at 0. Ignore a withdrawal above the balance. Print the final balance.",
        [
            "3\ndeposit 10\nwithdraw 4\nwithdraw 9",
            "1\nwithdraw 1",
            "0",
            "2\ndeposit 5\nwithdraw 5",
            "3\nwithdraw 3\ndeposit 7\ndeposit 1",
        ],
        """
        balance = 0
        for _ in range(int(input())):
            command, amount = input().split()
            if command == "deposit":
                balance += int(amount)
            elif int(amount) <= balance:
                balance -= int(amount)
        print(balance)
        """,
        """
        balance = 0
        for _ in range(int(input())):
            command, amount = input().split()
            if command == "deposit":
                balance += int(amount)
            elif int(amount) < balance:
                balance -= int(amount)
        print(balance)
        """,
    ),
    Program(
        "Time between",
        "Read two times of one day in the form HH:MM, one per line. Print the minutes "
        "from the first to the second. If the second is earlier, it is on the next day.",
        ["09:30\n10:15", "23:50\n00:10", "00:00\n00:00", "12:00\n11:59", "08:05\n20:05"],
        """
        times = []
        for _ in range(2):
            hours, minutes = map(int, input().split(":"))
            times.append(60 * hours + minutes)
        print((times[1] - times[0]) % 1440)
        """,
        """
        times = []
        for _ in range(2):
            hours, minutes = map(int, input().split(":"))
            times.append(60 * hours + minutes)
        print(abs(times[1] - times[0]))
        """,
    ),
    Program(
        "Column sums",
        "The first line has the numbers of rows and columns. Then the rows of a matrix "
        "follow. Print the sum of each column on one line.",
        ["2 3\n1 2 3\n4 5 6", "1 1\n7", "3 1\n1\n2\n3", "1 2\n-1 1", "2 2\n0 5\n0 -5"],
        """
        rows, _ = map(int, input().split())
        matrix = [list(map(int, input().split())) for _ in range(rows)]
        print(*[sum(column) for column in zip(*matrix)])
        """,
        """
        rows, _ = map(int, input().split())
        matrix = [list(map(int, input().split())) for _ in range(rows)]
        print(*[sum(row) for row in matrix])
        """,
    ),
    Program(
        "Diamond",
        "Read an odd integer n. Print a diamond of stars n lines high: 1, 3, ..., n, "
        "..., 3, 1 stars, each line indented with spaces to be centred.",
        ["3", "1", "5", "7", "9"],
        """
        n = int(input())
        for i in range(n):
            gap = abs(n // 2 - i)
            print(" " * gap + "*" * (n - 2 * gap))
        """,
        """
        n = int(input())
        for i in range(1, n + 1, 2):
            print(" " * ((n - i) // 2) + "*" * i)
        """,
    ),
    Program(
        "Reverse Polish notation",
        "Read an expression in reverse Polish notation with the operators "
        "+, - and *, separated by spaces. Print its value.",
        ["2 3 +", "7", "5 3 -", "2 3 4 * +", "-1 4 *"],
        """
        stack = []
        for token in input().split():
            if token in ("+", "-", "*"):
                b, a = stack.pop(), stack.pop()
                stack.append({"+": a + b, "-": a - b, "*": a * b}[token])
            else:
                stack.append(int(token))
        print(stack[0])
        """,
        """
        stack = []
        for token in input().split():
            if token in ("+", "-", "*"):
                a, b = stack.pop(), stack.pop()
                stack.append({"+": a + b, "-": a - b, "*": a * b}[token])
            else:
                stack.append(int(token))
        print(stack[0])
        """,
    ),
    Program(
        "Equal halves",
        "Read integers from one line. Print the smallest index i such that the numbers "
        "before i and the numbers after i have the same sum, or -1.",
        ["1 7 3 6 5 6", "5", "1 2 3", "2 1 -1", "0 0"],
        """
        numbers = list(map(int, input().split()))
        left, answer = 0, -1
        for i, n in enumerate(numbers):
            if left == sum(numbers) - left - n:
                answer = i
                break
            left += n
        print(answer)
        """,
        """
        numbers = list(map(int, input().split()))
        answer = -1
        for i in range(1, len(numbers) - 1):
            if sum(numbers[:i]) == sum(numbers[i + 1 :]):
                answer = i
        print(answer)
        """,
    ),
)

VALIDATION = (
    Program(
        "Digital root",
        "Read a non-negative integer. Replace it by the sum of its digits until "
        "one digit is left. Print the number of replacements and that digit.",
        ["9875", "0", "7", "10", "199"],
        """
        n, count = input(), 0
        while len(n) > 1:
            n = str(sum(map(int, n)))
            count += 1
        print(count, n)
        """,
        "n = int(input())\nprint(1, sum(map(int, str(n))))",
    ),
    Program(
        "Race results",
        "The first line is n. Each of the next n lines has a name and a time. "
        "Print the names from the fastest to the slowest, one per line, equal times by name.",
        ["2\nbob 12\nann 9", "1\nzed 5", "3\nc 7\na 7\nb 3", "2\nx 100\ny 20", "2\nb 1\na 1"],
        """
        racers = []
        for _ in range(int(input())):
            name, time = input().split()
            racers.append((int(time), name))
        for _, name in sorted(racers):
            print(name)
        """,
        """
        racers = []
        for _ in range(int(input())):
            name, time = input().split()
            racers.append((time, name))
        for _, name in sorted(racers):
            print(name)
        """,
    ),
    Program(
        "Calculator",
        "Read a line with a number, an operator (+, -, * or /) and a number. Print the "
        "result; / is integer division rounded down. Print error for a division by zero.",
        ["7 + 5", "7 / 2", "3 / 0", "2 - 9", "-4 * 6", "-7 / 2"],
        """
        a, op, b = input().split()
        a, b = int(a), int(b)
        if op == "/":
            print(a // b if b else "error")
        else:
            print({"+": a + b, "-": a - b, "*": a * b}[op])
        """,
        """
        a, op, b = input().split()
        a, b = int(a), int(b)
        if op == "/":
            print(int(a / b) if b else "error")
        else:
            print({"+": a + b, "-": a - b, "*": a * b}[op])
        """,
    ),
    Program(
        "Compare versions",
        "Read two versions such as 1.10.2, one per line. Compare them part by part; "
        "missing parts are zero. Print <, > or =.",
        ["1.2\n1.10", "1.0\n1", "2\n1.9.9", "1.0.1\n1", "3.4\n3.4", "0.1\n0.0.9"],
        """
        x, y = [list(map(int, input().split("."))) for _ in range(2)]
        size = max(len(x), len(y))
        x += [0] * (size - len(x))
        y += [0] * (size - len(y))
        print("<" if x < y else ">" if x > y else "=")
        """,
        """
        a, b = input(), input()
        print("<" if a < b else ">" if a > b else "=")
        """,
    ),
)
