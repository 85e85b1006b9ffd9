"""Plans: what is to be computed, as data, and the engine that computes one region of it in one task.

A reduction is a plan, and a task pulls one output region through the whole plan. Nothing is exchanged between neighbouring
chunks: a step that needs a neighbourhood asks its input for a larger region, down to the file. One task per chunk took 4.5 s
where `map_blocks` and `map_overlap`, with 39 tasks per chunk, took 33.4 s (16384 x 16384 pixels, two processes).

Here belong steps, footprints, evaluation, dask graphs, cost and chunk policy. What a frame is, units and headers do not: a
plan knows planes of pixels only. Kernels know neither plans nor chunks, and files stand behind the protocol in `storage`.

Begin with `steps` and `footprints`, then `schedule` and `evaluate` (inside a task), then `tasks` and `lower` (the graph).
"""
