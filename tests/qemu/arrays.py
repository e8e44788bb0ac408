"""Expected contents of a test: a few written pieces in an otherwise zero disk of any size."""

import numpy as np

from qbprop_model.data import Bytes


class Pieces:
    """Contents made of pieces of bytes by offset; zero elsewhere."""

    def __init__(self, size: int, pieces: dict[int, bytes]) -> None:
        self.size = size
        self._pieces = pieces

    def written(self) -> list[tuple[int, int]]:
        return sorted((start, start + len(data)) for start, data in self._pieces.items())

    def render(self, offset: int, length: int) -> Bytes:
        data = np.zeros(length, np.uint8)
        for start, piece in self._pieces.items():
            low, high = max(start, offset), min(start + len(piece), offset + length)
            if low < high:
                values = np.frombuffer(piece, np.uint8)
                data[low - offset : high - offset] = values[low - start : high - start]
        return data

    def origin(self, offset: int) -> int | None:
        return next((s for s, e in self.written() if s <= offset < e), None)
