"""Reconstructions, attention maps, and reports about folders, as pictures and sound.

Only this package and `pretrain` use the decoder of the masked autoencoder. The HEAR functions
import neither of them.
"""
