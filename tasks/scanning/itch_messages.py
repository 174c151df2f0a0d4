"""Nasdaq TotalView-ITCH 5.0: which messages there are, how a file of them is recognised, and what its name says.

Plain Python, so that a scan of a folder compiles nothing. Messages become events in `itch_kernels.py`, files are read in `itch.py`.
Source: "Nasdaq TotalView-ITCH 5.0", section 4; the file is Nasdaq's BinaryFILE, two bytes of length (big-endian) before each message.
"""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

from tasks.errors import SchemaMismatch

# type -> bytes of the message, the type's own included; the length before it is not counted.
LENGTHS = {
    "S": 12, "R": 39, "H": 25, "Y": 20, "L": 26, "V": 35, "W": 12, "K": 28, "J": 35, "h": 21, "A": 36, "F": 40, "E": 31, "C": 36, "X": 23, "D": 19,
    "U": 35, "P": 44, "Q": 40, "B": 19, "I": 50, "N": 20, "O": 48,
}  # fmt: skip
BOOK_TYPES = "RHAFECXDUPQB"  # types that become events
HEADER_BYTES, MAX_BYTES = 11, 255  # of a message of a type that is not known: it has the header of all others, and none is near the upper limit
END_MARK = b"\0\0"  # a length of 0 ends a BinaryFILE

VENUES = {"BX": ("XBOS.ITCH", 3), "PSX": ("XPSX.ITCH", 4)}  # Nasdaq's other two markets have the same messages
NASDAQ = ("XNAS.ITCH", 2)

_LOOKED_AT = 3
_VENUE = re.compile(r"(?<![a-z])(bx|psx)(?![a-z])", re.IGNORECASE)
_DATES = (
    re.compile(r"(?<!\d)(?P<year>(?:19|20)\d\d)-(?P<month>\d\d)-(?P<day>\d\d)(?!\d)"),
    re.compile(r"(?<!\d)(?P<year>(?:19|20)\d\d)(?P<month>\d\d)(?P<day>\d\d)(?!\d)"),
    re.compile(r"(?<!\d)(?P<month>\d\d)(?P<day>\d\d)(?P<year>(?:19|20)\d\d)(?!\d)"),
    re.compile(r"^S(?P<month>\d\d)(?P<day>\d\d)(?P<year>\d\d)(?!\d)"),
)
_REMEDY = "Rename the file so that it has its date, such as 01302019.NASDAQ_ITCH50.gz, S013019-v50.txt.gz, 20190130.itch or 2019-01-30.itch"


def looks_like_itch(head: bytes) -> bool:
    """Whether a file begins with messages of these types and lengths: three in a row, or in a shorter file all there are, the first a system
    event, as in every file of a whole day.
    """
    at, seen = 0, 0
    while seen < _LOOKED_AT and at + 2 < len(head):
        length = int.from_bytes(head[at : at + 2], "big")
        if length == 0 or LENGTHS.get(chr(head[at + 2])) != length:
            return False
        if at + 2 + length > len(head):
            break
        at, seen = at + 2 + length, seen + 1
    return seen == _LOOKED_AT or (seen > 0 and head[2:3] == b"S")


def is_plausible(frame: bytes) -> bool:
    """Whether a cut frame (length and what follows) can be the beginning of a message: of a known type, or of one that is not known yet."""
    length = int.from_bytes(frame[:2], "big")
    if len(frame) > 2 and (known := LENGTHS.get(chr(frame[2]))):
        return length == known
    return len(frame) < 2 or (HEADER_BYTES <= length <= MAX_BYTES and (len(frame) == 2 or frame[2:3].isalpha()))


def session_date(path: str | Path) -> date:
    """The date in a file name: MMDDYYYY, YYYYMMDD, YYYY-MM-DD, or MMDDYY after a leading S.

    Raises SchemaMismatch, which says how to name the file, when there is none or more than one: times in the file count from a midnight.
    """
    name, found = Path(path).name, set()
    for pattern in _DATES:
        for match in pattern.finditer(name):
            year = int(match["year"])
            try:
                found.add(date(year if year > 99 else 2000 + year, int(match["month"]), int(match["day"])))
            except ValueError:
                continue  # eight digits that are no date in this order
    if len(found) != 1:
        told = f"the name has more than one date ({', '.join(map(str, sorted(found)))})" if found else "the name has no date"
        raise SchemaMismatch(path, f"holds Nasdaq ITCH 5.0 messages, whose times count from midnight, but {told}", remedy=_REMEDY)
    return found.pop()


def venue_of(path: str | Path) -> tuple[str, int]:
    """Dataset and publisher id: Nasdaq's own, or those of BX or PSX where the file name has that word (20190530.PSX_ITCH_50.gz)."""
    word = _VENUE.search(Path(path).name)
    return VENUES[word[1].upper()] if word else NASDAQ
