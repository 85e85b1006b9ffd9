"""Operations on frames."""

from lazyccd.ops.arithmetic import add, divide, multiply, subtract
from lazyccd.ops.blocks import block_average, block_reduce, block_replicate
from lazyccd.ops.calibrate import create_deviation, flat_correct, gain_correct, subtract_bias, subtract_dark
from lazyccd.ops.combining import combine
from lazyccd.ops.cosmicrays import cosmicray_lacosmic
from lazyccd.ops.edit import rechunk, settle, with_header, with_mask, with_uncertainty, with_unit
from lazyccd.ops.masks import bitfield_to_boolean_mask, flag_saturated
from lazyccd.ops.overscan import subtract_overscan, trim_image
from lazyccd.ops.process import ccd_process
from lazyccd.ops.transform import transform_image

__all__ = [
    "add",
    "bitfield_to_boolean_mask",
    "block_average",
    "block_reduce",
    "block_replicate",
    "ccd_process",
    "combine",
    "cosmicray_lacosmic",
    "create_deviation",
    "divide",
    "flag_saturated",
    "flat_correct",
    "gain_correct",
    "multiply",
    "rechunk",
    "settle",
    "subtract",
    "subtract_bias",
    "subtract_dark",
    "subtract_overscan",
    "transform_image",
    "trim_image",
    "with_header",
    "with_mask",
    "with_uncertainty",
    "with_unit",
]
