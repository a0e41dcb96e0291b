"""Classifiers on embeddings of labelled recordings, and search for similar sounds.

`labels` reads labelled recordings, `features` embeds them, `fit` trains linear classifiers, and
`evaluate` scores them. `probe` calls all of these and writes the classifier as a `head`. `predict`
labels other recordings with a head, and `events` joins neighbouring windows with the same label.
`search` finds the nearest windows in an `index`. `page` writes results as HTML. `loading` loads the
model that made an output.
"""
