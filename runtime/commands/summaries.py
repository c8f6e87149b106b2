"""What each command is for, in a line; its module has its name."""

SUMMARIES = {
    "serve": "policy node: load a policy and answer robots over ZeroMQ",
    "run": "robot node in real time, against a policy node",
    "eval": "evaluation in virtual time: any latency, repeatable to the bit",
    "record": "episodes as eval or run has them, written as a LeRobotDataset",
    "teleop": "a leader arm or keys drive the robot; --dataset_root records it",
    "replay": "recorded actions, played on the robot",
    "calibrate": "find an arm's calibration with your help, or write a file to its servos",
    "doctor": "look at ports, servos and cameras without moving anything: what is wrong, and the fix",
    "stop": "emergency stop for every robot that a policy node serves",
    "twin": "an emulated rig: arms on serial ports, a table with physics, cameras; any program can talk to it",
    "replay-flight": "a flight record through queue and policy again: bit for bit the same, or where not",
    "why": "which observation, chunk, blend and limit produced a recorded action",
    "trace": "a policy's inference stage by stage, in a file: to compare with another program's",
    "report": "what a sweep found: a page, figures, tables, and which setting to choose",
    "compare": "two traces of a policy's inference: the first stage that differs, and what explains it",
    "offline": "a policy's chunks on a LeRobotDataset, beside what was done there: errors, latency, a report",
    "train": "lerobot-train on recordings: frames in memory, as many steps as fit into the time, resumable",
    "distill": "a student of one denoising step from a flow policy of ten, and the proof that it is as good",
    "distill-verify": "a student beside its teacher: what it was trained on, errors, spread, success; why it fails",
    "rl": "practice: a flow policy plays, learns from what succeeds, and is held to initial states it has not seen",
    "plan": "how many workers rollouts should have on this machine, what limits them, what more would take",
    "keygen": "a key pair for a policy node or a robot: encryption, and who may connect",
    "schema": "the JSON Schema of config files, with which editors complete and check them",
    "completion": "a script that lets a shell complete commands, keys and types",
}
"""A module each, whose `main(config, arguments)` returns the exit status; imported only when it is asked for."""
