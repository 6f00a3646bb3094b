"""The starter set: small Python problems written for this project, in LiveCodeBench's rows.

problems.jsonl is what is served, solutions.jsonl holds a right and a wrong solution of each. Both
are written by `python -m rlif_jax.data.sets.starter.make` from the modules beside it: to add a
problem, add a `Function` or a `Program` to one of their TRAIN or VALIDATION tuples and run it.
"""
