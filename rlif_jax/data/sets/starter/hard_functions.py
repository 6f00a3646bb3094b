"""Hard functions of numbers and strings: two-step loops, edge cases, small dynamic programs."""

from rlif_jax.data.sets.starter.source import Function

TRAIN = (
    Function(
        "Prime test",
        "is_prime(n: int) -> bool",
        "returns True if n is a prime number.",
        [7, 1, 2, 9, 0, 97, 25],
        "return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))",
        "return n > 1 and all(n % d for d in range(2, int(n**0.5)))",
    ),
    Function(
        "Fibonacci",
        "fibonacci(n: int) -> int",
        "returns the n-th Fibonacci number, where number 0 is 0 and number 1 is 1.",
        [7, 0, 1, 2, 10, 50],
        """
        a, b = 0, 1
        for _ in range(n):
            a, b = b, a + b
        return a
        """,
        """
        a, b = 0, 1
        for _ in range(n):
            a, b = b, a + b
        return b
        """,
    ),
    Function(
        "Balanced brackets",
        "balanced(text: str) -> bool",
        "returns True if the brackets ()[]{} in text are closed in the right order.",
        ["([])", "", "(]", "([)]", "((", "a(b)c]", "{}[]"],
        """
        stack = []
        for c in text:
            if c in "([{":
                stack.append(c)
            elif c in ")]}" and (not stack or stack.pop() + c not in ("()", "[]", "{}")):
                return False
        return not stack
        """,
        'return all(text.count(a) == text.count(b) for a, b in ("()", "[]", "{}"))',
    ),
    Function(
        "Run-length encoding",
        "encode(text: str) -> str",
        "replaces each run of equal characters by the character and the length of the run.",
        ["aaabb", "", "x", "abc", "zzzzzzzzzzzz", "aabaa"],
        """
        result = ""
        i = 0
        while i < len(text):
            j = i
            while j < len(text) and text[j] == text[i]:
                j += 1
            result += text[i] + str(j - i)
            i = j
        return result
        """,
        'return "".join(c + str(text.count(c)) for c in dict.fromkeys(text))',
    ),
    Function(
        "Roman numeral",
        "roman_to_int(numeral: str) -> int",
        "converts a Roman numeral (I, V, X, L, C, D, M) to an integer.",
        ["XIV", "III", "IX", "MCMXCIV", "LVIII", "XL"],
        """
        value = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
        total = previous = 0
        for letter in reversed(numeral):
            v = value[letter]
            total += v if v >= previous else -v
            previous = v
        return total
        """,
        """
        value = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
        return sum(value[letter] for letter in numeral)
        """,
    ),
    Function(
        "Fewest coins",
        "fewest_coins(coins: list[int], amount: int) -> int",
        "returns the smallest number of coins that make the amount, or -1 if it cannot be made. "
        "Each coin may be used many times.",
        [([1, 3, 4], 6), ([2], 3), ([5], 0), ([1, 2, 5], 11), ([7, 10], 14), ([9, 6, 1], 13)],
        """
        best = [0] + [amount + 1] * amount
        for total in range(1, amount + 1):
            for coin in coins:
                if coin <= total:
                    best[total] = min(best[total], best[total - coin] + 1)
        return best[amount] if best[amount] <= amount else -1
        """,
        """
        count = 0
        for coin in sorted(coins, reverse=True):
            count += amount // coin
            amount %= coin
        return count if amount == 0 else -1
        """,
    ),
    Function(
        "Common prefix",
        "common_prefix(words: list[str]) -> str",
        "returns the longest prefix that all words share, or an empty string for no words.",
        [["flower", "flow", "flight"], [], ["dog", "cat"], ["same"], ["ab", "abc"], ["abc", "ab"]],
        """
        prefix = words[0] if words else ""
        for word in words:
            while not word.startswith(prefix):
                prefix = prefix[:-1]
        return prefix
        """,
        """
        prefix = ""
        for i, c in enumerate(words[0]):
            if all(word[i] == c for word in words):
                prefix += c
        return prefix
        """,
    ),
    Function(
        "Caesar cipher",
        "shift_letters(text: str, k: int) -> str",
        "moves each lowercase letter k places forward in the alphabet, z being followed by a. "
        "Other characters stay.",
        [("abc", 2), ("xyz", 3), ("", 5), ("Hi there!", 1), ("abc", 26), ("abc", -1)],
        """
        result = ""
        for c in text:
            if "a" <= c <= "z":
                c = chr((ord(c) - ord("a") + k) % 26 + ord("a"))
            result += c
        return result
        """,
        'return "".join(chr(ord(c) + k) if "a" <= c <= "z" else c for c in text)',
    ),
    Function(
        "Collatz steps",
        "collatz(n: int) -> int",
        "counts the steps from n to 1: an even number is halved, an odd one becomes 3n + 1.",
        [6, 1, 2, 7, 27, 16],
        """
        steps = 0
        while n != 1:
            n = n // 2 if n % 2 == 0 else 3 * n + 1
            steps += 1
        return steps
        """,
        """
        steps = 1
        while n != 1:
            n = n // 2 if n % 2 == 0 else 3 * n + 1
            steps += 1
        return steps
        """,
    ),
    Function(
        "Prime factors",
        "prime_factors(n: int) -> list[int]",
        "returns the prime factors of n in ascending order, repeated as often as they divide n.",
        [12, 1, 7, 64, 90, 97],
        """
        factors, d = [], 2
        while n > 1:
            while n % d == 0:
                factors.append(d)
                n //= d
            d += 1
        return factors
        """,
        """
        factors = []
        for d in range(2, n + 1):
            if n % d == 0:
                factors.append(d)
                n //= d
        return factors
        """,
    ),
    Function(
        "Number in a base",
        "to_base(n: int, base: int) -> str",
        "writes the non-negative integer n in the given base from 2 to 10.",
        [(10, 2), (0, 3), (7, 8), (255, 7), (81, 3), (5, 10)],
        """
        digits = ""
        while n > 0:
            digits = str(n % base) + digits
            n //= base
        return digits or "0"
        """,
        """
        digits = ""
        while n > 0:
            digits = str(n % base) + digits
            n //= base
        return digits
        """,
    ),
)

VALIDATION = (
    Function(
        "Stairs",
        "stairs(n: int) -> int",
        "counts the ways to climb n steps when each move takes 1, 2 or 3 steps.",
        [4, 0, 1, 2, 3, 10],
        """
        ways = [1, 1, 2]
        for i in range(3, n + 1):
            ways.append(ways[i - 1] + ways[i - 2] + ways[i - 3])
        return ways[n]
        """,
        """
        a, b = 1, 1
        for _ in range(n):
            a, b = b, a + b
        return a
        """,
    ),
    Function(
        "Group anagrams",
        "anagram_groups(words: list[str]) -> int",
        "returns the number of groups when words with the same letters form one group.",
        [["eat", "tea", "tan"], [], ["a", "a"], ["abc", "cab", "abd"], ["ab", "aab", "abb"]],
        'return len({"".join(sorted(word)) for word in words})',
        'return len({"".join(sorted(set(word))) for word in words})',
    ),
    Function(
        "Pascal row",
        "pascal_row(n: int) -> list[int]",
        "returns row n of Pascal's triangle; row 0 is [1].",
        [4, 0, 1, 2, 6],
        """
        row = [1]
        for _ in range(n):
            row = [1] + [x + y for x, y in zip(row, row[1:])] + [1]
        return row
        """,
        """
        row = [1]
        for _ in range(n - 1):
            row = [1] + [x + y for x, y in zip(row, row[1:])] + [1]
        return row
        """,
    ),
)
