"""What the stages of a configuration need on a slice, found by compiling them without it.

`ahead` compiles for TPU topologies that are only described; `hlo` reads the optimised text of what
XLA compiled; `traffic` counts what that moves through main memory and between chips.
"""
