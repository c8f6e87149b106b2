"""Pictures as openpi's clients send them. Resizing is Pillow's, so that it is theirs to the bit.

Source: openpi_client.image_tools.resize_with_pad, which is tf.image.resize_with_pad for uint8.
"""

from __future__ import annotations

import numpy as np


def resize_with_pad(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8[..., H, W, 3] fitted into uint8[..., height, width, 3], its aspect kept, black where it does not reach."""
    from PIL import Image

    if picture.shape[-3:-1] == (height, width):
        return picture
    flat = picture.reshape(-1, *picture.shape[-3:])
    fitted = np.zeros((len(flat), height, width, 3), np.uint8)
    for one, into in zip(flat, fitted, strict=True):
        whole = Image.fromarray(one)
        ratio = max(whole.width / width, whole.height / height)
        small = whole.resize((int(whole.width / ratio), int(whole.height / ratio)), resample=Image.Resampling.BILINEAR)
        top, left = (height - small.height) // 2, (width - small.width) // 2
        into[top : top + small.height, left : left + small.width] = np.asarray(small)
    return fitted.reshape(*picture.shape[:-3], height, width, 3)


def rotate_180(picture: np.ndarray) -> np.ndarray:
    """Half a turn: both axes reversed."""
    return picture[..., ::-1, ::-1, :]
