"""Fine-tuning: train the encoder and a classifier together on labelled recordings.

`settings` has the settings of a run, `sides` splits the recordings, `crops` draws batches from the
log-mel spectrograms, `network` is the encoder with a classifier, `train` is the loop. `finetune`
calls these and compares the result with a probe. Labels, splits, scores and the page come from
`answers`, steps and checkpoints from `pretrain`.
"""
