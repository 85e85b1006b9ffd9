"""Whole nights: from a folder of files to calibrated products, with a reason for every decision.

Here belongs what concerns a frame because of the other frames of its night: what it is, which calibrations it gets, in which
order products are made, what is reported. What changes pixels belongs into `lazyccd.ops`, how files are laid out into
`lazyccd.io`. Begin with `night_plan`: its types are all that the other modules exchange.

A night goes through the modules in this order: `collect` finds files and reads their headers; `cameras` and `metadata` turn
keywords into facts, `classify` into a type; `make_plan` groups calibrations and asks `associate` which master each frame gets
(`existing_masters` adds those of other nights, `table` a plan that was edited by hand). `run` carries the plan out: `measure`
gets gain and read noise from pairs, `make_masters` makes masters, `open_master` opens those that exist, `calibrate` reduces
exposures, for which `exposures` joins the images of a file and `cosmic_rays` decides what is cleaned; `resume` remembers what is
done. `report` prints plan and results; `reduce` does all of it in one call.
"""
