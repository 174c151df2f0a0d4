"""Book-keeping of a comparison with an independent truth, one state at a time: how much matched, what first did not, and when it was wrong.

Shared by everything that compares books with a truth; `proof.py` turns it into rows of the certificate.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from tasks.kernels import inner, kernel
from tasks.schemas import UNDEF_PRICE, WRONG_SPANS

# number int64[PROOF_SIZE], see below; spans int64[WRONG_SPANS, 2]: last good and next good time around each wrong stretch, -1 for none
Proof = namedtuple("Proof", "number spans")

# Difference int64[8]: side (0 bid, 1 ask), level (0 at the touch), expected px, sz, ct, found px, sz, ct; -1 and UNDEF_PRICE where there is none
DIFFERENCE_SIZE = 8

P_STATES, P_STATES_MATCHED, P_LEVELS, P_LEVELS_MATCHED = 0, 1, 2, 3
P_FIRST, P_LAST, P_LAST_GOOD = 4, 5, 6  # clock times of the first and last comparison and of the last good one before any divergence
P_OPEN = 7  # 1 while the book is wrong
P_GOOD = 8  # time of the last comparison that matched
P_SPANS = 9
P_DIVERGED_AT, P_SEQUENCE = 10, 11
P_DIFFERENCE = 12  # to 19: the first difference
PROOF_SIZE = 20


def new_proof() -> Proof:
    """A comparison of which nothing was done yet."""
    number = np.zeros(PROOF_SIZE, np.int64)
    number[[P_FIRST, P_LAST, P_LAST_GOOD, P_GOOD, P_DIVERGED_AT, P_SEQUENCE]] = -1
    return Proof(number, np.full((WRONG_SPANS, 2), -1, np.int64))


@inner
def note(proof, good, now, sequence, levels, matched, difference):
    """Book one compared state: good or not, at clock time now, with so many levels compared and matched; difference is read when not good."""
    number = proof.number
    number[P_STATES] += 1
    number[P_LEVELS] += levels
    number[P_LEVELS_MATCHED] += matched
    if number[P_FIRST] < 0:
        number[P_FIRST] = now
    number[P_LAST] = now
    if good:
        number[P_STATES_MATCHED] += 1
        if number[P_OPEN] == 1:
            number[P_OPEN] = 0
            if number[P_SPANS] <= proof.spans.shape[0]:
                proof.spans[number[P_SPANS] - 1, 1] = now
        number[P_GOOD] = now
        if number[P_DIVERGED_AT] < 0:
            number[P_LAST_GOOD] = now
        return
    if number[P_OPEN] == 0:
        number[P_OPEN] = 1
        if number[P_SPANS] < proof.spans.shape[0]:
            proof.spans[number[P_SPANS], 0] = number[P_GOOD]
        number[P_SPANS] += 1
    if number[P_DIVERGED_AT] < 0:
        number[P_DIVERGED_AT] = now
        number[P_SEQUENCE] = sequence
        for k in range(DIFFERENCE_SIZE):
            number[P_DIFFERENCE + k] = difference[k]


@inner
def note_good(proof, count, first, last):
    """`note` for `count` states of one level that matched, one after the other, from clock time first to last."""
    if count == 0:
        return
    note(proof, True, first, 0, 1, 1, proof.number)
    number = proof.number
    number[P_STATES] += count - 1
    number[P_STATES_MATCHED] += count - 1
    number[P_LEVELS] += count - 1
    number[P_LEVELS_MATCHED] += count - 1
    number[P_LAST] = last
    number[P_GOOD] = last
    if number[P_DIVERGED_AT] < 0:
        number[P_LAST_GOOD] = last


@inner
def compare_levels(expected_px, expected_sz, expected_ct, found_px, found_sz, found_ct, side, tally, difference):
    """Compare one side level by level: px, sz, ct int64[k], UNDEF_PRICE from the first empty level on; a count below 0 is not compared.

    Adds to tally int64[2] the levels that either has and those that are equal; writes the first difference, unless there is one already
    (difference[1] >= 0) that is as near to the touch.
    """
    for level in range(max(expected_px.shape[0], found_px.shape[0])):
        epx, esz, ect = UNDEF_PRICE, 0, 0
        fpx, fsz, fct = UNDEF_PRICE, 0, 0
        if level < expected_px.shape[0]:
            epx, esz, ect = expected_px[level], expected_sz[level], expected_ct[level]
        if level < found_px.shape[0]:
            fpx, fsz, fct = found_px[level], found_sz[level], found_ct[level]
        if epx == UNDEF_PRICE and fpx == UNDEF_PRICE:
            return
        tally[0] += 1
        if epx == fpx and esz == fsz and (ect == fct or ect < 0 or fct < 0):
            tally[1] += 1
        elif difference[1] < 0 or level < difference[1]:
            difference[0] = side
            difference[1] = level
            difference[2] = epx
            difference[3] = esz
            difference[4] = ect
            difference[5] = fpx
            difference[6] = fsz
            difference[7] = fct


@kernel
def note_states(proof, good, now, sequence, levels, matched, differences):
    """`note` for m states in order: good uint8[m]; now, levels, matched int64[m]; sequence uint32[m]; differences int64[m, 8]."""
    for k in range(good.shape[0]):
        note(proof, good[k] != 0, now[k], np.int64(sequence[k]), levels[k], matched[k], differences[k])


@kernel
def compare_states(expected, found, tally, differences):
    """Compare m states of both sides: expected, found (px, sz, ct) each int64[m, 2, k]; tally int64[m, 2] and differences int64[m, 8] written."""
    for m in range(expected[0].shape[0]):
        tally[m, 0] = 0
        tally[m, 1] = 0
        differences[m, 1] = -1
        for side in range(2):
            compare_levels(
                expected[0][m, side], expected[1][m, side], expected[2][m, side], found[0][m, side], found[1][m, side], found[2][m, side],
                side, tally[m], differences[m],
            )  # fmt: skip


@inner
def _equal(one, i, other, j):
    """Whether state i of `one` and state j of `other` have the same levels."""
    for side in range(2):
        for level in range(one[0].shape[2]):
            if one[0][i, side, level] != other[0][j, side, level] or one[1][i, side, level] != other[1][j, side, level]:
                return False
            if one[2][i, side, level] != other[2][j, side, level]:
                return False
    return True


@kernel
def find_rows(row_key, rows, key, states, start, at, good):
    """Find each published row among the states that our book went through, in order: a row is one of the states of its own key.

    row_key int64[m] ascending; rows, states: (px, sz, ct) int64[., 2, k]; key int64[n] ascending; start: first state to look at; at int64[m]
    written: the state found, or the one that stood in its place (-1: none yet); good uint8[m] written. Returns where to go on.
    """
    p = start
    for j in range(row_key.shape[0]):
        while p < key.shape[0] and key[p] < row_key[j]:
            p += 1
        q = p
        good[j] = 0
        while q < key.shape[0] and key[q] == row_key[j]:
            if _equal(rows, j, states, q):
                good[j] = 1
                break
            q += 1
        if good[j]:
            at[j] = q
            p = q
        elif q > p:
            at[j] = q - 1
        else:  # no record has its key: the book as it stood then
            at[j] = p - 1
            good[j] = 1 if p > 0 and _equal(rows, j, states, p - 1) else 0
    return p
