"""Easy functions of strings and lists: one line each, in words for a very small model."""

from rlif_jax.data.sets.starter.source import Function

TRAIN = (
    Function(
        "String length",
        "string_length(text: str) -> int",
        "returns the length of the string.",
        ["hello", "", "a", "two words", "  x ", "12345678901"],
        "return len(text)",
        "return len(text.strip())",
    ),
    Function(
        "Reverse a string",
        "reverse_string(text: str) -> str",
        "returns the string reversed.",
        ["hello", "", "a", "abba", "two words", "12 3"],
        "return text[::-1]",
        'return " ".join(word[::-1] for word in text.split())',
    ),
    Function(
        "Largest number",
        "largest(numbers: list[int]) -> int",
        "returns the largest number in the list.",
        [[3, 9, 2], [5], [-7, -2, -9], [0, 0], [1, 2, 3, 4], [10, -10]],
        "return max(numbers)",
        """
        best = 0
        for number in numbers:
            if number > best:
                best = number
        return best
        """,
    ),
    Function(
        "Uppercase",
        "to_upper(text: str) -> str",
        "returns the string in uppercase.",
        ["hello", "Hello World", "", "ABC", "a1b2", "mixED case"],
        "return text.upper()",
        "return text.capitalize()",
    ),
    Function(
        "First element",
        "first_element(items: list[int]) -> int",
        "returns the first element, items[0].",
        [[3, 9, 2], [5], [-7, -2], [0, 1, 0], [8, 8, 1, 4], [100, 1]],
        "return items[0]",
        "return items[1]",
    ),
    Function(
        "Join two strings",
        "concat(first: str, second: str) -> str",
        "returns first + second.",
        [("foo", "bar"), ("", "x"), ("x", ""), ("", ""), ("a b", "c"), ("1", "2")],
        "return first + second",
        'return first + " " + second',
    ),
    Function(
        "Sum of a list",
        "sum_list(numbers: list[int]) -> int",
        "returns the sum of all numbers in the list.",
        [[1, 2, 3], [], [5], [-1, 1], [10, 20, 30, 40], [-5, -6]],
        "return sum(numbers)",
        """
        total = 0
        for i in range(1, len(numbers)):
            total += numbers[i]
        return total
        """,
    ),
    Function(
        "Sort numbers",
        "sort_numbers(numbers: list[int]) -> list[int]",
        "returns the sorted list.",
        [[3, 1, 2], [], [5], [2, 2, 1], [-1, -5, 0], [10, 9, 100]],
        "return sorted(numbers)",
        "return sorted(set(numbers))",
    ),
    Function(
        "Contains",
        "contains(items: list[int], x: int) -> bool",
        "returns True if x is in the list.",
        [([1, 2, 3], 2), ([1, 2, 3], 4), ([], 1), ([5], 5), ([0, -1], -1), ([7, 7], 0)],
        "return x in items",
        "return items.index(x) >= 0",
    ),
    Function(
        "Greet",
        "greet(name: str) -> str",
        'returns "Hello, " + name + "!".',
        ["Ann", "Bob", "", "Mary Lou", "x"],
        'return "Hello, " + name + "!"',
        'return "Hello " + name + "!"',
    ),
    Function(
        "Split into words",
        "split_words(text: str) -> list[str]",
        "splits the string into a list of words.",
        ["one two", "one", "", "a b c d", "  spaces   here "],
        "return text.split()",
        'return text.split(" ")',
    ),
    Function(
        "Repeat a string",
        "repeat(text: str, n: int) -> str",
        "returns the string repeated n times.",
        [("ab", 3), ("x", 0), ("", 5), ("hi ", 2), ("z", 1)],
        "return text * n",
        "return text * (n + 1)",
    ),
    Function(
        "Average",
        "average(numbers: list[int]) -> float",
        "returns the average of the numbers.",
        [[2, 4], [5], [1, 2, 3, 4], [-1, 1], [0, 0, 3]],
        "return sum(numbers) / len(numbers)",
        "return sum(numbers) // len(numbers)",
    ),
    Function(
        "Number of items",
        "count_items(items: list[int]) -> int",
        "returns the number of items in the list.",
        [[3, 9, 2], [], [5], [7, 7], [0, 0, 0, 0]],
        "return len(items)",
        "return len(set(items))",
    ),
    Function(
        "First three characters",
        "first_three(text: str) -> str",
        "returns the first three characters of the string.",
        ["hello", "abc", "ab", "", "12345"],
        "return text[:3]",
        "return text[:2]",
    ),
    Function(
        "String to number",
        "to_number(text: str) -> int",
        "converts the string to an integer.",
        ["42", "0", "-7", "100", "007"],
        "return int(text)",
        "return len(text)",
    ),
    Function(
        "Reverse a list",
        "reverse_list(items: list[int]) -> list[int]",
        "returns the list reversed.",
        [[1, 2, 3], [], [5], [2, 2, 1], [9, -1]],
        "return items[::-1]",
        "return sorted(items, reverse=True)",
    ),
)

VALIDATION = (
    Function(
        "Lowercase",
        "to_lower(text: str) -> str",
        "returns the string in lowercase.",
        ["Hello", "ABC def", "", "abc", "X1Y2"],
        "return text.lower()",
        "return text.swapcase()",
    ),
    Function(
        "Last element",
        "last_element(items: list[int]) -> int",
        "returns the last element of the list.",
        [[3, 9, 2], [5], [-7, -2], [0, 1, 0], [8, 8, 1, 4]],
        "return items[-1]",
        "return items[len(items) - 2]",
    ),
    Function(
        "Ends with",
        "ends_with(text: str, suffix: str) -> bool",
        "returns True if text ends with suffix.",
        [("hello", "lo"), ("hello", "he"), ("a", "a"), ("", "x"), ("abab", "ba")],
        "return text.endswith(suffix)",
        "return suffix in text",
    ),
    Function(
        "Remove outer spaces",
        "strip_spaces(text: str) -> str",
        "returns the string without spaces at the start and the end.",
        ["  hi  ", "x", "", " a b ", "   "],
        "return text.strip()",
        'return text.replace(" ", "")',
    ),
    Function(
        "Smallest number",
        "smallest(numbers: list[int]) -> int",
        "returns the smallest number in the list.",
        [[3, 9, 2], [5], [-7, -2, -9], [0, 0], [4, 3, 2, 10]],
        "return min(numbers)",
        "return sorted(numbers, reverse=True)[0]",
    ),
)
