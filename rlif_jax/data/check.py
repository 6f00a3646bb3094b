"""Check a file of problems before it is trained or evaluated on.

python -m rlif_jax.data.check FILE.jsonl [--against livecodebench_v5 humaneval] [--json OUT.json]
"""

from rlif_jax.checking import main

if __name__ == "__main__":
    main()
