"""Lines of Bybit's order-book archives: as the venue writes them, as it could write them, and broken.

What they mean is in tests/oracles/naive_bybit.py.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

TOPIC = "orderbook.500.BTCUSDT"
TS = 1_786_310_818_528
_DECIMALS = """0.00 007 00.5 .5 5. . - -0 -1.5 +2 1e3 1E-7 10e-19 1e-19 1e18 1e19 0e9999 0.0e-30 1e10000 1_0 0x1 NaN Infinity ٣
    12345678901234567.89 123456789012345678 1234567890123456789 9223372036854775807 9223372036854775808 922337203685477580.70 922337203685477580.80
    0.123456789012345678 0.1234567890123456789 0.12345678901234567800 1.000000000000000000000 0.000000000000000000000 1e 1,5"""
_NUMBERS = """-1 -0 0 1.0 1e3 true null 01 "5" [] 9223372036854 9223372036855 9223372036854775807 9223372036854775808 123456789012345678901"""
ODD_DECIMALS = [*_DECIMALS.split(), "", " 1", "1 ", "0" * 65, "0." + "0" * 62]
ODD_NUMBERS = _NUMBERS.encode().split()
ODD_TOPICS = [
    TOPIC, "orderbook.rpi.BTCUSDT", "orderbook.200.BTCUSDT", "orderbook.500.ETHUSDT", "orderbook.0.A-B.C", "orderbook.500.\u5e01USDT",
    "orderbook.05.A", "orderbook.100001.A", "orderbook..A", "orderbook.500.", "orderbook.500.A B", "orderbook.500.A/B", 'orderbook.500.A"',
    "trade.500.A", "orderbook.5.\ud800",
]  # fmt: skip
ODD_VALUES = [1, 1.5, None, {"b": []}, [[]], "x\ny"]
ODD_BYTES = [b"", b"\0", b'"', b"0", b" ", b",", b"\xff", b"\xc3\xa9", b"]", b"\r", b"\x0b"]
REPLACED = [
    (b'"u":', b'"\\u0075":'), (b"BTC", b"\\u0042TC"), (b'"b":', b'"b":[],"b":'), (b'"cts":', b'"ts":1,"cts":'), (b"delta", b"Delta"),
    (b"[[", b"[,["), (b"]]", b"],]"), (b"}}", b"}}}"), (b'","', b'";"'), (b'"type"', b"type"), (b"{", b"\xef\xbb\xbf{"), (b"[]", b"[ ]"),
    (b"],[", b"];["), (b"],[", b"] ,["), (b"],[", b"]["), (b'"]', b'","'),
]  # fmt: skip

decimals = st.one_of(
    st.decimals("0.0001", 99_999, places=4).map(str),
    st.integers(0, 10**12).flatmap(lambda n: st.integers(0, 12).map(lambda d: str(n) if d == 0 else f"{n // 10**d}.{n % 10**d:0{d}d}")),
)
levels = st.lists(st.tuples(decimals, decimals | st.just("0")).map(list), max_size=4)


@st.composite
def messages(draw: st.DrawFn, topic: str = TOPIC) -> dict[str, Any]:
    """A line as the venue writes it, as nested dicts in the order of the keys; `cts` may be missing, levels may have three fields."""
    thirds = draw(st.integers(0, 9)) == 0
    bids, asks = (draw(levels) for _ in range(2))
    for level in (*bids, *asks) if thirds else ():
        level.append(draw(decimals))
    ts = TS + draw(st.integers(-1000, 1000))
    line = {
        "topic": topic, "type": draw(st.sampled_from(["delta", "delta", "snapshot"])), "ts": ts,
        "data": {"s": topic.split(".", 2)[2], "b": bids, "a": asks, "u": draw(st.integers(0, 2**40)), "seq": draw(st.integers(0, 2**50))},
    }  # fmt: skip
    if draw(st.integers(0, 4)):
        line["cts"] = ts - draw(st.integers(0, 9))
    return line


def written(line: dict[str, Any]) -> bytes:
    """As the venue writes it."""
    return json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def _shuffled(draw: st.DrawFn, members: dict[str, Any]) -> dict[str, Any]:
    return {name: members[name] for name in draw(st.permutations(list(members)))}


@st.composite
def usual(draw: st.DrawFn) -> bytes:
    """A line in the layout that the compiled parser knows: keys in any order, white space between tokens."""
    line = draw(messages())
    if draw(st.booleans()):
        line = _shuffled(draw, line)
        line["data"] = _shuffled(draw, line["data"])
    if draw(st.integers(0, 5)):
        return written(line)
    separators = draw(st.sampled_from([(", ", ": "), (",\t", " :"), (" , ", " : "), ("\r,", ":")]))
    return b" " + json.dumps(line, separators=separators).encode() + draw(st.sampled_from([b"", b" ", b"\r", b"\t\r"]))


@st.composite
def odd(draw: st.DrawFn) -> bytes:
    """A line with something in it that only the general parser knows, or that nobody knows."""
    line = draw(messages())
    data = line["data"]
    what = draw(st.integers(0, 7))
    if what == 0:
        level = [draw(st.sampled_from(ODD_DECIMALS)), "1", draw(st.sampled_from(ODD_DECIMALS))]
        data[draw(st.sampled_from("ba"))].append(level[: draw(st.integers(1, 3))])
    elif what == 1:
        data[draw(st.sampled_from("ba"))].append(["1.5", draw(st.sampled_from(ODD_DECIMALS))])
    elif what == 2:
        place, name = draw(st.sampled_from([(line, "ts"), (line, "cts"), (data, "u"), (data, "seq"), (data, "b"), (line, "data"), (line, "type")]))
        place[name] = "\0"
        return written(line).replace(b'"\\u0000"', draw(st.sampled_from(ODD_NUMBERS)))
    elif what == 3:
        line["topic"] = draw(st.sampled_from(ODD_TOPICS))
        data["s"] = draw(st.sampled_from([line["topic"].split(".", 2)[-1], "BTCUSDT"]))
    elif what == 4:
        place = draw(st.sampled_from([line, data]))
        del place[draw(st.sampled_from(sorted(place)))]
    elif what == 5:
        place, name = draw(st.sampled_from([line, data])), draw(st.sampled_from(["id", "ts2", "ba", ""]))
        place[name] = draw(st.sampled_from(ODD_VALUES))
    elif what == 6:
        return written(line).replace(*draw(st.sampled_from(REPLACED)), 1)
    text = written(line)
    if what == 7:
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from(ODD_BYTES)) + text[at + draw(st.integers(0, 2)) :]
    return text


blank = st.sampled_from([b"", b"\r", b" \t"])


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A whole file: usual lines, odd ones, blank ones, any end."""
    lines = draw(st.lists(st.one_of(usual(), usual(), odd(), odd(), blank), max_size=8))
    end = draw(st.sampled_from([b"\n", b"\n", b"\r\n"]))
    data = b"".join(line + end for line in lines)
    if draw(st.integers(0, 3)):
        return data
    return data + written(draw(messages()))[: draw(st.integers(0, 400))]
