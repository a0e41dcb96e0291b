"""Folders of audio -> a bank of log-mel frames: `prepare` writes it, `bank` reads it."""
