"""The notebooks' install cell in the images of Colab and Kaggle, then a training and a prediction.

The lists hold the packages of these images that the package needs too. Colab's is that of its CPU
image of 19 August 2026 (googlecolab/backend-info, pip-freeze.txt). Kaggle's is that of the Colab
image of 14 May 2026, on which Kaggle/docker-python builds, with Kaggle's own protobuf.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.test_notebooks import CHECKOUT, NOTEBOOKS, cells, source

COLAB = """
annotated-types==0.8.0 array_record==0.8.3 etils==1.14.0 flax==0.11.2 grain==0.2.18 jax==0.7.2
jaxlib==0.7.2 matplotlib==3.10.0 ml_dtypes==0.6.0 numpy==2.1.3 optax==0.2.8
orbax-checkpoint==0.12.4 pillow==11.3.0 protobuf==5.29.6 safetensors==0.8.0 scipy==1.16.3
tensorflow-datasets==4.9.10 tensorflow-metadata==1.21.0 tensorstore==0.1.85 tqdm==4.67.3
"""
KAGGLE = """
annotated-types==0.7.0 array_record==0.8.3 etils==1.14.0 flax==0.11.2 grain==0.2.16 jax==0.7.2
jaxlib==0.7.2 matplotlib==3.10.0 ml_dtypes==0.5.4 numpy==2.0.2 optax==0.2.8
orbax-checkpoint==0.11.36 pillow==11.3.0 protobuf==5.29.5 safetensors==0.7.0 scipy==1.16.3
tensorflow-datasets==4.9.9 tensorflow-metadata==1.17.3 tensorstore==0.1.82 tqdm==4.67.3
"""

# As in a notebook, one process installs the package and uses it.
USE = """
import json
import jax
from alexnet_jax.data import synthetic
from alexnet_jax.main import main as train
from alexnet_jax.predict import main as predict

synthetic.SIZES.update(dict.fromkeys(synthetic.SIZES, 40))
tiny = "--model.width 0.05 --data.image-size 72 --data.crop 36 --schedule.epochs 1"
tiny += " --schedule.milestones --optimizer.batch-size 20"
assert train(["--workdir", "run", *tiny.split()]) == 0
assert predict(["--workdir", "run", "photo.png"]) == 0
json.dump({name: importlib.metadata.version(name) for name in before}, open("after.json", "w"))
"""


def find_python(version: str) -> str | None:
    """Return a Python of this version that can fill an environment, from PATH or pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [str(path) for path in pyenv.glob(f"versions/{version}.*/bin/python")]
    if on_path := shutil.which(f"python{version}"):
        candidates.insert(0, on_path)
    for python in candidates:
        # pyenv puts a python3.13 on PATH that does not start where another version is chosen.
        started = subprocess.run(
            [python, "-c", "import ensurepip"], capture_output=True, check=False
        )
        if started.returncode == 0:
            return python
    return None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("image", "version", "packages"), [("Colab", "3.13", COLAB), ("Kaggle", "3.12", KAGGLE)]
)
def test_the_cell_installs_and_the_package_trains_and_predicts(image, version, packages, tmp_path):
    python = find_python(version)
    if python is None:
        pytest.fail(f"Python {version}, which {image} has, is missing; install it.", pytrace=False)
    subprocess.run([python, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PIP_CONSTRAINT", "VIRTUAL_ENV")
    }
    pip = [python, "-m", "pip", "install", "--quiet", *packages.split()]
    subprocess.run(pip, check=True, env=environment)
    cell = source(cells(NOTEBOOKS[0])[0]).replace('source = ".."', f"source = {str(CHECKOUT)!r}")
    (tmp_path / "notebook.py").write_text(cell + "\nassert 'jax' not in sys.modules\n" + USE)
    shutil.copy(CHECKOUT / "experiments/figures/network.png", tmp_path / "photo.png")
    ended = subprocess.run(
        [python, "notebook.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    print(ended.stdout)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "Installed" in ended.stdout
    before = dict(package.split("==") for package in packages.split())
    after = json.loads((tmp_path / "after.json").read_text())
    changed = {name for name in before if after[name] != before[name]}
    assert changed <= {"jax", "jaxlib", "flax", "orbax-checkpoint", "tensorstore"}
