"""Fine-tuning: a classifier and its encoder learn from labelled recordings together.

`settings` are those of a run, `sides` divides the recordings, `crops` draws batches from the
log-mel spectrograms, `network` is the encoder with a classifier on top, `train` is the loop, on the
steps and checkpoints of pretraining; `finetune` puts it together and compares with a probe. It
stands above `answers`, from which it has labels, splits, scores and the page, and above `pretrain`.
"""
