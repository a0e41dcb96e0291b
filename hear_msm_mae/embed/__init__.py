"""Embedding of any number of recordings: inputs -> cut -> pipeline -> journal -> outputs.

`inputs` finds the recordings, `cut` turns each of them into units of log-mel frames (in reader
threads), `pipeline` encodes the units of many recordings in batches, `records` is the iterator
for Python, `run` writes a table and can be interrupted at any time (`journal`), `outputs` and
`tables` are the file formats, `cluster` does the same on Ray.
"""
