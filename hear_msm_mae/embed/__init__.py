"""Embedding of any number of recordings: sources -> pieces -> the engine -> store -> output.

`sources` finds the recordings (`lists` reads tables of them), `pieces` cuts them in reader threads,
passes the pieces to the model's engine and yields results, `store` keeps what is done, `run` puts
it together and can be interrupted at any time, `table` and `formats` are the outputs, `records` is
the iterator for Python, `ray` does the same on a cluster.
"""
