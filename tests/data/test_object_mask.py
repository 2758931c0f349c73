"""Where the object of a synthetic image is: those pixels that its class decides."""

import numpy as np

from alexnet_jax.data import synthetic


def test_the_object_is_where_the_class_changes_the_image():
    for index in range(12):
        scene = synthetic.scene("test", index)
        mask = synthetic.object_mask(scene)
        assert mask.shape == (72, 72)
        assert mask.dtype == bool
        images = [synthetic.paint(scene, label).astype(int) for label in range(20)]
        differs = np.ptp(np.stack(images), axis=0).max(axis=-1) > 2
        # The outline is soft for a pixel, and pebbles cover a part.
        assert (differs & ~mask).sum() < 0.1 * mask.sum()
        assert (differs & mask).sum() > 0.75 * mask.sum()
        rows, columns = np.nonzero(mask)
        center = [np.mean(side) - 35.5 for side in (columns, rows)]
        np.testing.assert_allclose(center, [scene.values["x"], scene.values["y"]], atol=0.5)
