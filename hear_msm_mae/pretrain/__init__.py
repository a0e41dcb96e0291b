"""Pretraining.

`parsing` reads `settings`, `sampling` draws batches from the corpus, `objectives` has models and
losses, `step` updates the weights, and `train` is the loop. `snapshots` are the checkpoints.
`evaluate`, `reporting` and `scalars` measure a run, and `export` writes its weights.
"""
