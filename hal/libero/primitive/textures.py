"""The pack's textures, drawn from seeded noise and shapes so that the same code writes the same pixels."""

import cv2
import numpy as np

Image = np.ndarray

FACE = 64
"""Side of a label in pixels. Labels carry pictures and no words: LIBERO's camera images are mirrored."""


def _grain(height: int, width: int, cells: tuple[int, int], seed: int) -> Image:
    """Smooth noise in [-1, 1] with `cells` (rows, columns) of detail: streaks when the two differ."""
    coarse = np.random.default_rng(seed).uniform(-1, 1, cells).astype(np.float32)
    return np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), -1, 1)


def _tinted(shade: Image, rgb: tuple[int, int, int]) -> Image:
    """uint8 RGB of one colour, darkened and lightened by `shade` (0 leaves it)."""
    return np.clip((1 + shade[..., None]) * np.array(rgb), 0, 255).astype(np.uint8)


def wood(rgb: tuple[int, int, int], seed: int, size: int = 128) -> Image:
    streaks = 0.05 * _grain(size, size, (size // 3, 4), seed) + 0.05 * _grain(size, size, (14, 2), seed + 1)
    return _tinted(streaks, rgb)


def planks(rgb: tuple[int, int, int], seed: int, size: int = 256) -> Image:
    """Four rows of boards along the image's width, every other row shifted, with light joints."""
    shade = np.zeros((size, size), np.float32)
    joints = np.zeros((size, size), bool)
    width = size // 4
    tones = np.random.default_rng(seed).uniform(-0.12, 0.12, (4, 2))
    for column in range(4):
        strip = slice(column * width, (column + 1) * width)
        rows = (np.arange(size) + (size // 2 if column % 2 else 0) // 2) % size
        board = np.where(rows < size // 2, tones[column, 0], tones[column, 1])[:, None]
        shade[:, strip] = board + 0.12 * _grain(size, width, (6, width // 2), seed + column)
        joints[rows % (size // 2) < 2, strip] = True
        joints[:, strip.start : strip.start + 2] = True
    image = _tinted(shade, rgb)
    image[joints] = 0.5 * image[joints] + 0.5 * np.array([226, 218, 208])
    return np.ascontiguousarray(image.swapaxes(0, 1))


def plaster(rgb: tuple[int, int, int], seed: int, size: int = 128) -> Image:
    return _tinted(0.03 * _grain(size, size, (32, 32), seed), rgb)


def brushed_metal(rgb: tuple[int, int, int], seed: int, size: int = 128) -> Image:
    return _tinted(0.08 * _grain(size, size, (size, 3), seed), rgb)


def _face(rgb: tuple[int, int, int]) -> Image:
    return np.full((FACE, FACE, 3), rgb, np.uint8)


def _milk() -> Image:
    face = _face((245, 245, 240))
    face[:20] = (205, 40, 40)
    for centre, axes in (((14, 32), (9, 6)), ((44, 36), (12, 7)), ((24, 46), (7, 5))):
        cv2.ellipse(face, centre, axes, 0, 0, 360, (40, 40, 45), -1)
    face[54:] = (90, 170, 80)
    return face


def _juice() -> Image:
    face = _face((250, 200, 60))
    face[:14] = (60, 150, 60)
    cv2.circle(face, (32, 40), 18, (240, 120, 20), -1)
    cv2.circle(face, (32, 40), 14, (255, 170, 70), -1)
    for x, y in ((13, 0), (9, 9), (0, 13), (-9, 9)):
        cv2.line(face, (32 - x, 40 - y), (32 + x, 40 + y), (240, 120, 20), 2)
    return face


def _butter() -> Image:
    face = _face((225, 80, 30))
    face[14:50] = (250, 215, 90)
    cv2.rectangle(face, (16, 22), (47, 42), (255, 240, 160), -1)
    for column in (24, 32, 40):
        cv2.line(face, (column, 22), (column, 42), (225, 165, 50), 1)
    return face


def _cream_cheese() -> Image:
    face = _face((150, 185, 230))
    cv2.ellipse(face, (32, 32), (27, 21), 0, 0, 360, (40, 70, 160), -1)
    cv2.ellipse(face, (32, 34), (17, 11), 0, 0, 360, (245, 245, 235), -1)
    cv2.ellipse(face, (32, 30), (9, 6), 0, 0, 360, (225, 228, 225), -1)
    return face


def _pudding() -> Image:
    face = _face((105, 60, 35))
    face[46:] = (235, 220, 190)
    cv2.ellipse(face, (32, 40), (22, 26), 0, 180, 360, (60, 30, 18), -1)
    cv2.ellipse(face, (32, 22), (11, 7), 0, 0, 360, (240, 232, 215), -1)
    return face


def _cookies() -> Image:
    face = _face((190, 35, 35))
    face[52:] = (240, 230, 210)
    cv2.circle(face, (32, 27), 20, (222, 170, 95), -1)
    for column, row in ((24, 20), (37, 18), (30, 30), (41, 31), (25, 38)):
        cv2.circle(face, (column, row), 3, (80, 45, 25), -1)
    return face


def sides_labelled(label: Image, cap: tuple[int, int, int]) -> Image:
    """A cube strip (right, left, up, down, front, back) for a carton that stands along y."""
    return np.hstack([label, label, _face(cap), _face(cap), label, label])


def top_labelled(label: Image, side: tuple[int, int, int]) -> Image:
    """A cube strip for a box that lies with its label towards z."""
    return np.hstack([_face(side)] * 4 + [label] * 2)


# Floor and wall go by the file names that LIBERO substitutes for its default styles.
TEXTURES = {
    "light-gray-floor-tile.png": lambda: planks((142, 128, 118), seed=1),
    "light-gray-plaster.png": lambda: plaster((226, 226, 222), seed=2),
    "table_wood.png": lambda: wood((222, 203, 178), seed=3),
    "cabinet_wood.png": lambda: wood((112, 72, 46), seed=4),
    "drawer_wood.png": lambda: wood((140, 94, 62), seed=7),
    "basket_wood.png": lambda: wood((201, 152, 88), seed=5),
    "metal.png": lambda: brushed_metal((172, 174, 178), seed=6),
    "milk.png": lambda: sides_labelled(_milk(), (235, 235, 230)),
    "orange_juice.png": lambda: sides_labelled(_juice(), (250, 190, 40)),
    "butter.png": lambda: top_labelled(_butter(), (225, 80, 30)),
    "cream_cheese.png": lambda: top_labelled(_cream_cheese(), (150, 185, 230)),
    "chocolate_pudding.png": lambda: top_labelled(_pudding(), (105, 60, 35)),
    "cookies.png": lambda: top_labelled(_cookies(), (190, 35, 35)),
}

CUBE_STRIPS = {"milk", "orange_juice", "butter", "cream_cheese", "chocolate_pudding", "cookies"}


def png(image: Image) -> bytes:
    """RGB to PNG bytes."""
    written, data = cv2.imencode(".png", image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not written:
        raise RuntimeError("OpenCV could not encode a PNG: is its PNG codec built in?")
    return data.tobytes()
