"""Operations of matrix products: hand-written instructions, and what XLA makes of products."""

import jax
import jax.numpy as jnp
import pytest

from rlif_jax.planning.hlo import Module
from rlif_jax.planning.products import Products


def flops_of(line: str, *parameters: str) -> int:
    """Operations of `%out = line`, an instruction of parameters %p0, %p1, ... of these types."""
    names = "".join(f"  %p{i} = {type_} parameter({i})\n" for i, type_ in enumerate(parameters))
    text = f"ENTRY %main () -> f32[] {{\n{names}  ROOT %out = {line}\n}}\n"
    module = Module.parse(text)
    here = module.computations["main"]
    return Products(module).flops(here, here.instructions["out"])


def flops_of_entry(text: str) -> int:
    """Operations of all instructions of a module's entry, which calls fusions alone."""
    module = Module.parse(text)
    products, main = Products(module), module.computations[module.entry]
    return sum(products.flops(main, op) for op in main.instructions.values())


@pytest.mark.parametrize(
    "line, x, y, flops",
    [
        (
            "f32[5,7]{1,0} dot(%p0, %p1), lhs_contracting_dims={1}, rhs_contracting_dims={0}",
            "f32[5,3]{1,0}",
            "f32[3,7]{1,0}",
            2 * 5 * 7 * 3,
        ),
        (
            "f32[4,5,7]{2,1,0} dot(%p0, %p1), lhs_batch_dims={0}, lhs_contracting_dims={2}, "
            "rhs_batch_dims={0}, rhs_contracting_dims={1}",
            "f32[4,5,3]{2,1,0}",
            "f32[4,3,7]{2,1,0}",
            2 * 4 * 5 * 7 * 3,
        ),
        (
            "bf16[5,7]{1,0} dot(%p0, %p1), lhs_contracting_dims={1,2}, rhs_contracting_dims={0,1}",
            "bf16[5,2,3]{2,1,0}",
            "bf16[2,3,7]{2,1,0}",
            2 * 5 * 7 * 2 * 3,
        ),
        (  # an outer product
            "f32[5,7]{1,0} dot(%p0, %p1), lhs_contracting_dims={}, rhs_contracting_dims={}",
            "f32[5]{0}",
            "f32[7]{0}",
            2 * 5 * 7,
        ),
    ],
)
def test_dots(line, x, y, flops):
    assert flops_of(line, x, y) == flops


@pytest.mark.parametrize(
    "line, x, y, flops",
    [
        (
            "f32[5,7]{1,0} convolution(%p0, %p1), dim_labels=bf_io->bf",
            "f32[5,3]{1,0}",
            "f32[3,7]{1,0}",
            2 * 5 * 7 * 3,
        ),
        (  # 5 x (4, 6) by (4, 6) x 7: the window goes over 4, and sums it up
            "bf16[5,7,1]{0,1,2} convolution(%p0, %p1), window={size=4}, dim_labels=b0f_0io->bf0",
            "bf16[5,4,6]{2,1,0}",
            "bf16[4,6,7]{2,1,0}",
            2 * 5 * 7 * 4 * 6,
        ),
        (  # 5 x 3 by 3 x (4, 8): each of the four places meets the one entry once
            "bf16[5,4,8]{2,1,0} convolution(%p0, %p1), window={size=4 pad=3_3 rhs_reversal=1}, "
            "dim_labels=bf0_0io->b0f",
            "bf16[5,3,1]{1,0,2}",
            "bf16[4,3,8]{2,1,0}",
            2 * 5 * 3 * 4 * 8,
        ),
        (  # four products of 5 x 3 by 3 x 7: dilated, the window meets one entry at each place
            "f32[5,4,7]{2,1,0} convolution(%p0, %p1), window={size=4 stride=3 lhs_dilate=4}, "
            "dim_labels=b0f_0io->b0f",
            "f32[5,4,3]{2,1,0}",
            "f32[4,3,7]{2,1,0}",
            2 * 4 * 5 * 7 * 3,
        ),
        (  # a true convolution: ends meet two of the window's three entries, the middle three
            "f32[2,6,7]{2,1,0} convolution(%p0, %p1), window={size=3 pad=1_1}, "
            "dim_labels=b0f_0io->b0f",
            "f32[2,6,5]{2,1,0}",
            "f32[3,5,7]{2,1,0}",
            2 * 2 * 5 * 7 * (2 + 4 * 3 + 2),
        ),
        (  # the window's two entries stand two apart: the last of five places meets one
            "f32[2,5,7]{2,1,0} convolution(%p0, %p1), window={size=2 pad=0_1 rhs_dilate=2}, "
            "dim_labels=b0f_0io->b0f",
            "f32[2,6,5]{2,1,0}",
            "f32[2,5,7]{2,1,0}",
            2 * 2 * 5 * 7 * (4 * 2 + 1),
        ),
        (  # two axes with windows; each group of features sees three of six
            "f32[2,4,1,8]{3,2,1,0} convolution(%p0, %p1), window={size=1x3}, "
            "dim_labels=b01f_01io->b01f, feature_group_count=2",
            "f32[2,4,3,6]{3,2,1,0}",
            "f32[1,3,3,8]{3,2,1,0}",
            2 * 2 * 4 * 3 * 3 * 8,
        ),
        (  # each group of examples makes a half of the features
            "f32[2,8]{1,0} convolution(%p0, %p1), dim_labels=bf_io->bf, batch_group_count=2",
            "f32[4,3]{1,0}",
            "f32[3,8]{1,0}",
            2 * 2 * 3 * 8,
        ),
    ],
)
def test_convolutions(line, x, y, flops):
    assert flops_of(line, x, y) == flops


