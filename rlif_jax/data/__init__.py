"""Problems and prompts: from published rows to the token batches of a training step.

- formats/: rows of every published schema to problems; sets/: problem sets by name, stored once
- prompts, prompt_styles, chat_template: problems to prompts; extract: the program in a completion
- selection, dates, overlap, errata: which problems are used; training, pipeline: steps of a run
- findings, faults: what is wrong with a file of problems, row by row
"""
