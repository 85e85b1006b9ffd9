"""Read and write Zarr v3 stores by whole shards, locally and behind URLs.

Reading: `open` makes frames of groups; ``reader`` reads regions, by ``shards`` where the layout is ours and by zarr otherwise.

Writing: `write` has `to_zarr`; ``writer`` lays out groups and writes shards as a resumable write, ``location`` puts files into a
folder or behind a URL. ``attributes`` says in the root how the image was made, ``pyramid`` adds levels.

Begin with `open.open_zarr` or `write.to_zarr`; ``docs/format.md`` has the layout. ``running_sums`` is not an archive: it holds
the sums of a running stack (`lazyccd.ops.stack.running`).
"""
