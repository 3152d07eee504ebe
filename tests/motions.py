"""Walking bodies as BVH text after the public layouts of the tools that write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

ROLES = {  # parent, offset in cm with y up and z ahead
    "hips": ("", (0, 0, 0)),
    "thigh.L": ("hips", (9, -4, 0)), "shin.L": ("thigh.L", (0, -42, 0)),
    "foot.L": ("shin.L", (0, -40, 0)), "toe.L": ("foot.L", (0, -6, 13)),
    "thigh.R": ("hips", (-9, -4, 0)), "shin.R": ("thigh.R", (0, -42, 0)),
    "foot.R": ("shin.R", (0, -40, 0)), "toe.R": ("foot.R", (0, -6, 13)),
    "spine": ("hips", (0, 11, -1)), "chest": ("spine", (0, 21, 1)), "neck": ("chest", (0, 19, 1)),
    "head": ("neck", (0, 9, 2)),
    "collar.L": ("chest", (3, 14, 1)), "arm.L": ("collar.L", (13, 0, -2)),
    "forearm.L": ("arm.L", (28, 0, 0)), "hand.L": ("forearm.L", (25, 0, 0)),
    "collar.R": ("chest", (-3, 14, 1)), "arm.R": ("collar.R", (-13, 0, -2)),
    "forearm.R": ("arm.R", (-28, 0, 0)), "hand.R": ("forearm.R", (-25, 0, 0)),
}  # fmt: skip
ENDS = {
    "toe.L": (0, 0, 6),
    "toe.R": (0, 0, 6),
    "head": (0, 17, 2),
    "hand.L": (15, 0, 0),
    "hand.R": (-15, 0, 0),
}
SIDED = ("thigh", "shin", "foot", "toe", "collar", "arm", "forearm", "hand")


def names(left: str, right: str, **words: str) -> dict[str, str]:
    """Role -> name: patterns with {} for limbs of each side, and a word for each role."""
    result = {}
    for role in ROLES:
        part, _, side = role.partition(".")
        pattern = {"L": left, "R": right, "": "{}"}[side]
        result[role] = pattern.format(words.get(part, part))
    return result


@dataclass(frozen=True)
class Tool:
    """Layout of the files of one tool."""

    names: dict[str, str]
    order: str = "ZXY"
    arms: str = ""
    """Order of the axes of the arms, where it is another one."""
    fps: int = 30
    unit: float = 1.0
    """Units in a centimetre."""
    up: str = "y"
    everywhere: bool = False
    """Position channels on every joint."""
    offsets: str = "rest"
    """rest, or zero or wrong where position channels replace them."""
    above: Sequence[str] = ()
    """Joints over the hips; the first may carry the body over the floor ("+root")."""
    ends: bool = True
    """End sites."""
    keywords: str = "usual"
    beside: Sequence[str] = field(default=())
    """Joints that hang on the first one beside the body, without bones."""


MIXAMO = names("mixamorig:Left{}", "mixamorig:Right{}", hips="mixamorig:Hips", thigh="UpLeg",
    shin="Leg", foot="Foot", toe="ToeBase", spine="mixamorig:Spine", chest="mixamorig:Spine1",
    neck="mixamorig:Neck", head="mixamorig:Head", collar="Shoulder", arm="Arm", forearm="ForeArm",
    hand="Hand")  # fmt: skip
BUILDER = names("Left{}", "Right{}", hips="Hips", thigh="UpLeg", shin="Leg", foot="Foot",
    toe="ToeBase", spine="Spine", chest="Spine1", neck="Neck", head="Head", collar="Shoulder",
    arm="Arm", forearm="ForeArm", hand="Hand")  # fmt: skip
TOOLS = {
    "cmu": Tool(BUILDER, "ZYX", fps=120, unit=1 / 5.64),
    "motionbuilder": Tool(BUILDER, "ZXY", everywhere=True, above=["Reference"]),
    "blender": Tool(names("{}.L", "{}.R", thigh="thigh", arm="upper_arm"), "XYZ", fps=24,
        unit=0.01, up="z"),
    "mixamo": Tool(MIXAMO, "XYZ", everywhere=True),
    "rokoko": Tool(names("Left{}", "Right{}", hips="Hips", thigh="Thigh", shin="Shin", foot="Foot",
        toe="Toe", spine="Spine1", chest="Spine4", neck="Neck", head="Head", collar="Shoulder",
        arm="Arm", forearm="ForeArm", hand="Hand"), "YXZ", fps=100, keywords="upper"),
    "xsens": Tool(names("Left{}", "Right{}", hips="Hips", thigh="Hip", shin="Knee", foot="Ankle",
        toe="Toe", spine="Chest", chest="Chest4", neck="Neck", head="Head", collar="Collar",
        arm="Shoulder", forearm="Elbow", hand="Wrist"), "ZXY", arms="YXZ", fps=60),
    "neuron": Tool(BUILDER, "YXZ", fps=125, everywhere=True, offsets="wrong"),
    "3dsmax": Tool(names("Bip01 L {}", "Bip01 R {}", hips="Bip01 Pelvis", thigh="Thigh",
        shin="Calf", foot="Foot", toe="Toe0", spine="Bip01 Spine", chest="Bip01 Spine1",
        neck="Bip01 Neck", head="Bip01 Head", collar="Clavicle", arm="UpperArm", forearm="Forearm",
        hand="Hand"), "ZXY", unit=1 / 2.54, up="z", above=["+Bip01"], ends=False),
    "deepmotion": Tool(names("l_{}_JNT", "r_{}_JNT", hips="hips_JNT", thigh="upleg", shin="leg",
        foot="foot", toe="toebase", spine="spine_JNT", chest="spine1_JNT", neck="neck_JNT",
        head="head_JNT", collar="shoulder", arm="arm", forearm="forearm", hand="hand"), "XYZ",
        everywhere=True, offsets="zero", above=["root"], keywords="lower"),
    "unreal": Tool(names("{}_l", "{}_r", hips="pelvis", thigh="thigh", shin="calf", foot="foot",
        toe="ball", spine="spine_01", chest="spine_02", neck="neck_01", head="head",
        collar="clavicle", arm="upperarm", forearm="lowerarm", hand="hand"), "ZYX", up="z",
        everywhere=True, above=["+root"], beside=["ik_foot_root", "ik_hand_root"]),
}  # fmt: skip


def walk(
    frames: int, fps: float, seed: int = 0
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Local rotations by role, rotations and places of the hips: a walk along a bend, in cm."""
    t = np.arange(frames) / fps + seed * 0.37
    phase = 2 * np.pi * 0.9 * t
    turn: dict[str, np.ndarray] = {role: np.zeros((frames, 3)) for role in ROLES}
    for side, shift in (("L", 0.0), ("R", np.pi)):
        swing = np.sin(phase + shift)
        turn[f"thigh.{side}"][:, 0] = -24 * swing - 4
        turn[f"shin.{side}"][:, 0] = 22 - 22 * np.cos(phase + shift + 0.4)
        turn[f"foot.{side}"][:, 0] = -8 * np.cos(phase + shift)
        turn[f"arm.{side}"][:, 0] = 20 * swing
        turn[f"arm.{side}"][:, 2] = -68 if side == "L" else 68
        turn[f"forearm.{side}"][:, 1] = (-18 if side == "L" else 18) - 8 * swing
    turn["spine"][:, 1] = 5 * np.sin(phase)
    turn["head"][:, 1] = 6 * np.sin(0.7 * phase)
    heading = 25 * t
    hips = np.stack([heading, 2 * np.sin(2 * phase), 2 * np.sin(phase)], -1)
    ahead = np.radians(heading)
    places = np.cumsum(np.stack([np.sin(ahead), 0 * t, np.cos(ahead)], -1) * 110 / fps, 0)
    places[:, 1] = 92 + 1.5 * np.cos(2 * phase)
    local = {r: Rotation.from_euler("XYZ", v, degrees=True).as_matrix() for r, v in turn.items()}
    return local, Rotation.from_euler("YXZ", hips, degrees=True).as_matrix(), places


