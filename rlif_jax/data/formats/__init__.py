"""Rows of every published schema to problems.

- detect: which schema a row has, and the problem of any row; own: your own problems
- livecodebench (also the stored form), humaneval, mbpp, leetcode, mixed (SYNTHETIC-1, Eurus-2),
  contest (APPS, TACO, code_contests): one schema each; evalplus: the inputs of HumanEval+ and MBPP+
- lines: the lines of JSONL files; fields, cases, packed: fields, tests and packed tests of rows
"""
