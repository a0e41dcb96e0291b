"""Pretraining.

`parsing` reads `settings`, `sampling` draws batches from the corpus, `objectives` are the models
and losses, `step` updates the weights, `train` is the loop; `snapshots` keep what a run needs to
continue, `evaluate`, `reporting` and `scalars` watch it, `export` writes its weights.
"""
