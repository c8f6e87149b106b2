"""The twin's MuJoCo model: the table of scene.xml with one or more arms on it, each driven by six STS3215."""

# mujoco's names are made in C, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mujoco

from tactus.hal.robot import RobotError
from tactus.hal.twin.config import JOINTS

STALL_NM = 2.94
"""Torque of an STS3215 that is held still: 30 kg·cm at 12 V (Feetech's data sheet)."""
NO_LOAD_RAD_S = 5.0
"""Speed of an unloaded STS3215: 0.222 s per 60 degrees at 7.4 V, 47 to 52 rpm (Feetech's data sheet)."""
STIFFNESS_NM_RAD = 220.0
"""Of the servo's position loop: a stretched arm's weight, 0.7 Nm, costs it 0.2 degrees."""
LOOP_DAMPING_NM_S_RAD = 5.0
"""Of the position loop, close to critical for the inertia of an arm on its geared rotor."""
DRAG_NM_S_RAD = STALL_NM / NO_LOAD_RAD_S
"""Back-EMF of a driven motor: what is left of the stall torque falls to 0 at the no-load speed."""
LIMP_NM_S_RAD, FRICTION_NM = 0.25, 0.08
"""Of the gear train with the torque off, and its dry friction."""
ROTOR_KG_M2 = 0.028
"""Inertia of the motor's rotor as the joint feels it through the gears; a joint with a larger one keeps its own."""
SPACING_M = 0.5
"""From one arm's base to the next one's; the first stands at the origin, the others to its right."""
ARM = Path(__file__).parent / "so101.xml"
TABLE = Path(__file__).parent / "scene.xml"
NEUTRAL = {"leader": (0.55, 0.58, 0.62, 1.0)}
"""Colour of the printed parts of an arm that a person moves, by the arm's name."""


def build(arms: Sequence[str] = ("arm",), model: Path | str | None = None) -> mujoco.MjModel:
    """The compiled model. Every name of an arm's model is prefixed `<arm>_`.

    model: an MJCF of one arm to use instead of so101.xml, standing on its origin's xy plane; its joints must have the
    names of JOINTS and a range each; actuators of its own are dropped. RobotError if it cannot be had.
    """
    if not arms or len(set(arms)) != len(arms):
        raise RobotError(f"the twin's arms must have names of their own; found {', '.join(arms) or 'none'}")
    path = Path(model) if model else ARM
    scene = mujoco.MjSpec.from_file(str(TABLE))
    for index, name in enumerate(arms):
        arm = _load(path)
        if path == ARM and name in NEUTRAL:
            for geom in arm.geoms:
                if geom.classname.name == "printed":
                    geom.rgba = NEUTRAL[name]
        frame = scene.worldbody.add_frame(pos=[0.0, -SPACING_M * index, 0.0])
        scene.attach(arm, prefix=f"{name}_", frame=frame)
        for joint in JOINTS:
            _add_servo(scene, f"{name}_{joint}")
    try:
        compiled = scene.compile()
    except ValueError as error:
        raise RobotError(f"{path}: MuJoCo cannot compile this arm on the twin's table: {error}") from error
    for name in arms:
        for joint in JOINTS:
            [dof] = compiled.joint(f"{name}_{joint}").dofadr
            compiled.dof_damping[dof], compiled.dof_frictionloss[dof] = LIMP_NM_S_RAD, FRICTION_NM
            compiled.dof_armature[dof] = max(compiled.dof_armature[dof], ROTOR_KG_M2)
    return compiled


def _load(path: Path) -> mujoco.MjSpec:
    try:
        arm = mujoco.MjSpec.from_file(str(path))
    except (ValueError, OSError) as error:
        raise RobotError(f"{path}: not a model MuJoCo can load: {error}") from error
    found = {joint.name: joint for joint in arm.joints}
    missing = [name for name in JOINTS if name not in found]
    if missing:
        raise RobotError(
            f"{path}: no joint named {', '.join(missing)}; found {', '.join(found) or 'none'}; "
            f"expected {', '.join(JOINTS)}"
        )
    for name in JOINTS:
        low, high = found[name].range
        if high <= low:
            raise RobotError(f"{path}: joint {name} has no range; the emulated servo's travel comes from it")
    for actuator in list(arm.actuators):
        arm.delete(actuator)
    return arm


def _add_servo(scene: mujoco.MjSpec, joint: str) -> None:
    """A position loop whose torque is limited; World changes the limit with what the servo's registers say."""
    servo = scene.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    servo.gaintype, servo.biastype = mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtBias.mjBIAS_AFFINE
    servo.gainprm[0] = STIFFNESS_NM_RAD
    servo.biasprm[1:3] = -STIFFNESS_NM_RAD, -LOOP_DAMPING_NM_S_RAD
    servo.forcelimited, servo.forcerange = mujoco.mjtLimited.mjLIMITED_TRUE, [-STALL_NM, STALL_NM]
