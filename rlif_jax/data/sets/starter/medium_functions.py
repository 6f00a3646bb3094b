"""Medium functions: filters, counting, string formatting, simple loops."""

from rlif_jax.data.sets.starter.source import Function

TRAIN = (
    Function(
        "Sum of evens",
        "sum_evens(numbers: list[int]) -> int",
        "returns the sum of the even numbers in the list.",
        [[1, 2, 3, 4], [], [1, 3], [0, -2, 5], [10, 10], [-4, -3]],
        "return sum(n for n in numbers if n % 2 == 0)",
        "return sum(n for n in numbers if n % 2 == 0 and n > 0)",
    ),
    Function(
        "Count vowels",
        "count_vowels(text: str) -> int",
        "counts the vowels a, e, i, o, u in the string, in either case.",
        ["hello", "", "xyz", "AEIOU", "Programming", "Eye open"],
        'return sum(c in "aeiou" for c in text.lower())',
        'return sum(c in "aeiou" for c in text)',
    ),
    Function(
        "Remove duplicates",
        "remove_duplicates(items: list[int]) -> list[int]",
        "removes repeated values and keeps the order of first appearance.",
        [[3, 1, 3, 2], [], [1, 1, 1], [5, 4, 5, 4], [9], [2, 1, 2, 0]],
        "return list(dict.fromkeys(items))",
        "return sorted(set(items))",
    ),
    Function(
        "Long words",
        "long_words(text: str, n: int) -> list[str]",
        "returns the words of text that have more than n letters.",
        [("the quick fox", 3), ("", 2), ("a bb ccc", 1), ("same size", 4), ("x yy", 0)],
        "return [word for word in text.split() if len(word) > n]",
        "return [word for word in text.split() if len(word) >= n]",
    ),
    Function(
        "Palindrome",
        "is_palindrome(text: str) -> bool",
        "returns True if the string reads the same backwards, ignoring case.",
        ["Level", "hello", "", "ab", "aBbA", "x"],
        "return text.lower() == text.lower()[::-1]",
        "return text == text[::-1]",
    ),
    Function(
        "Factorial",
        "factorial(n: int) -> int",
        "returns n factorial. The factorial of 0 is 1.",
        [5, 0, 1, 3, 10, 20],
        """
        result = 1
        for i in range(2, n + 1):
            result *= i
        return result
        """,
        """
        result = 1
        for i in range(1, n):
            result *= i
        return result
        """,
    ),
    Function(
        "Fizz or Buzz",
        "fizz(n: int) -> str",
        'returns "FizzBuzz" if n is divisible by 3 and 5, "Fizz" if by 3, "Buzz" if by 5, '
        "else n as a string.",
        [9, 15, 10, 7, 30, 1],
        'return ("Fizz" * (n % 3 == 0) + "Buzz" * (n % 5 == 0)) or str(n)',
        """
        if n % 3 == 0:
            return "Fizz"
        if n % 5 == 0:
            return "Buzz"
        return str(n)
        """,
    ),
    Function(
        "Price tag",
        "price_tag(cents: int) -> str",
        "formats an amount of cents as dollars with two decimals.",
        [1250, 0, 5, 99, 100, 123456],
        'return f"${cents // 100}.{cents % 100:02d}"',
        'return f"${cents // 100}.{cents % 100}"',
    ),
    Function(
        "List of squares",
        "squares(n: int) -> list[int]",
        "returns the squares of 1, 2, ..., n.",
        [3, 0, 1, 5, 10],
        "return [i * i for i in range(1, n + 1)]",
        "return [i * i for i in range(n)]",
    ),
    Function(
        "Digit sum",
        "digit_sum(n: int) -> int",
        "returns the sum of the digits of n. A minus sign is ignored.",
        [123, 0, -45, 9999, 1000, -7],
        "return sum(int(d) for d in str(abs(n)))",
        "return sum(int(d) for d in str(n))",
    ),
    Function(
        "Clamp",
        "clamp(x: int, low: int, high: int) -> int",
        "returns x, but low if x is below low, and high if x is above high.",
        [(5, 1, 10), (-3, 0, 4), (12, 0, 10), (0, 0, 0), (10, 1, 10), (-9, -5, -1)],
        "return max(low, min(x, high))",
        "return min(x, high)",
    ),
    Function(
        "Longest word",
        "longest_word(words: list[str]) -> str",
        "returns the longest word, the first one on a tie, or an empty string for an empty list.",
        [["an", "apple", "pie"], [], ["a"], ["one", "two"], ["x", "yy", "zz"]],
        'return max(words, key=len, default="")',
        "return sorted(words, key=len)[-1]",
    ),
    Function(
        "Leap year",
        "is_leap(year: int) -> bool",
        "tells whether the year is a leap year: divisible by 4, but not by 100 unless by 400.",
        [2024, 2023, 1900, 2000, 2100, 1600],
        "return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)",
        "return year % 4 == 0 and year % 100 != 0",
    ),
    Function(
        "Position of the largest",
        "index_of_max(numbers: list[int]) -> int",
        "returns the index of the first largest number, or -1 for an empty list.",
        [[3, 9, 2], [], [5], [4, 7, 7], [-3, -1, -2]],
        "return numbers.index(max(numbers)) if numbers else -1",
        "return numbers.index(max(numbers))",
    ),
    Function(
        "Clock format",
        "clock(seconds: int) -> str",
        "formats seconds as minutes:seconds with two digits each.",
        [75, 0, 59, 60, 3599, 605],
        'return f"{seconds // 60:02d}:{seconds % 60:02d}"',
        'return f"{seconds // 60}:{seconds % 60}"',
    ),
    Function(
        "Common values",
        "common(a: list[int], b: list[int]) -> list[int]",
        "returns the values that occur in both lists, sorted, each once.",
        [([1, 2, 3], [3, 2, 5]), ([], [1]), ([1, 1], [1, 1]), ([4], [5]), ([9, 2, 2], [2, 9])],
        "return sorted(set(a) & set(b))",
        "return [x for x in a if x in b]",
    ),
    Function(
        "Dot product",
        "dot(a: list[int], b: list[int]) -> int",
        "multiplies the lists element by element and returns the sum.",
        [([1, 2, 3], [4, 5, 6]), ([], []), ([2], [-3]), ([0, 1], [5, 0]), ([1, 1], [1, 1])],
        "return sum(x * y for x, y in zip(a, b))",
        "return sum(a) * sum(b)",
    ),
    Function(
        "Divisors",
        "divisors(n: int) -> list[int]",
        "returns all divisors of the positive integer n in ascending order.",
        [12, 1, 7, 16, 28],
        "return [d for d in range(1, n + 1) if n % d == 0]",
        "return [d for d in range(1, n // 2 + 1) if n % d == 0]",
    ),
    Function(
        "Capitalize words",
        "headline(text: str) -> str",
        "makes the first letter of each word uppercase and the rest lowercase.",
        ["hello world", "", "PYTHON", "it's ok", "a bC"],
        'return " ".join(word.capitalize() for word in text.split())',
        "return text.title()",
        in_class=True,
    ),
    Function(
        "Keep positives",
        "keep_positives(numbers: list[int]) -> list[int]",
        "returns only the numbers greater than zero, in the same order.",
        [[1, -2, 3], [], [0], [-1, -2], [5, 0, 6]],
        "return [n for n in numbers if n > 0]",
        "return [n for n in numbers if n >= 0]",
        in_class=True,
    ),
)

