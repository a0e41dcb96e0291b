"""From embeddings to answers: classifiers on labelled recordings, and similar sounds.

`labels` reads labelled recordings, `features` embeds them once, `fit` fits and scores linear
classifiers, `evaluate` reports on them, `probe` puts it together and `head` is the file that it
leaves; `predict` labels other recordings with it and `events` joins what is labelled alike.
`search` finds the nearest stretches in an output of `embed`. `page` writes results as HTML.
`loading` loads the model that made an output again.
"""
