#!/usr/bin/env python3
"""Says what is in a MeasurementSet's MODEL_DATA, and fails if that is nothing.

usage: model_data.py FILE.ms
"""

import sys

import numpy as np
from casacore import tables

if len(sys.argv) != 2:
    sys.exit(__doc__)
table = tables.table(sys.argv[1], ack=False)
if "MODEL_DATA" not in table.colnames():
    sys.exit("there is no MODEL_DATA")
model = np.abs(table.getcol("MODEL_DATA")[:, :, [0, 3]])
print(f"MODEL_DATA: {model.size} visibilities, {np.count_nonzero(model)} not zero, mean amplitude {model.mean():.3f} Jy")
if not model.any():
    sys.exit("MODEL_DATA is empty")