VALIDATION = (
    Function(
        "Count multiples",
        "count_multiples(numbers: list[int], k: int) -> int",
        "counts the numbers in the list that are divisible by k.",
        [([2, 3, 4], 2), ([], 5), ([1, 1], 1), ([0, 7], 7), ([5, 10, 12], 5)],
        "return len([n for n in numbers if n % k == 0])",
        "return len([n for n in numbers if n > k and n % k == 0])",
    ),
    Function(
        "Remove vowels",
        "remove_vowels(text: str) -> str",
        "removes the letters a, e, i, o, u, in either case.",
        ["hello", "", "AEIou", "Rhythm", "An Apple"],
        'return "".join(c for c in text if c.lower() not in "aeiou")',
        'return "".join(c for c in text if c not in "aeiou")',
    ),
    Function(
        "Every other item",
        "every_other(items: list[int]) -> list[int]",
        "returns the first, third, fifth, ... element of the list.",
        [[1, 2, 3, 4], [], [7], [1, 2], [5, 4, 3, 2, 1]],
        "return items[::2]",
        "return items[1::2]",
    ),
    Function(
        "Letter grade",
        "grade(score: int) -> str",
        'returns "A" for a score of at least 90, "B" for at least 80, "C" for at least 70, '
        'else "F".',
        [95, 90, 80, 79, 70, 69, 0],
        """
        if score >= 90:
            return "A"
        if score >= 80:
            return "B"
        return "C" if score >= 70 else "F"
        """,
        """
        if score > 90:
            return "A"
        if score > 80:
            return "B"
        return "C" if score > 70 else "F"
        """,
    ),
    Function(
        "Span",
        "span(numbers: list[int]) -> int",
        "returns the largest number minus the smallest, or 0 for an empty list.",
        [[3, 9, 2], [], [5], [-3, 4], [-8, -2, -5]],
        "return max(numbers) - min(numbers) if numbers else 0",
        "return max(numbers) - min(numbers)",
    ),
    Function(
        "Countdown",
        "countdown(n: int) -> list[int]",
        "returns the list n, n - 1, ..., 1, 0.",
        [3, 0, 1, 5, 10],
        "return list(range(n, -1, -1))",
        "return list(range(n, 0, -1))",
    ),
    Function(
        "Count uppercase letters",
        "count_upper(text: str) -> int",
        "counts the uppercase letters in the string.",
        ["Hello World", "", "ABC", "abc", "a1B2 C3!"],
        "return sum(c.isupper() for c in text)",
        "return sum(c == c.upper() for c in text)",
        in_class=True,
    ),
)
