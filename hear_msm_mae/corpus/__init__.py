"""Folders of audio -> a corpus of log-mel frames for pretraining."""
