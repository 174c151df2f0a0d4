"""ITCH 5.0 messages: a plain encoder of every type, and Hypothesis strategies of short days with few stocks, references and prices.

References are few, so that orders are replaced in chains, taken whole, taken twice and named after they went. What the messages mean for a book
is in tests/oracles/naive_itch.py.
"""

from __future__ import annotations

import struct

from hypothesis import strategies as st

# type -> layout after type, locate, tracking and time; fields in the order of the specification
LAYOUTS = {
    "S": ">c", "R": ">8sccIcc2scccccIc", "H": ">8scc4s", "Y": ">8sc", "L": ">4s8sccc", "V": ">QQQ", "W": ">c", "K": ">8sIcI", "J": ">8sIIII",
    "h": ">8scc", "A": ">QcI8sI", "F": ">QcI8sI4s", "E": ">QIQ", "C": ">QIQcI", "X": ">QI", "D": ">Q", "U": ">QQII", "P": ">QcI8sIQ",
    "Q": ">Q8sIQc", "B": ">Q", "I": ">QQc8sIIIcc", "N": ">8sc", "O": ">8scIIIQII",
}  # fmt: skip
NINE = 9 * 3600 * 10**9  # 09:00 as ns after midnight
STOCKS = {1: b"AAPL", 2: b"BRK.A", 3: b"ZVZZT"}

Message = tuple  # type, locate, time, then the fields of its layout


def encode(kind: str, locate: int, time: int, *fields, tracking: int = 0) -> bytes:
    """One message without its length; stocks may be given without their padding."""
    layout = LAYOUTS[kind]
    sizes = layout.replace("8s", "w").replace("4s", "x").replace("2s", "y")[1:]
    padded = [value.ljust(8) if size == "w" else value for size, value in zip(sizes, fields, strict=True)]
    return struct.pack(">cHHHI", kind.encode(), locate, tracking, time >> 32, time & 0xFFFFFFFF) + struct.pack(layout, *padded)


def frame(message: bytes) -> bytes:
    """A message behind its length."""
    return struct.pack(">H", len(message)) + message


def encoded(messages: list[Message]) -> bytes:
    """A file of messages."""
    return b"".join(frame(encode(*message)) for message in messages)


def directory(locate: int, time: int = NINE, stock: bytes = b"") -> Message:
    """A stock directory message."""
    fields = (b"Q", b"N", 100, b"N", b"C", b"Z ", b"P", b"N", b"N", b"1", b"N", 0, b"N")
    return ("R", locate, time, stock or STOCKS[locate], *fields)


def action(locate: int, time: int, state: bytes) -> Message:
    """A trading action message."""
    return ("H", locate, time, STOCKS[locate], state, b" ", b"    ")


def start(time: int = NINE - 1) -> Message:
    """The system event that every day begins with."""
    return ("S", 0, time, b"O")


def _mostly(usual: tuple, rare: tuple) -> st.SearchStrategy:
    """One of `usual`, about one time in forty one of `rare`."""
    return st.integers(0, 39).flatmap(lambda k: st.sampled_from(rare if k == 39 else usual))


references = _mostly((1, 2, 3, 9), (17, 2**32 + 1, 2**63, 2**64 - 1))
prices = st.sampled_from((0, 1, 1_000_000, 1_000_100, 2**31, 2**32 - 1))
sizes = _mostly((1, 2, 3, 5), (0, 2**32 - 1))
_stocks = _mostly(tuple(STOCKS.values())[:2], (b"", b" AB", b"A\0B", b"NEW"))
_times = _mostly((NINE, NINE + 1, NINE + 2**33), (86_400 * 10**9 - 1, 86_400 * 10**9))
_locates = _mostly((1,), (2, 65_535))
_few = st.integers(0, 3)


def _letter(good: bytes) -> st.SearchStrategy[bytes]:
    return _mostly(tuple(bytes([c]) for c in good), (b"Z", b"\0"))


