"""Which functions of a program its other parts can call, read from its ELF file."""

from pathlib import Path

import numpy as np

_HEADER = np.dtype(
    {
        "names": ["magic", "sections", "count"],
        "formats": ["S6", "<u8", "<u2"],
        "offsets": [0, 0x28, 0x3C],
        "itemsize": 64,
    }
)
_SECTION = np.dtype(
    {
        "names": ["type", "offset", "size", "link"],
        "formats": ["<u4", "<u8", "<u8", "<u4"],
        "offsets": [4, 24, 32, 40],
        "itemsize": 64,
    }
)
_SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("_", "V16")]
)

_64_BIT_LITTLE_ENDIAN = b"\x7fELF\x02\x01"
_SYMBOL_TABLES = (2, 11)
_GLOBAL_FUNCTION, _WEAK_FUNCTION = 0x12, 0x22


def global_functions(program: Path) -> frozenset[str]:
    """The names of its functions with external linkage; none if it is no such file.

    A stripped program that loads modules has the same ones as one with all symbols: what is
    static differs from build to build.
    """
    data = program.read_bytes()
    if len(data) < _HEADER.itemsize:
        return frozenset()
    header = np.frombuffer(data, _HEADER, 1)[0]
    if header["magic"] != _64_BIT_LITTLE_ENDIAN:
        return frozenset()
    sections = np.frombuffer(data, _SECTION, int(header["count"]), int(header["sections"]))
    names: set[str] = set()
    for table in sections[np.isin(sections["type"], _SYMBOL_TABLES)]:
        count = int(table["size"]) // _SYMBOL.itemsize
        symbols = np.frombuffer(data, _SYMBOL, count, int(table["offset"]))
        functions = np.isin(symbols["info"], (_GLOBAL_FUNCTION, _WEAK_FUNCTION))
        start = int(sections[table["link"]]["offset"])
        for at in symbols[functions & (symbols["section"] != 0)]["name"].tolist():
            names.add(data[start + at : data.index(b"\0", start + at)].decode(errors="replace"))
    return frozenset(names)
