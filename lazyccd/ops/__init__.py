"""Operations on frames: what users call, as functions and as methods of ``ds.ccd``.

An operation takes a frame, a tree of frames or a CCDData, and returns the same kind. It computes nothing: it reads the plan of
its frame, makes it one step longer and returns a frame of the longer plan. So a file here checks arguments and chooses a
kernel; the arithmetic on pixels is in `lazyccd.kernels`, and what steps are is in `lazyccd.plan`.

Begin with `arithmetic`, the shortest complete example, and `decorator`, which all operations share. `instrument` removes what
a detector leaves in its images, `stack` combines many frames into one, `mosaic` puts amplifiers and detectors together.
Decisions about whole nights do not belong here but in `lazyccd.batch`; nor does reading and writing, in `lazyccd.io`.

The names of ``__init__.pyi`` are imported at their first use: whoever combines needs no mosaics.
"""

import lazy_loader as _lazy_loader

__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)
