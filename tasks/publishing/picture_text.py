"""The words round the heatmap picture: head, axes, legend, and where on the 1600 x 1000 pixels each part stands. No book is painted here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tasks.heatmap_grid import HeatmapGrid
from tasks.publishing import axes, colours, paint_kernels

WIDTH, HEIGHT = 1600, 1000
PLOT = (24, 112, 1496, 864)  # left, top, right, bottom; right and bottom exclusive
STRIP = (PLOT[0], 874, PLOT[2], 946)  # traded volume below it


def time_marks(grid: HeatmapGrid) -> list[tuple[int, str]]:
    """(pixel, label) of each tick of the time axis."""
    width = PLOT[2] - PLOT[0]
    start, end = int(grid.time_edges[0]), int(grid.time_edges[-1])
    times, step = axes.time_ticks(start, end)
    if grid.axis == "event":  # equal distances, whatever the times
        places = np.linspace(0, len(grid.time_edges) - 1, 11).round().astype(int)[:-1]
        times = [int(grid.time_edges[p]) for p in places]
        step = 1_000_000 if end - start > 10**10 else 1
        at = places * width / (len(grid.time_edges) - 1)
        return [(int(x), axes.time_text(t // step * step, step)) for x, t in zip(at, times, strict=True)]
    at = axes.column_position(grid, np.array(times, np.int64), width)
    return [(min(int(x), width - 1), axes.time_text(t, step)) for x, t in zip(at, times, strict=True)]


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def write_head(
    pen: ImageDraw.ImageDraw, grid: HeatmapGrid, shown: axes.Levels, traded: axes.TradeFacts, marks: tuple[int, int, int], title: str, scale: str
) -> None:
    """Title and one line of facts; marks: (drawn, there would be, trades outside the picture)."""
    start, end = int(grid.time_edges[0]), int(grid.time_edges[-1])
    places = axes.decimals_of(shown.step)
    ends = f"{axes.date_text(start)}  {axes.time_text(start, 10**9)} to {axes.time_text(end, 10**9)} UTC"
    levels = f"{len(shown.prices):,} prices, {axes.price_text(shown.step, places)} apart"
    volume = f"{traded.count:,} trades, volume {traded.volume:,}"
    if marks[0] < marks[1]:
        volume += f" (the largest {marks[0]:,} of {marks[1]:,} marks drawn)"
    if marks[2]:
        volume += f", {marks[2]:,} outside the picture"
    pen.text((PLOT[0], 14), title, fill=colours.INK, font=_font(26))
    pen.text((PLOT[0], 50), "   |   ".join((ends, levels, f"colour: {scale} in mean resting size", volume)), fill=colours.MUTED, font=_font(15))


def write_axes(
    pen: ImageDraw.ImageDraw, grid: HeatmapGrid, shown: axes.Levels, times: list[tuple[int, str]], prices: list[int],
    y_of: Callable[[np.ndarray], np.ndarray], peak: int,
) -> None:  # fmt: skip
    """Frame, ticks and labels; peak: volume that fills half the strip, 0 without trades."""
    left, top, right, bottom = PLOT
    font = _font(14)
    pen.rectangle((left - 1, top - 1, right, bottom), outline=colours.FRAME)
    places = axes.decimals_of(*prices) if prices else 0
    places = max(places, 2) if places else 0
    for price, y in zip(prices, y_of(np.array(prices, np.int64)), strict=True):
        pen.line((right + 1, top + int(y), right + 5, top + int(y)), fill=colours.FRAME)
        pen.text((right + 9, top + int(y)), axes.price_text(price, places), fill=colours.INK, font=font, anchor="lm")
    for x, label in times:
        pen.line((left + x, STRIP[3], left + x, STRIP[3] + 5), fill=colours.FRAME)
        half = pen.textlength(label, font=font) / 2
        pen.text((min(max(left + x, left + half), right - half), STRIP[3] + 9), label, fill=colours.INK, font=font, anchor="mt")
    caption = "UTC, spaced by event" if grid.axis == "event" else "UTC"
    pen.text((right + 9, STRIP[3] + 9), caption if len(caption) < 10 else "UTC, by event", fill=colours.MUTED, font=font, anchor="lt")
    if peak:
        pen.text((right + 9, STRIP[1] + 9), f"{peak:,}+ bought", fill=colours.MUTED, font=_font(12), anchor="lm")
        pen.text((right + 9, STRIP[3] - 9), f"{peak:,}+ sold", fill=colours.MUTED, font=_font(12), anchor="lm")
    else:
        pen.text((right + 9, (STRIP[1] + STRIP[3]) // 2), "no trades", fill=colours.MUTED, font=_font(12), anchor="lm")
    if not (shown.bids.any() or shown.asks.any()):
        pen.text(((left + right) // 2, (top + bottom) // 2), "No resting size in this span", fill=colours.MUTED, font=_font(22), anchor="mm")


def write_legend(image: Image.Image, pen: ImageDraw.ImageDraw, grid: HeatmapGrid, traded: axes.TradeFacts, top: float, code: int) -> None:
    """One row between head and plot: both ramps with their sizes, the marks that occur, the hatches that occur."""
    font, y, x = _font(14), 90, PLOT[0]

    def say(text: str, gap: int = 22) -> None:
        nonlocal x
        pen.text((x, y), text, fill=colours.INK, font=font, anchor="lm")
        x += int(pen.textlength(text, font=font)) + gap

    def swatch(pixels: np.ndarray) -> None:
        nonlocal x
        image.paste(Image.fromarray(pixels), (x, y - pixels.shape[0] // 2))
        x += pixels.shape[1] + 7

    share = np.linspace(0.0, 1.0, 140)
    steps = (colours.intensity(share, 1.0, colours.SCALES[code]) * 255).round().astype(int)
    limit = f"{top:,.0f}" if top >= 10 else f"{top:.3g}"
    for name, stops in (("Bid size 0", colours.BID_STOPS), ("Ask size 0", colours.ASK_STOPS)):
        say(name, 7)
        swatch(np.repeat(colours.ramp(stops)[steps][None], 12, axis=0))
        say(f"{limit} and more")
    sides = traded.sides
    for index, (name, fill) in enumerate((("bought", colours.BUY), ("sold", colours.SELL), ("traded, side not known", colours.UNKNOWN_SIDE))):
        if index in sides:
            mark = np.full((18, 16, 3), 255, np.uint8)
            paint_kernels.paint_markers(
                mark, np.array([8.0]), np.array([9.0]), np.array([5.5]), np.array([fill], np.uint8), np.array([index], np.int8)
            )
            swatch(mark)
            say(name)
    for status in dict.fromkeys(span[2] for span in grid.spans):
        tile = np.full((16, 30, 3), 255, np.uint8)
        rising, falling, tint = colours.HATCHES.get(status, (True, True, 0.1))
        colour = np.array(colours.STATUS_COLOURS.get(status, colours.MUTED), np.uint8)
        paint_kernels.paint_hatch(tile, 0, 30, 0, 16, colour, rising, falling, 12, tint)
        tile[:3] = colour
        swatch(tile)
        say(status.replace("_", " "))