@pytest.mark.parametrize(
    "form, x, kernel",
    [
        (
            {"window_strides": (2,), "padding": [(3, 1)], "lhs_dilation": (3,)}
            | {"rhs_dilation": (2,)},
            (4, 9, 6),
            (3, 6, 8),
        ),
        (
            {"window_strides": (1, 2), "padding": [(1, 1), (0, 2)], "feature_group_count": 2},
            (4, 9, 7, 6),
            (3, 2, 3, 8),
        ),
        (
            {"window_strides": (1,), "padding": [(2, 2)], "batch_group_count": 2},
            (4, 9, 6),
            (3, 6, 8),
        ),
        ({"window_strides": (2,), "padding": [(-1, -2)]}, (4, 19, 6), (3, 6, 8)),
    ],
)
def test_convolutions_as_xla_counts_them(form, x, kernel):
    axes = "HW"[: len(x) - 2]
    dimensions = f"N{axes}C", f"{axes}IO", f"N{axes}C"

    def stage(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, dimension_numbers=dimensions, **form)

    compiled = jax.jit(stage).lower(jnp.zeros(x), jnp.zeros(kernel)).compile()
    assert flops_of_entry(compiled.as_text()) == compiled.cost_analysis()["flops"]


def test_other_instructions_multiply_no_matrices():
    assert flops_of("f32[5]{0} multiply(%p0, %p0)", "f32[5]{0}") == 0
    assert flops_of('f32[5]{0} custom-call(%p0), custom_call_target="f"', "f32[5]{0}") == 0


def test_products_inside_fusions_count():
    product = (
        "  %x.{0} = f32[5,3]{{1,0}} parameter(0)\n  %y.{0} = f32[3,7]{{1,0}} parameter(1)\n"
        "  ROOT %o.{0} = f32[5,7]{{1,0}} {1}\n"
    )
    dot = "dot(%x.1, %y.1), lhs_contracting_dims={1}, rhs_contracting_dims={0}"
    fusion = "fusion(%x.{0}, %y.{0}), kind=kOutput, calls=%{1}"
    text = (
        f"%inner (x: f32[5,3], y: f32[3,7]) -> f32[5,7] {{\n{product.format(1, dot)}}}\n"
        f"%outer (x: f32[5,3], y: f32[3,7]) -> f32[5,7] {{\n"
        f"{product.format(2, fusion.format(2, 'inner'))}}}\n"
        f"ENTRY %main (x: f32[5,3], y: f32[3,7]) -> f32[5,7] {{\n"
        f"{product.format(3, fusion.format(3, 'outer'))}}}\n"
    )
    module = Module.parse(text)
    main = module.computations["main"]
    assert Products(module).flops(main, main.instructions["o.3"]) == 2 * 5 * 3 * 7


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    "subscripts, x, y, flops",
    [
        ("TD,DF->TF", (64, 96), (96, 160), 2 * 64 * 96 * 160),
        ("BTA,BSA->BTS", (3, 64, 32), (3, 48, 32), 2 * 3 * 64 * 32 * 48),
        ("TD,DHA->HTA", (64, 96), (96, 4, 32), 2 * 64 * 96 * 4 * 32),
        ("THA,HAD->TD", (64, 4, 32), (4, 32, 96), 2 * 64 * 4 * 32 * 96),
        ("D,DF->F", (96,), (96, 160), 2 * 96 * 160),
    ],
)
def test_what_xla_for_cpus_makes_of_products(subscripts, x, y, flops, dtype):
    def stage(x, y):
        return jnp.einsum(subscripts, jnp.tanh(x), y)

    args = jnp.zeros(x, dtype), jnp.zeros(y, dtype)
    assert flops_of_entry(jax.jit(stage).lower(*args).compile().as_text()) == flops
