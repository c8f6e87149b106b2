"""What can be said of a distillation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tactus.hal.config import Config, Count, Positive, Share

Method = Literal["reflow", "consistency"]


class DistillationConfig(Config):
    """Training of a student."""

    method: Method = "reflow"
    """reflow: straight lines between noise and the teacher's chunks; consistency: one end for all of a way"""
    num_steps: Count = 1
    """denoising steps of the student, saved in its config"""
    steps: Count = 20_000
    """optimiser steps, both stages together"""
    one_step_stage: Share = 0.5
    """share of the steps that the second stage has, which trains mostly at t = 1, where a one-step student is asked"""
    batch: Count = 256
    """pairs in a step"""
    optimizer: Literal["muon", "adamw"] = "muon"
    """muon: for the matrices, AdamW for all else; learns more from as many steps, each of which costs more"""
    learning_rate: Positive = 2e-3
    """at its highest; it rises for 100 steps and falls to 0 as a cosine"""
    average: Share = 0.999
    """share that the running average of the weights, which is what is saved, keeps at each step; it warms up"""
    pairs: Count | None = 40_000
    """noises the teacher makes chunks of, once, to disk; null: anew at every step"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 trains under autocast"""
    save_every: Count = 1000
    """optimiser steps after which the state is saved, to go on from"""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """of pairs, their order and times"""
