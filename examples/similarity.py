"""Print the cosine similarities of the embeddings in an .npz file made by `hear-msm-mae embed`."""

import sys
from pathlib import Path

import numpy as np


def main(path: str) -> None:
    with np.load(path) as file:
        names = [Path(name).stem for name in file["paths"]]
        embeddings, seconds = file["embeddings"], file["seconds"]
    # Embeddings of one model have a large common part, which would hide their differences.
    centred = embeddings - embeddings.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    width = max(map(len, names))
    print(f"\nCosine similarity of {len(names)} clips (mean embedding removed), {path}:\n")
    print(" " * (width + 8) + "".join(f"{index:>7d}" for index in range(len(names))))
    for index, row in enumerate(unit @ unit.T):
        cells = "".join(f"{value:7.2f}" for value in row)
        print(f"{index:2d} {names[index]:{width}s} {seconds[index]:4.1f}s{cells}")
    print(f"\n{embeddings.shape[0]} embeddings of size {embeddings.shape[1]} in {path}")


if __name__ == "__main__":
    main(sys.argv[1])
