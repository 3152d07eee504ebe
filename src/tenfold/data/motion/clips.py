"""Motion clips, lazy windows over them, the published test protocols, and checks for readers."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from tenfold.printable import printable

PROTOCOL_SEED = 1234567890  # of LearnTrajDep and everything after it
PROTOCOL_PAST = 50  # frames that the older protocols observe; ours are the last `past` of them
MAX_TEXT_BYTES = 2**28


@dataclass(frozen=True)
class Clip:
    """One continuous motion at the frame rate of the model."""

    name: str
    """Split, action and file, such as "test/walking/walking_1", which files of one name in several
    folders share."""
    action: str
    """Action, the unit over which errors are averaged first."""
    positions: Float[np.ndarray, "frames joints 3"]
    """Positions of all joints in mm, float32."""
    fps: float
    """True frames per second (after any sub-sampling)."""


class Windows:
    """All sub-sequences of ``length`` frames of some clips (or those at ``starts``), cut on demand.

    ``clip`` and ``start`` say for each window which clip it is from and its first frame there.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        length: int,
        starts: Sequence[Int[np.ndarray, " _"]] | None = None,
    ) -> None:
        if not clips:
            raise ValueError("windows need at least one clip, got none. Check the data's path.")
        for clip in clips[1:]:
            if clip.positions.shape[1] != clips[0].positions.shape[1]:
                raise ValueError(
                    f"clip {clip.name} has {clip.positions.shape[1]} joints, but {clips[0].name} "
                    f"has {clips[0].positions.shape[1]}. Use clips of one skeleton."
                )
        if starts is None:
            starts = [np.arange(len(clip.positions) - length + 1) for clip in clips]
        for clip, where in zip(clips, starts, strict=True):
            if len(where) and not 0 <= where.min() <= where.max() <= len(clip.positions) - length:
                raise ValueError(
                    f"clip {clip.name} has {len(clip.positions)} frames, too few for windows of "
                    f"{length} frames at {where.min()} to {where.max()}. Shorten the windows."
                )
        self.clips = tuple(clips)
        self.length = length
        self.clip = np.repeat(np.arange(len(clips)), [len(where) for where in starts])
        self.start = np.concatenate(list(starts)).astype(np.int64)
        self._frames = np.concatenate([clip.positions for clip in clips])
        first = np.cumsum([0] + [len(clip.positions) for clip in clips[:-1]])
        self._first = first[self.clip] + self.start

    def __len__(self) -> int:
        return len(self.start)

    def gather(self, indices: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n length joints 3"]:
        """The windows of these indices, in mm, float32."""
        return self._frames[self._first[indices][:, None] + np.arange(self.length)]

    def by_action(self) -> dict[str, Int[np.ndarray, " _"]]:
        """Indices of the windows of each action, actions in the order of the clips."""
        names = [clip.action for clip in self.clips]
        return {
            name: np.flatnonzero(np.isin(self.clip, [i for i, n in enumerate(names) if n == name]))
            for name in dict.fromkeys(names)
        }


def protocol_starts(
    frames: Sequence[int], data: str, protocol: str, past: int, length: int
) -> list[Int[np.ndarray, " _"]]:
    """First frames of the test windows that a named protocol takes from the clips of one action.

    ``frames`` are the clips' lengths after sub-sampling: for Human3.6M's 256 and 8 the two
    sub-actions of one subject, else any clips. ``all``: every window (3DPW: those with 50 frames
    before the future). ``256``: Human3.6M, 128 a sub-action. ``8``: 4 a sub-action of Human3.6M,
    8 a file of CMU. Source: official `find_indices_256`, `find_indices_srnn`.
    """
    if past > PROTOCOL_PAST and (protocol != "all" or data == "3dpw"):
        raise ValueError(
            f"protocol {protocol!r} of {data} observes {PROTOCOL_PAST} frames, but data.past is "
            f"{past}. Reduce data.past."
        )
    if protocol == "all":
        skip = PROTOCOL_PAST - past if data == "3dpw" else 0
        return [np.arange(skip, max(count - length + 1, skip)) for count in frames]
    known = {("h36m", "256"): 128, ("h36m", "8"): 4, ("cmu_mocap", "8"): 8}
    if (data, protocol) not in known:
        options = ["all", *(name for set_, name in known if set_ == data)]
        raise ValueError(
            f"protocol {protocol!r} is not defined for {data}; published are {', '.join(options)}. "
            "Set data.protocol to one of these."
        )
    draws, low, margin = known[data, protocol], 0, 75
    if data == "h36m":
        low, margin = 16, 150
        if len(frames) != 2:
            raise ValueError(
                f"protocol {protocol!r} of h36m needs both sub-actions of an action, got "
                f"{len(frames)} clips. Use data.protocol=all."
            )
    for count in frames:
        if count - margin <= low or count - margin + PROTOCOL_PAST - past + length - 1 > count:
            raise ValueError(
                f"protocol {protocol!r} of {data} needs clips of more than {low + margin} frames "
                f"and windows of at most {margin - PROTOCOL_PAST + past + 1}, got a clip of "
                f"{count} and windows of {length}. Use data.protocol=all."
            )
    if data == "h36m":  # one generator, drawn alternately for both sub-actions
        random = np.random.RandomState(PROTOCOL_SEED)
        drawn = [[random.randint(low, n - margin) for n in frames] for _ in range(draws)]
        return list(np.array(drawn).T + PROTOCOL_PAST - past)
    return [
        np.random.RandomState(PROTOCOL_SEED).randint(low, n - margin, draws) + PROTOCOL_PAST - past
        for n in frames
    ]


def protocol_windows(
    clips: Sequence[Clip], data: str, protocol: str, past: int, length: int
) -> Windows:
    """The test windows of a named protocol over all clips; see ``protocol_starts``."""
    starts: dict[int, Int[np.ndarray, " _"]] = {}
    groups: dict[str, list[int]] = {}
    for i, clip in enumerate(clips):
        # Human3.6M draws for the sub-actions S5/walking_1 and S5/walking_2 together
        groups.setdefault(re.sub(r"_\d+$", "", clip.name), []).append(i)
    for group in groups.values():
        frames = [len(clips[i].positions) for i in group]
        found = protocol_starts(frames, data, protocol, past, length)
        starts.update(zip(group, found, strict=True))
    return Windows(clips, length, [starts[i] for i in range(len(clips))])


def holdout(clips: Sequence[Clip], share: float, length: int) -> tuple[list[Clip], list[Clip]]:
    """Training and validation clips: the last ``share`` of each action's windows is held out.

    An action is cut once, in clip order, so at most one of its clips is shared, and no window of
    ``length`` frames of one side holds a frame of the other. (ours)
    """
    counts = [max(len(clip.positions) - length + 1, 0) for clip in clips]
    wanted: dict[str, int] = {}
    for clip, count in zip(clips, counts, strict=True):
        wanted[clip.action] = wanted.get(clip.action, 0) + count
    wanted = {action: round(share * count) for action, count in wanted.items()}
    if share > 0 and not any(wanted.values()):
        raise ValueError(
            f"a share of {share} of {sum(counts)} windows leaves none to validate on. "
            "Raise data.holdout or add clips."
        )
    train, validation = [], []
    for clip, count in reversed(list(zip(clips, counts, strict=True))):
        take = min(wanted[clip.action], count)
        wanted[clip.action] -= take
        cut = len(clip.positions) - (take + length - 1) if take else len(clip.positions)
        if take:
            validation.append(replace(clip, positions=clip.positions[cut:]))
        if cut >= length:
            train.append(replace(clip, positions=clip.positions[:cut]))
    return train[::-1], validation[::-1]


def read_table(path: Path, columns: int) -> Float[np.ndarray, "frames columns"]:
    """Read comma separated numbers, one frame a line; errors name file and line."""
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise ValueError(
            f"{path} has {path.stat().st_size} bytes, more than the {MAX_TEXT_BYTES} that a text "
            "file of motion may have. Split it, or check that it is one."
        )
    try:
        lines = [line for line in path.read_text(encoding="ascii").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not a text file of numbers: {error}. Check the path."
        ) from None
    for number, line in enumerate(lines, 1):
        if line.count(",") + 1 != columns:
            cut = " The file seems cut off: copy it again." if number == len(lines) > 1 else ""
            raise ValueError(
                f"{path} line {number} has {line.count(',') + 1} values, expected {columns} (3 "
                f"translations and {columns // 3 - 1} joints).{cut or ' Check the file.'}"
            )
    if not lines:
        raise ValueError(f"{path} holds no frames. Copy it again or remove it.")
    table = np.empty((len(lines), columns))
    for number, line in enumerate(lines, 1):
        for column, value in enumerate(line.split(",")):
            try:
                table[number - 1, column] = float(value)
            except ValueError as error:
                raise ValueError(
                    f"{path} line {number} holds {printable(value.strip())!r}, which is not a "
                    "number. Repair or remove the file."
                ) from error
    check_table(table, columns, str(path), unit="line", first=1)
    return table


def check_table(
    table: np.ndarray, columns: int, source: str, unit: str = "frame", first: int = 0
) -> None:
    """Refuse arrays that are not (frames, columns) of finite numbers, naming the first bad row."""
    if table.ndim != 2 or table.shape[1] != columns or table.dtype.kind != "f":
        raise ValueError(
            f"{source} holds a {table.dtype} array of shape {table.shape}, expected floats of "
            f"shape (frames, {columns}). Check that it is of this skeleton."
        )
    bad = np.flatnonzero(~np.isfinite(table).all(axis=1))
    if len(bad):
        column = int(np.flatnonzero(~np.isfinite(table[bad[0]]))[0])
        raise ValueError(
            f"{source} {unit} {bad[0] + first} holds {table[bad[0], column]} in column {column} "
            f"({len(bad)} bad {unit}s); all values must be finite. Repair or remove it."
        )


def check_frames(frames: int, needed: int, source: str, every: int = 1) -> None:
    """Refuse a clip with fewer frames than a window, before any are cut."""
    if frames < needed:
        kept = f" after taking every {every}nd" if every == 2 else ""
        raise ValueError(
            f"{source} has {frames} frames{kept}, but data.past + data.future = {needed} are "
            "needed. Reduce data.past or data.future, or remove the file."
        )


def check_names(names: Iterable[str], known: Iterable[str], what: str, source: str) -> None:
    """Refuse a name that is not known, naming the nearest that is."""
    known = list(known)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            hint = f" The nearest is {near[0]!r}." if near else ""
            raise ValueError(
                f"{source}: unknown {what} {name!r}; known are {', '.join(known)}.{hint}"
            )
