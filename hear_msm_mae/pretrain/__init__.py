"""Pretraining.

`parsing` reads `settings`, `sampling` draws batches from the corpus with numbers of `randomness`,
`augmentation` changes them, `objectives` has models and losses, `step` updates the weights, and
`train` is the loop. `snapshots` are the checkpoints. `evaluate` and `reporting` measure a run, and
`export` writes its weights.
"""
