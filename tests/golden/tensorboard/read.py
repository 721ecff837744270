"""Reads the event file beside this with TensorBoard's own reader and checks it: `pip install tensorboard; python read.py`.

The file is what `native/src/tensorboard.rs` writes in its test; blessed anew, it has to pass here again.
"""

import math
import pathlib

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

PATH = pathlib.Path(__file__).parent / "events.out.tfevents.temper"

events = EventAccumulator(str(PATH), size_guidance={"tensors": 0, "scalars": 0})
events.Reload()
found = {}
for tag in sorted(events.Tags()["scalars"]):
    found[tag] = [(e.step, e.wall_time - 1.7e9, e.value) for e in events.Scalars(tag)]
for tag in sorted(events.Tags()["tensors"]):
    found[tag] = [(e.step, e.wall_time - 1.7e9, e.tensor_proto.float_val[0]) for e in events.Tensors(tag)]
for tag, points in found.items():
    print(tag, points)

assert len(list(RawEventFileLoader(str(PATH)).Load())) == 5, "a version, two steps, two evaluations"
assert len(found) == 15
near = lambda a, b: a == b or math.isclose(a, b, rel_tol=1e-6)
want = {
    "eval/target_loss": [(0, 0, 4.0), (300, 300, 2.0)],
    "eval/general_loss": [(0, 0, 3.5), (300, 300, 3.5)],
    "eval/wrong_loss": [(300, 300, 6.0)],
    "train/loss": [(1, 1, 2.5), (300, 300, 2.5 / 300)],
    "train/open_cross_entropy": [(300, 300, 4.0)],
    "train/gradient_norm": [(1, 1, 1.5), (300, 300, math.inf)],
    "train/peak_device_bytes": [(1, 1, 5e9), (300, 300, 5e9)],
}
for tag, points in want.items():
    assert len(found[tag]) == len(points), tag
    assert all(all(map(near, a, b)) for a, b in zip(found[tag], points)), (tag, found[tag])
print("as written")
