"""The bundled weights, their card, and what made them (`python -m weights.corpus.build`)."""
