"""Pretraining: corpus preparation, masked autoencoder, training loop."""
