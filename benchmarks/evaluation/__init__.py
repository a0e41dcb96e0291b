"""Tasks, probe and contestants of the quality benchmark."""
