"""The tasks: which clips of a pool, which label, and which groups must not be divided."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from . import game_pools, music_pools, sound_pools, speech_pools
from .pools import Facts, Pool, Recipe

# Letters whose name is about the same in most languages of klettres that use the Latin script.
LETTERS = frozenset("abdfgiklmnoprstu")
REACTIONS = {
    "ow": "pain", "ouch": "pain", "ooff": "blow", "jump": "effort", "laugh": "laugh",
    "hmm": "doubt", "nooo": "dismay", "uh-oh": "dismay", "oops": "dismay",
}  # fmt: skip
Select = Callable[[Facts], tuple[str, str] | None]


@dataclasses.dataclass(frozen=True)
class Task:
    """A classification task on the clips of a pool.

    `select` returns (label, group) of a clip, or None for a clip that does not take part. The
    same group never is in both training and test data, nor in training and validation data.
    """

    name: str
    recipe: Recipe
    label: str
    group: str
    select: Select
    fewest: int = 1
    """Labels with fewer clips are left out."""
    tuned: bool = True
    """Whether settings of the weights (training, block, pooling) were chosen with this task."""

    def data(self, pool: Pool) -> TaskData:
        """Pick clips, labels and groups from the pool."""
        chosen = [(index, self.select(facts)) for index, facts in enumerate(pool.facts)]
        kept = [(index, *pair) for index, pair in chosen if pair is not None]
        counts = Counter(label for _, label, _ in kept)
        kept = [clip for clip in kept if counts[clip[1]] >= self.fewest]
        if not kept:
            raise ValueError(f"the pool {pool.name} holds no clip for the task {self.name}")
        indices, labels, groups = zip(*kept, strict=True)
        classes = sorted(set(labels))
        return TaskData(
            self.name,
            np.array(indices),
            np.array([classes.index(label) for label in labels]),
            np.array(groups),
            tuple(classes),
        )


@dataclasses.dataclass(frozen=True)
class TaskData:
    """A task's clips.

    Shape:
        - indices: (n,) positions in the pool
        - labels: (n,) positions in `classes`
        - groups: (n,) strings
    """

    name: str
    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]
    classes: tuple[str, ...]

    @property
    def chance(self) -> float:
        """Accuracy in percent of always answering the most frequent label."""
        return 100 * float(np.bincount(self.labels).max()) / len(self.labels)


def _facts(label: str, group: str) -> Select:
    """Label and group by the names of the facts that hold them."""
    return lambda facts: (facts[label], facts[group])


def _letter(facts: Facts) -> tuple[str, str] | None:
    if facts["text"] not in LETTERS:
        return None
    return facts["text"], facts["language"].removesuffix("_GB")


def _reaction(facts: Facts) -> tuple[str, str] | None:
    label = REACTIONS.get(facts["phrase"].rstrip("0123456789"))
    return (label, speech_pools.cast(facts["pack"])) if label else None


def _pitch(facts: Facts) -> tuple[str, str] | None:
    if (facts["font"], facts["program"]) in music_pools.OFF_PITCH:
        return None
    return facts["pitch"], facts["program"]


def _family(facts: Facts) -> tuple[str, str] | None:
    if facts["family"] in music_pools.NO_FAMILY:
        return None
    return facts["family"], facts["program"]


def _effect(*folders: str) -> Select:
    """Label of the effects of some folders; the group is what their takes share, or the take."""

    def select(facts: Facts) -> tuple[str, str] | None:
        if not facts["folder"].startswith(folders):
            return None
        return facts["label"], facts.get("group") or facts["take"]

    return select


def _kind(facts: Facts) -> tuple[str, str] | None:
    recording = facts["recording"]
    # Of speech it is a voice pack or a language, whose variants may share speakers.
    return facts["kind"], speech_pools.cast(recording) if facts["kind"] == "speech" else recording


TASKS = {
    task.name: task
    for task in (
        Task("letters", speech_pools.LETTERS, "letter", "language (its speakers)", _letter),
        Task(
            "words", speech_pools.WORDS_POOL, "word", "speaker of the synthetic voice",
            _facts("word", "speaker"),
        ),
        Task("reactions", speech_pools.VOICES_POOL, "vocal reaction", "voice packs", _reaction),
        Task(
            "speaker", speech_pools.VOICES_POOL, "voice pack", "phrase",
            lambda facts: (facts["pack"], facts["phrase"].rstrip("0123456789")),
        ),
        Task(
            "language", speech_pools.LANGUAGES, "language (and its speakers)", "letter or syllable",
            _facts("language", "text"),
        ),
        Task(
            "crowd", speech_pools.CROWDS, "number of voices at once", "three or four casts",
            _facts("voices", "group"),
        ),
        Task(
            "chords", music_pools.CHORDS_POOL, "kind of chord", "program, both fonts",
            _facts("chord", "program"),
        ),
        Task("pitch", music_pools.NOTES, "MIDI pitch", "program, both fonts", _pitch),
        Task("instrument", music_pools.NOTES, "family", "program, both fonts", _family),
        Task(
            "percussion", music_pools.DRUMS_POOL, "kind of drum", "kit",
            _facts("drum", "kit"),
        ),
        Task(
            "events", sound_pools.EVENTS, "kind of sound", "recording",
            _facts("kind", "recording"),
        ),
        Task(
            "keys", sound_pools.KEYS, "row of the keyboard", "key",
            _facts("row", "key"), fewest=10,
        ),
        Task(
            "kinds", sound_pools.KINDS, "speech, music or sound",
            "recording, or speakers of a language or voice packs", _kind,
        ),
        Task(
            "animals", game_pools.EFFECTS_POOL, "animal", "take", _effect("actor/fauna"),
            fewest=4, tuned=False,
        ),
        Task(
            "material", game_pools.EFFECTS_POOL, "what is hit", "what hits it",
            _effect("attack/impact"), tuned=False,
        ),
        Task(
            "weapon", game_pools.EFFECTS_POOL, "weapon", "take", _effect("attack/weapon"),
            tuned=False,
        ),
        Task(
            "work", game_pools.EFFECTS_POOL, "tool and matter", "take", _effect("resource"),
            tuned=False,
        ),
        Task(
            "sex", game_pools.COMMANDS_POOL, "woman or man", "language (and its two speakers)",
            _facts("sex", "language"), tuned=False,
        ),
    )
}  # fmt: skip
