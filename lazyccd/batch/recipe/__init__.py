"""Recipes: what is done to a night, as data that a user reads, edits and keeps beside the frames.

`recipe` has the `Recipe` itself, which `lazyccd.batch.calibrate` walks step by step; the built-in one is the default of its
fields, and needs none of the other files. `rules` says of each operation where it belongs in the order, and looks its parameters
up in the operation's signature. `document` reads YAML with the line of each key, `schema` checks what was read and collects
all faults, `printed` writes a recipe with comments.

How an operation changes pixels does not belong here, but in `lazyccd.ops`; nor does which master a frame gets, in
`lazyccd.batch.associate`. Begin with `recipe`, then `rules`.
"""