class Writer:
    """Text of one file, joint after joint."""

    def __init__(self, tool: Tool, frames: int, seed: int, scale: float) -> None:
        self.tool, self.frames = tool, frames
        self.local, self.hips, self.places = walk(frames, tool.fps, seed)
        is_y = tool.up == "y"
        self.basis = np.eye(3) if is_y else np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0.0]])
        self.unit = tool.unit * scale
        words = ["HIERARCHY", "ROOT", "JOINT", "End Site", "OFFSET", "CHANNELS"]
        if tool.keywords != "usual":
            words = [getattr(word, tool.keywords)() for word in words]
        self.words, self.lines = words, [words[0]]
        self.rows: list[np.ndarray] = []

    def begin(
        self, name: str, depth: int, bone: np.ndarray, turned: np.ndarray, order: str,
        moved: np.ndarray | None,
    ) -> None:  # fmt: skip
        """A joint, but for what is below it."""
        pad, tool = "\t" * depth, self.tool
        if tool.offsets == "zero":
            bone = bone * 0
        if tool.offsets == "wrong" and depth and moved is not None:
            bone = bone * 0.5
        own = [f"{axis}position" for axis in "XYZ"] if moved is not None else []
        own += [f"{axis}rotation" for axis in order]
        if tool.keywords == "lower":
            own = [channel.lower() for channel in own]
        self.lines += [f"{pad}{self.words[2 if depth else 1]} {name}", pad + "{"]
        self.lines += [f"{pad}\t{self.words[4]} " + " ".join(f"{v:.6f}" for v in bone)]
        self.lines += [f"{pad}\t{self.words[5]} {len(own)} {' '.join(own)}"]
        if moved is not None:
            self.rows.append(np.broadcast_to(moved, (self.frames, 3)))
        self.rows.append(Rotation.from_matrix(turned).as_euler(order, degrees=True))

    def role(self, name: str, depth: int) -> None:
        """A joint of the body, and those below it."""
        tool, basis = self.tool, self.basis
        bone = basis @ np.array(ROLES[name][1], float) * self.unit
        turned, moved = self.local[name], bone if tool.everywhere else None
        if name == "hips":
            turned, bone, moved = self.hips, bone * 0, self.places
            if tool.above and tool.above[0].startswith("+"):
                moved = self.places * [0, 1, 0] if tool.everywhere else None
            moved = None if moved is None else moved @ basis.T * self.unit
        order = tool.arms if tool.arms and "arm" in name else tool.order
        self.begin(tool.names[name], depth, bone, basis @ turned @ basis.T, order, moved)
        for below, (parent, _) in ROLES.items():
            if parent == name:
                self.role(below, depth + 1)
        pad = "\t" * depth
        if name in ENDS and tool.ends:
            tip = basis @ np.array(ENDS[name], float) * self.unit
            offset = " ".join(f"{v:.6f}" for v in tip)
            self.lines += [f"{pad}\t{self.words[3]}", pad + "\t{"]
            self.lines += [f"{pad}\t\t{self.words[4]} {offset}", pad + "\t}"]
        self.lines.append(pad + "}")

    def whole(self) -> str:
        """The file."""
        tool, still = self.tool, np.broadcast_to(np.eye(3), (self.frames, 3, 3))
        if tool.above:
            ground = self.places * [1, 0, 1] if tool.everywhere else self.places
            carries = tool.above[0].startswith("+")
            moved = ground @ self.basis.T * self.unit if carries else np.zeros(3)
            self.begin(tool.above[0].strip("+"), 0, np.zeros(3), still, tool.order, moved)
            self.role("hips", 1)
            for name in tool.beside:
                self.begin(name, 1, np.zeros(3), still, tool.order, np.zeros(3))
                self.lines.append("\t}")
            self.lines.append("}")
        else:
            self.role("hips", 0)
        self.lines += ["MOTION", f"Frames: {self.frames}", f"Frame Time: {1 / tool.fps:.6f}"]
        rows = np.concatenate(self.rows, 1)
        self.lines += [" ".join(f"{v:.6f}" for v in row) for row in rows]
        return "\n".join(self.lines) + "\n"


def text(tool: Tool, frames: int = 60, seed: int = 0, scale: float = 1.0) -> str:
    """A file of that tool; `scale` makes another body."""
    return Writer(tool, frames, seed, scale).whole()
