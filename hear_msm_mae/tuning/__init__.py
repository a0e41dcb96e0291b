"""Fine-tuning: train the encoder and a classifier together on labelled recordings.

`finetune` is the public function. `run` splits the recordings, trains and compares with a probe:
`crops` draws batches from log-mel spectrograms, `network` is the encoder with a classifier, `train`
is the loop. Labels, scores and the page come from `answers`, steps and
checkpoints from `pretrain`.
"""
