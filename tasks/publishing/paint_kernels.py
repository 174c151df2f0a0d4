"""Pixels of the heatmap: arrays in, an image changed in place. No text, no files, no choice of colours.

image is uint8[height, width, 3], row 0 at the top. Positions are in pixels, x to the right and y down.
"""

from __future__ import annotations

import math

import numpy as np

from tasks.kernels import njit

SHAPE_UP, SHAPE_DOWN, SHAPE_DISC = 0, 1, 2


@njit(nogil=True, cache=True)
def resample_columns(plane, width):
    """float32[h, width]: area-weighted mean of plane float32[h, w] over its columns, for any width above or below w."""
    height, source = plane.shape
    out = np.zeros((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            left, right = x * source / width, (x + 1) * source / width
            total = 0.0
            for c in range(int(left), min(math.ceil(right), source)):
                if plane[y, c] != 0.0:
                    total += float(plane[y, c]) * (min(c + 1.0, right) - max(float(c), left))
            out[y, x] = total * width / source
    return out


@njit(nogil=True, cache=True)
def paint_cells(image, bids, asks, first, last, bid_ramp, ask_ramp, top, scale, log_range):
    """Colour each pixel by the larger of bid and ask size.

    bids, asks float32[levels, width]; first, last int32[height]: levels [first, last) that pixel row y shows, their maximum counts, an empty
    range leaves the row alone; bid_ramp, ask_ramp uint8[n, 3]; top: size of the ramp's end; scale 0 linear, 1 square root, 2 log.
    """
    height, width = image.shape[0], image.shape[1]
    steps = bid_ramp.shape[0]
    log_end = math.log1p(log_range)
    for y in range(height):
        for x in range(width):
            bid, ask = 0.0, 0.0
            for level in range(first[y], last[y]):
                bid = max(bid, float(bids[level, x]))
                ask = max(ask, float(asks[level, x]))
            size = max(bid, ask)
            if size <= 0.0:
                continue
            share = min(size / top, 1.0)
            if scale == 1:
                share = math.sqrt(share)
            elif scale == 2:
                share = math.log1p(share * log_range) / log_end
            index = int(share * (steps - 1) + 0.5)
            for channel in range(3):
                image[y, x, channel] = bid_ramp[index, channel] if bid >= ask else ask_ramp[index, channel]


@njit(nogil=True, cache=True)
def blend(image, y, x, red, green, blue, alpha):
    """Mix one colour into one pixel; outside the image nothing happens."""
    if y < 0 or x < 0 or y >= image.shape[0] or x >= image.shape[1] or alpha <= 0.0:
        return
    alpha = min(alpha, 1.0)
    image[y, x, 0] = np.uint8(image[y, x, 0] * (1.0 - alpha) + red * alpha + 0.5)
    image[y, x, 1] = np.uint8(image[y, x, 1] * (1.0 - alpha) + green * alpha + 0.5)
    image[y, x, 2] = np.uint8(image[y, x, 2] * (1.0 - alpha) + blue * alpha + 0.5)


@njit(nogil=True, cache=True)
def paint_hatch(image, x0, x1, y0, y1, colour, rising, falling, spacing, tint):
    """Diagonal lines over columns [x0, x1) and rows [y0, y1), and a tint (0..1) between them; colour uint8[3]."""
    red, green, blue = colour[0], colour[1], colour[2]
    for y in range(max(y0, 0), min(y1, image.shape[0])):
        for x in range(max(x0, 0), min(x1, image.shape[1])):
            line = (rising and (x + y) % spacing < 2) or (falling and (x - y) % spacing < 2)
            blend(image, y, x, red, green, blue, 0.7 if line else tint)


@njit(nogil=True, cache=True)
def paint_steps(image, ys, colour, alpha):
    """A stepped line one pixel thick through ys int32[width]; a negative y breaks it."""
    before = -1
    for x in range(min(len(ys), image.shape[1])):
        y = ys[x]
        if y >= 0:
            low, high = (y, y) if before < 0 else (min(y, before), max(y, before))
            for row in range(low, high + 1):
                blend(image, row, x, colour[0], colour[1], colour[2], alpha)
        before = y


@njit(nogil=True, cache=True)
def gather_trades(x, y, size, side, cell, cells):
    """Add up trades that would cover each other.

    x, y int32[n] pixels; size int64[n]; side int8[n] 0 bought, 1 sold, 2 not known; cell: edge of a square in pixels;
    cells int64[3, rows, columns, 3] changed in place: volume, volume * x, volume * y of each square.
    """
    for i in range(len(x)):
        row, column = y[i] // cell, x[i] // cell
        if y[i] < 0 or x[i] < 0 or row >= cells.shape[1] or column >= cells.shape[2]:
            continue
        weight = max(np.int64(size[i]), np.int64(1))
        cells[side[i], row, column, 0] += weight
        cells[side[i], row, column, 1] += weight * x[i]
        cells[side[i], row, column, 2] += weight * y[i]


@njit(nogil=True, cache=True)
def _distance(dx, dy, radius, shape):
    """Signed distance in pixels to the marker's edge, negative inside. Triangles have the disc's area within 5%."""
    if shape == SHAPE_DISC:
        return math.sqrt(dx * dx + dy * dy) - radius
    if shape == SHAPE_DOWN:
        dy = -dy
    return max(dy - radius * 0.75, 0.8660254 * abs(dx) - 0.5 * dy - radius * 0.75)


@njit(nogil=True, cache=True)
def paint_markers(image, xs, ys, radii, fills, shapes):
    """Draw markers, smooth at the edge, in the order given. Those large enough to bear it get a white rim: round small ones it is only noise.

    xs, ys, radii float64[n] pixels; fills uint8[n, 3]; shapes int8[n]: SHAPE_UP, SHAPE_DOWN, SHAPE_DISC.
    """
    for i in range(len(xs)):
        reach = radii[i] * 1.8 + 2.0
        rim = 1.0 if radii[i] >= 2.8 else -1.0
        for y in range(int(ys[i] - reach), int(ys[i] + reach) + 1):
            for x in range(int(xs[i] - reach), int(xs[i] + reach) + 1):
                edge = _distance(x - xs[i], y - ys[i], radii[i], shapes[i])
                blend(image, y, x, 255, 255, 255, 0.85 * (0.5 + rim - edge))
                blend(image, y, x, fills[i, 0], fills[i, 1], fills[i, 2], 0.92 * min(0.5 - edge, 1.0))
