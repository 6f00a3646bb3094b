"""Hard functions of lists: two-step loops, edge cases, small dynamic programs."""

from rlif_jax.data.sets.starter.source import Function

TRAIN = (
    Function(
        "Largest subarray sum",
        "max_subarray(numbers: list[int]) -> int",
        "returns the largest sum of a non-empty run of neighbouring numbers.",
        [[-2, 1, -3, 4, -1, 2, 1], [5], [-3, -1, -2], [1, 2, 3], [2, -5, 4], [0, -1]],
        """
        best = current = numbers[0]
        for n in numbers[1:]:
            current = max(n, current + n)
            best = max(best, current)
        return best
        """,
        """
        best = current = 0
        for n in numbers:
            current = max(0, current + n)
            best = max(best, current)
        return best
        """,
    ),
    Function(
        "Two numbers with a sum",
        "two_sum(numbers: list[int], target: int) -> list[int]",
        "returns the indices i < j of two numbers that add up to target, the smallest i first, "
        "or an empty list.",
        [
            ([2, 7, 11, 15], 9),
            ([3, 3], 6),
            ([1, 2], 5),
            ([], 0),
            ([5, 1, 4], 10),
            ([1, 5, 4, 2], 6),
        ],
        """
        for i in range(len(numbers)):
            for j in range(i + 1, len(numbers)):
                if numbers[i] + numbers[j] == target:
                    return [i, j]
        return []
        """,
        """
        for i, n in enumerate(numbers):
            if target - n in numbers:
                return [i, numbers.index(target - n)]
        return []
        """,
        in_class=True,
    ),
    Function(
        "Insert position",
        "insert_position(numbers: list[int], x: int) -> int",
        "returns how many numbers of the sorted list are smaller than x.",
        [([1, 3, 5], 4), ([], 1), ([1, 3, 5], 5), ([2, 2, 2], 2), ([1, 2], 9), ([4], 0)],
        """
        low, high = 0, len(numbers)
        while low < high:
            middle = (low + high) // 2
            if numbers[middle] < x:
                low = middle + 1
            else:
                high = middle
        return low
        """,
        "return sum(n <= x for n in numbers)",
    ),
    Function(
        "Rotate a list",
        "rotate(items: list[int], k: int) -> list[int]",
        "moves every element k places to the right, around the end. k may be larger than the list "
        "or negative.",
        [([1, 2, 3, 4], 1), ([], 3), ([1, 2, 3], 4), ([1, 2, 3], -1), ([5], 9), ([1, 2], 0)],
        """
        if not items:
            return []
        k %= len(items)
        return items[len(items) - k :] + items[: len(items) - k]
        """,
        "return items[-k:] + items[:-k]",
    ),
    Function(
        "Longest equal run",
        "longest_run(items: list[int]) -> int",
        "returns the length of the longest run of equal neighbours, 0 for an empty list.",
        [[1, 1, 2, 2, 2], [], [7], [1, 2, 1, 1], [3, 3, 3, 3], [4, 5, 6]],
        """
        best = count = 0
        for i, item in enumerate(items):
            count = count + 1 if i > 0 and item == items[i - 1] else 1
            best = max(best, count)
        return best
        """,
        "return max((items.count(x) for x in items), default=0)",
    ),
    Function(
        "Both diagonals",
        "diagonals(matrix: list[list[int]]) -> int",
        "returns the sum of both diagonals of a square matrix; a centre element counts once.",
        [
            [[1, 2], [3, 4]],
            [[5]],
            [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
            [[0, 1], [1, 0]],
            [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        ],
        """
        n = len(matrix)
        total = sum(matrix[i][i] + matrix[i][n - 1 - i] for i in range(n))
        return total - matrix[n // 2][n // 2] if n % 2 else total
        """,
        """
        n = len(matrix)
        return sum(matrix[i][i] + matrix[i][n - 1 - i] for i in range(n))
        """,
    ),
    Function(
        "Merge intervals",
        "merge(intervals: list[list[int]]) -> list[list[int]]",
        "merges the intervals [start, end] that overlap or touch and returns them sorted.",
        [
            [[1, 3], [2, 6], [8, 9]],
            [],
            [[1, 4], [4, 5]],
            [[5, 6], [1, 2]],
            [[1, 9], [2, 3]],
            [[3, 3]],
        ],
        """
        merged = []
        for start, end in sorted(intervals):
            if merged and start <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], end)
            else:
                merged.append([start, end])
        return merged
        """,
        """
        merged = []
        for start, end in sorted(intervals):
            if merged and start <= merged[-1][1]:
                merged[-1][1] = end
            else:
                merged.append([start, end])
        return merged
        """,
        in_class=True,
    ),
    Function(
        "Longest increasing subsequence",
        "longest_increasing(numbers: list[int]) -> int",
        "returns the length of the longest strictly increasing subsequence.",
        [[10, 9, 2, 5, 3, 7], [], [4, 4, 4], [1, 2, 3], [3, 2, 1], [0, 8, 4, 12, 2, 10]],
        """
        best = []
        for i, n in enumerate(numbers):
            best.append(1 + max((best[j] for j in range(i) if numbers[j] < n), default=0))
        return max(best, default=0)
        """,
        """
        best = []
        for i, n in enumerate(numbers):
            best.append(1 + max((best[j] for j in range(i) if numbers[j] <= n), default=0))
        return max(best, default=0)
        """,
    ),
    Function(
        "Product of the others",
        "products(numbers: list[int]) -> list[int]",
        "returns for each position the product of all other numbers.",
        [[1, 2, 3, 4], [5, 2], [0, 3, 4], [0, 0, 1], [-1, 1, -1]],
        """
        result = []
        for i in range(len(numbers)):
            product = 1
            for j, n in enumerate(numbers):
                if j != i:
                    product *= n
            result.append(product)
        return result
        """,
        """
        product = 1
        for n in numbers:
            product *= n
        return [product // n if n else 0 for n in numbers]
        """,
    ),
)

VALIDATION = (
    Function(
        "Merge sorted lists",
        "merge_sorted(a: list[int], b: list[int]) -> list[int]",
        "merges two sorted lists into one sorted list, keeping repeated values.",
        [([1, 3], [2, 4]), ([], []), ([1], []), ([1, 1], [1]), ([5, 6], [1, 2, 9])],
        """
        result, i, j = [], 0, 0
        while i < len(a) or j < len(b):
            if j == len(b) or (i < len(a) and a[i] <= b[j]):
                result.append(a[i])
                i += 1
            else:
                result.append(b[j])
                j += 1
        return result
        """,
        "return sorted(set(a) | set(b))",
    ),
    Function(
        "Spiral order",
        "spiral(matrix: list[list[int]]) -> list[int]",
        "returns the elements of a matrix in clockwise spiral order from the top left.",
        [
            [[1, 2], [3, 4]],
            [[7]],
            [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
            [[1, 2, 3]],
            [[1], [2], [3]],
            [[1, 2, 3], [4, 5, 6]],
        ],
        """
        result = []
        while matrix:
            result += matrix[0]
            matrix = [list(row) for row in zip(*matrix[1:])][::-1]
        return result
        """,
        """
        result = []
        for i, row in enumerate(matrix):
            result += row if i % 2 == 0 else row[::-1]
        return result
        """,
        in_class=True,
    ),
    Function(
        "Third largest",
        "third_largest(numbers: list[int]) -> int | None",
        "returns the third largest distinct number, or None if there are fewer than three.",
        [[5, 3, 9, 1], [1, 2], [], [4, 4, 4, 2, 1], [-1, -2, -3], [2, 2, 1]],
        """
        distinct = sorted(set(numbers))
        return distinct[-3] if len(distinct) >= 3 else None
        """,
        "return sorted(numbers)[-3] if len(numbers) >= 3 else None",
    ),
    Function(
        "Non-neighbour sum",
        "best_loot(values: list[int]) -> int",
        "returns the largest sum of values no two of which are neighbours in the list.",
        [[2, 7, 9, 3, 1], [], [5], [2, 1, 1, 2], [4, 4], [1, 9, 1, 9, 9]],
        """
        take, skip = 0, 0
        for value in values:
            take, skip = skip + value, max(take, skip)
        return max(take, skip)
        """,
        "return max(sum(values[::2]), sum(values[1::2]))",
    ),
)
