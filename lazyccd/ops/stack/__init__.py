"""Stacks: `combine`, `Combiner`, `RunningStack` and `register`.

What belongs here is the way from what a caller says to the lazy stack: which frames are meant, in which unit and place, which
rule they are combined by, and in which form the result is given back. Arithmetic on pixels does not belong here: that is
`lazyccd.kernels.stack`.

Begin with `combine.combine`. `inputs` opens and checks the frames, `offsets` puts them in place, `scaling` finds scales, zero
points and weights, `rejection` has the rejection rules and says how to add one. `combiner` is ccdproc's class over the same
parts; `running` keeps a mean or sum on disk, which grows frame by frame.
"""
