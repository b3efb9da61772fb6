"""Crossbars with resistive wires solved node by node, dense float64 NumPy: what `ir_drop` approximates."""

import numpy as np


def effective(conductance, ratio):
    """Exact effective conductances: currents of the columns for one volt on each row alone.

    Row `i` is driven through a wire before its first cell, column `j` is sensed at 0 volts through a wire before its
    first cell; `ratio` is the resistance of every wire. Block elimination from row to row.
    """
    rows, columns = conductance.shape
    wire = 1.0 / ratio
    ladder = 2 * np.eye(columns) - np.eye(columns, k=1) - np.eye(columns, k=-1)
    ladder[-1, -1] = 1
    # a word line alone: its nodes are affine in the voltages of the bit lines below them
    from_drive, from_bits = [], []
    for row in range(rows):
        inverse = np.linalg.inv(wire * ladder + np.diag(conductance[row]))
        from_drive.append(wire * inverse[:, 0])
        from_bits.append(inverse * conductance[row])
    # bit lines: (own + wires) v_i - wire v_{i-1} - wire v_{i+1} = sources; eliminate from the far end to the sensed one
    reduced, sources = [None] * rows, [None] * rows
    for row in reversed(range(rows)):
        cells = np.diag(conductance[row])
        block = cells - cells @ from_bits[row] + wire * np.eye(columns) * (2 if row < rows - 1 else 1)
        source = np.zeros((columns, rows))
        source[:, row] = conductance[row] * from_drive[row]
        if row < rows - 1:
            block = block - wire * wire * reduced[row + 1]
            source = source + wire * reduced[row + 1] @ sources[row + 1]
        reduced[row], sources[row] = np.linalg.inv(block), source
    return (wire * reduced[0] @ sources[0]).T


def assembled(conductance, ratio, voltages):
    """Column currents from one system with a row per node, written down branch by branch: for small arrays."""
    rows, columns = conductance.shape
    system, source = np.zeros((2 * rows * columns,) * 2), np.zeros(2 * rows * columns)

    def branch(one, other, value):
        for here, there in ((one, other), (other, one)):
            if here is not None:
                system[here, here] += value
                if there is not None:
                    system[here, there] -= value

    for row in range(rows):
        for column in range(columns):
            word, bit = row * columns + column, (rows + row) * columns + column
            branch(word, bit, conductance[row, column])
            branch(word, word - 1 if column else None, 1 / ratio)
            branch(bit, bit - columns if row else None, 1 / ratio)
        source[row * columns] = voltages[row] / ratio
    solved = np.linalg.solve(system, source)
    return solved[rows * columns : (rows + 1) * columns] / ratio
