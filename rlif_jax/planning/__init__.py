"""What the stages of a configuration need on a slice, found by compiling them without it.

`ahead` compiles for TPU topologies that are only described; `hlo` reads the optimised text of what
XLA compiled. `counts` says what a whole stage does: the operations of its `products`, its `traffic`
through main memory, and its `collectives`.
"""
