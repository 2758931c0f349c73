"""Images on their way to the device: sources, crops, statistics, batches. Imports only storage/.

A source (`sources.py`, `synthetic.py`, `array_record.py`, `tfds.py`, `imagenet.py`) gives labeled
images by number. `folders.py` lists folders, `layout.py` decides which of them are splits and
classes, for every command, and `label_tables.py` finds labels beside images. `splits.py` opens the
train, validation and test split of a run, `wrappers.py` resizes and caches their images,
`statistics.py` computes mean and principal axes of color, and `pipeline.py` makes batches as a
function of the step. `shards/` prepares a source once, as shards.
"""
