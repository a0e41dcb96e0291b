"""The pretraining corpus of the bundled weights: its sources, licences and builder."""