_body = {
    "R": st.tuples(_stocks, *(st.just(value) for value in directory(1)[4:])),
    "H": st.tuples(_stocks, _letter(b"HPQT"), st.just(b" "), st.just(b"LUDP")),
    "A": st.tuples(references, _letter(b"BS"), sizes, _stocks, prices),
    "F": st.tuples(references, _letter(b"BS"), sizes, _stocks, prices, st.just(b"MPID")),
    "E": st.tuples(references, sizes, references),
    "C": st.tuples(references, sizes, references, _letter(b"YN"), prices),
    "X": st.tuples(references, sizes),
    "D": st.tuples(references),
    "U": st.tuples(references, references, sizes, prices),
    "P": st.tuples(st.just(0), _letter(b"BS"), sizes, _stocks, prices, references),
    "Q": st.tuples(_mostly((0, 500, 2**32 - 1), (2**32, 2**64 - 1)), _stocks, prices, references, st.just(b"O")),
    "B": st.tuples(references),
    "S": st.tuples(st.just(b"Q")),
    "I": st.tuples(*(st.just(value) for value in (1, 2, b"B", b"AAPL", 3, 4, 5, b"O", b"L"))),
}


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """One frame: mostly a message, of any content; rarely with another length, of a type that is none, or empty."""
    kind = draw(st.sampled_from("RHAAAAFEEECCXXDDUUUPQBSI"))
    message = encode(kind, draw(_locates), draw(_times), *draw(_body[kind]))
    odd = draw(st.integers(0, 30))
    if odd == 0:
        return frame(message + bytes(draw(_few)))
    if odd == 1:
        return frame(message[:-1])
    if odd == 2:
        return frame(b"Z" + message[1:])
    if odd == 3:
        return frame(b"\1" + message[1:])
    return frame(b"" if odd == 4 else message)


@st.composite
def days(draw: st.DrawFn, most: int = 60) -> list[Message]:
    """Messages of a day without a fault: directories, then orders of which only those that rest are named."""
    messages: list[Message] = [start(), *(directory(locate) for locate in STOCKS)]
    live: dict[int, list[int]] = {}  # reference -> locate, shares
    used, time = 0, NINE
    steps = draw(st.lists(st.tuples(st.sampled_from("AAAFEECCXDUUPQBH"), st.integers(0, 99), st.integers(0, 99), st.booleans()), max_size=most))
    for kind, a, b, flag in steps:
        time, match = time + a, 10**6 + len(messages)
        locate, price, size = 1 + a % 3, 1_000_000 + 100 * (b % 4 + (0 if flag else 4)), 1 + a % 7
        if kind in "ECXDU" and not live:
            kind = "A"
        if kind in "AF":
            used += 1
            live[used] = [locate, size]
            fields = (used, b"B" if flag else b"S", size, STOCKS[locate], price)
            messages.append((kind, locate, time, *fields, *([b"MPID"] if kind == "F" else [])))
        elif kind in "ECXDU":
            reference = list(live)[b % len(live)]
            locate, left = live.pop(reference)
            taken = 1 + a % left
            if kind in "ECX" and taken < left:
                live[reference] = [locate, left - taken]
            if kind == "U":
                used += 1
                live[used] = [locate, size]
            body = {
                "E": (reference, taken, match), "C": (reference, taken, match, b"Y" if flag else b"N", price), "X": (reference, taken),
                "D": (reference,), "U": (reference, used, size, price),
            }[kind]  # fmt: skip
            messages.append((kind, locate, time, *body))
        elif kind == "P":
            messages.append(("P", locate, time, 0, b"B", size, STOCKS[locate], price, match))
        elif kind == "Q":
            messages.append(("Q", locate, time, b % 2 * size, STOCKS[locate], price, match, b"O"))
        elif kind == "B":
            messages.append(("B", locate, time, match - 1))
        else:
            messages.append(action(locate, time, b"HPQT"[b % 4 : b % 4 + 1]))
    return messages
