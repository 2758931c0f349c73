"""Images on their way to the device: sources, augmentation, statistics, batches. Knows no model."""
