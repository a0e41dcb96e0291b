"""Pictures and sound of what a model sees: reconstructions, attention maps, reports on folders.

Like `pretrain` this is driven by the command line, and it is the one other place that knows the
masked autoencoder, because reconstructions need its decoder. The HEAR functions import neither.
"""
