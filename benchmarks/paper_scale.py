"""The paper's settings compiled ahead of time for TPU slices that this machine does not have.

    python -m benchmarks.paper_scale [--only Qwen3] [--topology v5e]

Prints one JSON line for the scorer and one for the update of each setting: GiB a chip (arguments,
temporaries and all that is held at a time, beside what the chip has) and GB that a chip moves
through its memory for one row of tokens. Libtpu compiles; no TPU is needed. It takes one to four
minutes a setting.
"""

import argparse
import json
import os
import time
from typing import Any

import jax

from rlif_jax.planning.ahead import compile_with_text, total_bytes
from rlif_jax.planning.traffic import bytes_per_step
from tests.support.paper_settings import GIB_OF_CHIP, SETTINGS, lowered

GIB = 2**30


def main() -> None:
    """Compile what was asked for and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="models whose name has this")
    parser.add_argument("--topology", default="", help="slices whose name has this")
    args = parser.parse_args()
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    jax.config.update("jax_platforms", "cpu")
    for setting in SETTINGS:
        if args.only not in setting.model or args.topology not in setting.topology:
            continue
        for stage, form, one in lowered(setting):
            start = time.perf_counter()
            compiled, text = compile_with_text(one)
            seconds = time.perf_counter() - start
            memory: Any = compiled.memory_analysis()
            figure = {
                "figure": f"{stage}, {setting.name}",
                "columns": form.columns,
                "arguments_gib": round(memory.argument_size_in_bytes / GIB, 2),
                "temporaries_gib": round(memory.temp_size_in_bytes / GIB, 2),
                "total_gib": round(total_bytes(compiled) / GIB, 2),
                "chip_gib": GIB_OF_CHIP[setting.topology.split(":")[0]],
                "gb_moved_a_row": round(bytes_per_step(text) / 1e9, 1),
                "compiled_in_s": round(seconds),
            }
            print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    main()
