#!/usr/bin/env python3
"""Writes a small MeasurementSet: 8 antennas that see one source of 1 Jy, two arc minutes north of the centre.

usage: make_ms.py FILE.ms
"""

import sys

import numpy as np
from casacore import tables

ANTENNAS = 8
TIMES = 60
SECONDS = 60.0  # of one integration
CHANNELS = np.array([150e6, 151e6, 152e6, 153e6])
START = 5.1e9  # in seconds since MJD 0, in the year 2020
LATITUDE, DECLINATION = np.radians(52.9), np.radians(50.0)
OFFSET = np.radians(2 / 60)
LIGHT = 299792458.0


def main(path):
    columns = tables.maketabdesc(tables.makearrcoldesc("DATA", 0j, ndim=2, valuetype="complex"))
    ms = tables.default_ms(path, tabdesc=columns)

    # Antennas on a spiral, in metres east and north of the array's centre.
    turn = np.linspace(0, 4 * np.pi, ANTENNAS)
    radius = np.linspace(50, 1500, ANTENNAS)
    east, north = radius * np.cos(turn), radius * np.sin(turn)
    xyz = np.stack([-north * np.sin(LATITUDE), east, north * np.cos(LATITUDE)], axis=1)

    fill_subtables(path, xyz)

    first, second = np.triu_indices(ANTENNAS, 1)
    uvw, times = [], []
    for step in range(TIMES):
        hour_angle = np.radians(15 / 3600) * (step - TIMES / 2) * SECONDS * 4
        uvw.append((xyz[second] - xyz[first]) @ rotation(hour_angle).T)
        times.append(np.full(len(first), START + step * SECONDS))
    uvw, times = np.concatenate(uvw), np.concatenate(times)

    # What a source at (l, m) = (0, OFFSET) looks like: one phase for each baseline and channel, no polarization.
    m = np.sin(OFFSET)
    path_length = uvw[:, 1] * m + uvw[:, 2] * (np.sqrt(1 - m * m) - 1)
    phase = 2j * np.pi * path_length[:, None] * CHANNELS / LIGHT
    data = np.zeros((len(uvw), len(CHANNELS), 4), np.complex64)
    data[:, :, 0] = data[:, :, 3] = np.exp(phase)

    ms.addrows(len(uvw))
    ones = np.ones((len(uvw), 4), np.float32)
    values = {
        "UVW": uvw,
        "DATA": data,
        "FLAG": np.zeros(data.shape, bool),
        "WEIGHT": ones,
        "SIGMA": ones,
        "ANTENNA1": np.tile(first, TIMES),
        "ANTENNA2": np.tile(second, TIMES),
        "TIME": times,
        "TIME_CENTROID": times,
        "INTERVAL": np.full(len(uvw), SECONDS),
        "EXPOSURE": np.full(len(uvw), SECONDS),
    }
    for column, value in values.items():
        ms.putcol(column, value)
    ms.close()


def rotation(hour_angle):
    """From the array's coordinates to (u, v, w)."""
    sin_h, cos_h = np.sin(hour_angle), np.cos(hour_angle)
    sin_d, cos_d = np.sin(DECLINATION), np.cos(DECLINATION)
    return np.array([
        [sin_h, cos_h, 0],
        [-sin_d * cos_h, sin_d * sin_h, cos_d],
        [cos_d * cos_h, -cos_d * sin_h, sin_d],
    ])


def fill_subtables(path, xyz):
    width = np.full(len(CHANNELS), CHANNELS[1] - CHANNELS[0])
    direction = np.array([[0.0, DECLINATION]])
    rows = {
        "ANTENNA": [
            {"NAME": f"A{n}", "STATION": f"S{n}", "TYPE": "GROUND-BASED", "MOUNT": "ALT-AZ",
             "POSITION": position, "OFFSET": np.zeros(3), "DISH_DIAMETER": 25.0}
            for n, position in enumerate(xyz)
        ],
        "SPECTRAL_WINDOW": [
            {"NAME": "band", "NUM_CHAN": len(CHANNELS), "CHAN_FREQ": CHANNELS, "CHAN_WIDTH": width,
             "EFFECTIVE_BW": width, "RESOLUTION": width, "REF_FREQUENCY": CHANNELS[0],
             "TOTAL_BANDWIDTH": width.sum(), "MEAS_FREQ_REF": 5}
        ],
        "POLARIZATION": [
            # XX, XY, YX, YY
            {"NUM_CORR": 4, "CORR_TYPE": np.array([9, 10, 11, 12], np.int32),
             "CORR_PRODUCT": np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.int32)}
        ],
        "DATA_DESCRIPTION": [{"SPECTRAL_WINDOW_ID": 0, "POLARIZATION_ID": 0}],
        "FIELD": [
            {"NAME": "field", "NUM_POLY": 0, "SOURCE_ID": -1, "TIME": START,
             "DELAY_DIR": direction, "PHASE_DIR": direction, "REFERENCE_DIR": direction}
        ],
        "OBSERVATION": [
            {"TELESCOPE_NAME": "LASTOUT", "OBSERVER": "nobody",
             "TIME_RANGE": np.array([START, START + TIMES * SECONDS])}
        ],
    }
    for name, wanted in rows.items():
        table = tables.table(f"{path}/{name}", readonly=False, ack=False)
        table.addrows(len(wanted))
        for number, row in enumerate(wanted):
            for column, value in row.items():
                table.putcell(column, number, value)
        table.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
