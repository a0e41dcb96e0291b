"""Embedding of any number of recordings: sources -> pieces -> the engine -> store -> output.

`sources` finds the recordings and `lists` reads tables of them. `cutting` decodes a recording into
pieces; `pieces` does so in reader threads and passes the pieces to the model. `store` keeps the
results on the disk, so that a run can be interrupted at any time. At the end they are written, as a
`table` in one of the `formats`. `run` calls all of these, `records` is the iterator for Python, and
`ray` embeds on a cluster.
"""
