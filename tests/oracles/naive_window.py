"""Windowed replay of level-N messages with dicts. Twin of tasks/reconstruction/window_kernels.py."""

from __future__ import annotations

Level = tuple[int, int]
Book = tuple[list[Level], list[Level]]


def naive_window(messages: list[tuple[str, str, int, int]], truth: list[Book], depth: int) -> list[tuple[Book, int | None]]:
    """The (bids, asks) after each message, and the level (0-based) at which they first differ from the published ones; None where they do not.

    messages: (action, side, price, size) in order; truth: (bids, asks) after each, best first. The first row is taken as it is.
    """
    sides = {"B": dict(truth[0][0]), "A": dict(truth[0][1])}
    rows: list[tuple[Book, int | None]] = [(truth[0], None)]
    for (action, side, price, size), (bids, asks) in zip(messages[1:], truth[1:], strict=True):
        emptied = None
        if action == "A":
            sides[side][price] = sides[side].get(price, 0) + size
        elif action == "C" and price in sides[side]:
            sides[side][price] -= size
            if sides[side][price] <= 0:
                del sides[side][price]
                emptied = (side, price)
        for name, published in (("B", bids), ("A", asks)):
            ordered = sorted(sides[name], reverse=name == "B")[:depth]
            sides[name] = {p: sides[name][p] for p in ordered}
            if len(published) == len(ordered) + 1:
                new, new_size = published[-1]
                deeper = not ordered or (new < ordered[-1] if name == "B" else new > ordered[-1])
                if deeper and (name, new) != emptied:
                    sides[name][new] = new_size
        book = (sorted(sides["B"].items(), reverse=True), sorted(sides["A"].items()))
        rows.append((book, _first_difference(book, (bids, asks), depth)))
    return rows


def _first_difference(book: Book, published: Book, depth: int) -> int | None:
    for level in range(depth):
        if any(ours[level : level + 1] != theirs[level : level + 1] for ours, theirs in zip(book, published, strict=True)):
            return level
    return None
