"""Windowed replay of level-N messages with dicts. Twin of tasks/reconstruction/window_kernels.py."""

from __future__ import annotations

Level = tuple[int, int]


def naive_window(messages: list[tuple[str, str, int, int]], truth: list[tuple[list[Level], list[Level]]], depth: int) -> list[bool]:
    """Whether the book equals the published one after each message but the first.

    messages: (action, side, price, size) in order; truth: (bids, asks) after each, best first.
    """
    sides = {"B": dict(truth[0][0]), "A": dict(truth[0][1])}
    equal = []
    for (action, side, price, size), (bids, asks) in zip(messages[1:], truth[1:], strict=True):
        if action in "AC":
            levels = sides[side]
            if action == "A":
                levels[price] = levels.get(price, 0) + size
            elif price in levels:
                levels[price] -= size
                if levels[price] <= 0:
                    del levels[price]
        for name, published in (("B", bids), ("A", asks)):
            ordered = sorted(sides[name], reverse=name == "B")[:depth]
            sides[name] = {p: sides[name][p] for p in ordered}
            if len(published) == len(ordered) + 1:
                sides[name][published[-1][0]] = published[-1][1]
        equal.append(sorted(sides["B"].items(), reverse=True) == bids and sorted(sides["A"].items()) == asks)
    return equal
