"""What the stages of a configuration need on a slice, found by compiling them without it.

`stages` lowers what a run compiles for chips that are only described (`ahead`, `chips`), and
`compiled` keeps what XLA makes of it. `hlo` reads the optimised text; `counts` says what a whole
stage does: the operations of its `products`, its `traffic` through main memory, its `collectives`.
`lengths` and `rollout` say how long a step's responses are and how the sampler would draw them;
`step_work` and `estimate` turn all this into the seconds of a step. `fit` says what has no room and
what to change, `search` tries meshes and settings, and `report` prints.
"""
