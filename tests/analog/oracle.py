"""A crossbar in NumPy, as slow and as literal as its description: one loop per index, int64 and float64."""

import numpy as np

from modicum.analog import limb_bits


def cells_of(magnitude, spec):
    """Digits of one magnitude, by repeated division."""
    digits = []
    for _ in range(spec.cells):
        magnitude, digit = divmod(int(magnitude), 2**spec.cell_bits)
        digits.append(digit)
    assert magnitude == 0
    return digits


def store(levels, spec):
    """Cell levels `[p, c, f, m, n]`, signs `[p, f, n]` and flips `[p, c, f, n]` of integer weights."""
    rows, columns = levels.shape
    fragments = -(-rows // spec.fragment)
    cells = np.zeros((spec.polarities, spec.cells, fragments, spec.fragment, columns), np.int64)
    signs = np.ones((spec.polarities, fragments, columns), np.int64)
    flips = np.zeros((spec.polarities, spec.cells, fragments, columns), bool)
    for column in range(columns):
        for fragment in range(fragments):
            part = levels[fragment * spec.fragment : (fragment + 1) * spec.fragment, column]
            if spec.encoding == "offset":
                whole_part = np.zeros(spec.fragment, np.int64)
                whole_part[: len(part)] = part
                wanted = [(1, whole_part + 2 ** (spec.weight_bits - 1))]
            elif spec.encoding == "differential":
                wanted = [(1, np.maximum(part, 0)), (-1, np.maximum(-part, 0))]
            else:
                sign = 1 if (part[part > 0] ** 2).sum() >= (part[part < 0] ** 2).sum() else -1
                wanted = [(sign, np.maximum(sign * part, 0))]
            for polarity, (sign, magnitudes) in enumerate(wanted):
                signs[polarity, fragment, column] = sign
                for row, magnitude in enumerate(magnitudes):
                    cells[polarity, :, fragment, row, column] = cells_of(magnitude, spec)
    if spec.adc_bits is not None and spec.adc_mode == "flip":
        full = 2**spec.cell_bits - 1
        flips = cells.sum(axis=3) > spec.fragment * full / 2
        cells = np.where(flips[:, :, :, None, :], full - cells, cells)
    return cells, signs, flips


def stick(conductance, drawn, spec):
    """Conductances after stuck-at faults, cell by cell: stuck off below the first probability, on below the sum."""
    off = 0.0 if spec.on_off_ratio is None else (2**spec.cell_bits - 1) / (spec.on_off_ratio - 1)
    stuck = np.array(conductance, np.float64)
    for place in np.ndindex(stuck.shape):
        if drawn[place] < spec.stuck_off:
            stuck[place] = off
        elif drawn[place] < spec.stuck_off + spec.stuck_on:
            stuck[place] = off + 2**spec.cell_bits - 1
    return stuck


def convert_one(current, spec):
    """Codes of an ADC, and the smallest distance of a current from a transition between codes."""
    if spec.adc_bits is None:
        return np.rint(current), np.abs(current - np.floor(current) - 0.5).min()
    inl = spec.adc_inl or [0.0] * (2**spec.adc_bits - 1)
    code, distance = np.zeros(current.shape), np.inf
    for transition, error in enumerate(inl):
        # in units after gain and offset, where ideal transitions lie half-way between codes
        reached = spec.adc_gain * current + spec.adc_offset + error - (transition + 0.5)
        code, distance = code + (reached >= 0), min(distance, np.abs(reached).min())
    return code, distance


def read_all(conductance, signs, flips, codes, spec, noise=None):
    """The integer product, read by read; also the smallest distance of a current from a transition.

    `noise[pass, bit, fragment, p, c, vector, column]` is added to currents.
    """
    polarities, cells, fragments, height, columns = conductance.shape
    full = 2**spec.cell_bits - 1
    off = 0.0 if spec.on_off_ratio is None else full / (spec.on_off_ratio - 1)
    padded = np.zeros((codes.shape[0], fragments * height), np.int64)
    padded[:, : codes.shape[1]] = codes
    total = np.zeros((codes.shape[0], columns), np.int64)
    tie = np.inf
    for turn, (stream, direction) in enumerate(((np.maximum(padded, 0), 1), (np.maximum(-padded, 0), -1))):
        if turn == 1 and spec.input_format == "unsigned":
            break
        for bit in range(spec.input_bits):
            on = (stream >> bit) & 1
            for fragment in range(fragments):
                window = on[:, fragment * height : (fragment + 1) * height]
                active = window.sum(axis=1, keepdims=True)
                for polarity in range(polarities):
                    for cell in range(cells):
                        current = window @ (conductance[polarity, cell, fragment].astype(np.float64) - off)
                        if noise is not None:
                            current = current + noise[turn, bit, fragment, polarity, cell]
                        code, distance = convert_one(current, spec)
                        tie = min(tie, distance)
                        code = code.astype(np.int64)
                        code = np.where(flips[polarity, cell, fragment], full * active - code, code)
                        weight = direction * 2 ** (bit + cell * spec.cell_bits)
                        total += weight * signs[polarity, fragment] * code
                if spec.encoding == "offset":  # the unit column
                    total -= direction * 2 ** (bit + spec.weight_bits - 1) * active
    return total, tie


def whole(limbs, spec, rows):
    """Limbs of `integer_product` as int64."""
    shift = limb_bits(spec, rows)
    return sum(np.asarray(limb).astype(np.int64) << (place * shift) for place, limb in enumerate(limbs))


def draw_levels(rng, rows, columns, spec):
    """Random integer weights that the encoding can hold, the extremes among them."""
    levels = rng.integers(-spec.levels, spec.levels + 1, (rows, columns))
    if spec.encoding == "polarized":
        for start in range(0, rows, spec.fragment):
            levels[start : start + spec.fragment] = np.abs(levels[start : start + spec.fragment]) * rng.choice(
                [-1, 1], (1, columns)
            )
    levels[:, -1] = spec.levels
    return levels


def draw_codes(rng, vectors, rows, spec):
    """Random input codes; the first vector is all ones in every bit."""
    lowest = -spec.input_levels if spec.input_format == "signed" else 0
    codes = rng.integers(lowest, spec.input_levels + 1, (vectors, rows))
    codes[0] = spec.input_levels
    return codes
