"""Draw the layers of the code: ``python docs/draw_layers.py`` writes ``_static/layers.svg``."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

TARGET = Path(__file__).parent / "_static" / "layers.svg"

LAYERS = (
    (
        "cli/   accessor   plot   demo   rejection   pixel_history   plan_report",
        "the faces: commands, ds.ccd, pictures, reports, public names",
        "#e8eef7",
    ),
    (
        "batch/   ccdproc/",
        "a night: classify, associate, make masters, reduce; ccdproc's names for its scripts",
        "#dde7f3",
    ),
    ("ops/", "the operations: check arguments and units, add steps to a plan", "#d2e0ef"),
    ("io/   stats", "FITS, Zarr, resumable writes; exact statistics of whole images", "#c7d9eb"),
    ("frame/", "what a valid frame is: Image, header, units, WCS, trees", "#bcd2e7"),
    ("plan/", "steps, footprints, schedule, evaluation, cost; the only maker of dask graphs", "#b1cbe3"),
    ("kernels/", "NumPy in, NumPy out: numba loops on one block", "#a6c4df"),
    ("errors   sections   mask_planes", "messages, regions, what each bit means", "#9bbddb"),
)
WIDTH, ROW, GAP, LEFT = 760, 46, 8, 20


def box(number: int, names: str, what: str, colour: str) -> str:
    """Return one layer as SVG."""
    y = GAP + number * (ROW + GAP)
    return (
        f'<rect x="{LEFT}" y="{y}" width="{WIDTH}" height="{ROW}" rx="4" fill="{colour}" stroke="#4a6785"/>\n'
        f'<text x="{LEFT + 14}" y="{y + 19}" font-family="monospace" font-size="14" font-weight="bold" '
        f'xml:space="preserve" fill="#1a2a3a">{escape(names)}</text>\n'
        f'<text x="{LEFT + 14}" y="{y + 37}" font-family="sans-serif" font-size="13" fill="#1a2a3a">{escape(what)}</text>'
    )


def draw() -> str:
    """Return the picture as SVG."""
    height = GAP + len(LAYERS) * (ROW + GAP)
    x, label = LEFT + WIDTH + 26, LEFT + WIDTH + 46
    boxes = "\n".join(box(number, *layer) for number, layer in enumerate(LAYERS))
    middle = height // 2
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + 100} {height}" role="img">
<title>The layers of lazyccd, from the faces at the top to the kernels at the bottom; imports go down only.</title>
<rect width="100%" height="100%" fill="white"/>
{boxes}
<path d="M {x} {GAP} V {height - 18}" stroke="#4a6785" stroke-width="2"/>
<path d="M {x - 6} {height - 20} L {x} {height - GAP} L {x + 6} {height - 20} Z" fill="#4a6785"/>
<text x="{label}" y="{middle}" font-family="sans-serif" font-size="13" fill="#1a2a3a" text-anchor="middle"
 transform="rotate(90 {label} {middle})">imports go down only</text>
</svg>
"""


if __name__ == "__main__":
    TARGET.write_text(draw())
