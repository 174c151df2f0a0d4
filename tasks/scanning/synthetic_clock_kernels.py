"""Chance and time of a generated session: random numbers, when the next event comes and in which book, and where fair values go.

Times cluster (a Hawkes process with an exponential kernel, Hawkes 1971, drawn exactly) round a U-shaped day with quiet and busy spells. What an
event does is in synthetic_kernels.py.
"""

from __future__ import annotations

import math

import numpy as np

from tasks.scanning.synthetic_book_kernels import kernel

FAIR = np.dtype(
    [("value", "f8"), ("slope", "f8"), ("left", "i8"), ("centre", "f8"), ("limit", "f8"), ("noise", "f8"), ("trend", "f8"), ("leg", "f8")]
)
BRANCHING = 0.55  # share of events that are set off by others
EVENTS_PER_RECORD = 0.82
_13, _7, _17, _11 = np.uint64(13), np.uint64(7), np.uint64(17), np.uint64(11)


@kernel
def draw(state):
    """Uniform in [0, 1). Marsaglia's xorshift64: no multiplication, so it wraps silently with the JIT off as well."""
    x = state["random"]
    x ^= x << _13
    x ^= x >> _7
    x ^= x << _17
    state["random"] = x
    return np.float64(x >> _11) * 1.1102230246251565e-16


@kernel
def exponential(state):
    """A draw from the exponential distribution of mean 1."""
    return -math.log(1.0 - draw(state))


@kernel
def begin(state, wait_ns):
    """Open an event: its venue time, receive time (never before the last one's) and sequence, which all its records share."""
    state["now"] = min(state["now"] + wait_ns, state["end"] - 1)
    state["ts_event"] = state["now"]
    u = draw(state)
    latency = 75_000 + np.int64(exponential(state) * (40_000.0 if u < 0.98 else 700_000.0))
    state["ts_recv"] = max(state["ts_recv"], state["now"] + latency)
    state["ts_in_delta"] = 12_000 + np.int64(u * u * 10_000.0)
    state["sequence"] += 1 if u < 0.9 else 2


@kernel
def wait_for_next(state):
    """Seconds to the next event and whether an earlier event set it off. The base rate aims at the last record at the end of the session."""
    length = 1e-9 * (state["end"] - state["start"])
    u = min(1.0, 1e-9 * (state["now"] - state["start"]) / length)
    middle = u - 0.55
    shape = 0.5 + 6.0 * middle * middle
    ahead = 0.5 * (1.0 - u) + 2.0 * (0.091125 - middle * middle * middle)  # integral of shape to the end
    left = EVENTS_PER_RECORD * (state["total"] - state["emitted"])
    base = (1.0 - BRANCHING) * left * shape / (length * max(ahead, 1e-6)) * state["activity"]
    wait = exponential(state) / max(base, 1e-9)
    caused = False
    hazard = exponential(state) * state["decay"]
    if hazard < state["excite"]:
        sooner = -math.log(1.0 - hazard / state["excite"]) / state["decay"]
        caused = sooner < wait
        wait = min(wait, sooner)
    state["excite"] = state["excite"] * math.exp(-state["decay"] * wait) + BRANCHING * state["decay"]
    return min(wait, 60.0), caused


@kernel
def spell(state):
    """Change between quiet, usual and busy spells."""
    length, u = state["end"] - state["start"], draw(state)
    factor, share = (0.06, 0.004) if u < 0.3 else ((1.0, 0.02) if u < 0.75 else (2.5, 0.006))
    state["activity"] = factor
    state["next_spell"] = state["now"] + 1 + np.int64(exponential(state) * share * length)


@kernel
def choose_book(state, chance, alias):
    """A book with the probability of its activity."""
    u = draw(state) * len(chance)
    b = np.int64(u)
    return b if u - b < chance[b] else alias[b]


@kernel
def wander(state, fair):
    """One step of a fair value: legs of constant slope with noise, turned back at its limit."""
    fair["left"] -= 1
    if fair["left"] <= 0:
        fair["left"] = 1 + np.int64(exponential(state) * fair["leg"])
        fair["slope"] = (2.0 * draw(state) - 1.0) * fair["trend"] if draw(state) < 0.65 else 0.0
    value = fair["value"] + fair["slope"] + fair["noise"] * 2.0 * (draw(state) + draw(state) + draw(state) - 1.5)
    away = value - fair["centre"]
    if abs(away) > fair["limit"]:
        fair["slope"] = -math.copysign(fair["slope"], away)
        value = fair["centre"] + math.copysign(fair["limit"], away)
    fair["value"] = value
    return value
