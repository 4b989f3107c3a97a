import os
import subprocess
import sys

import numpy as np
import pytest

from paddle_srgnn import runtime
from paddle_srgnn.errors import InputError


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Run code in a process of its own, with none of the variables that tune() or Paddle's import set here."""
    ours = ("OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE", "KMP_BLOCKTIME", "PADDLE_SRGNN_TUNING")
    clean = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        [sys.executable, "-c", code], env={**clean, **environment}, capture_output=True, text=True, timeout=120
    )


def printed(code: str, **environment: str) -> str:
    process = python(code, **environment)
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def test_importing_the_package_changes_nothing():
    code = """
import logging, os, sys
before = dict(os.environ), set(sys.modules)
import paddle_srgnn, paddle_srgnn.runtime
assert dict(os.environ) == before[0] and not logging.getLogger().handlers
print({"paddle", "numpy", "pandas"} & (set(sys.modules) - before[1]))
"""
    assert printed(code) == "set()"


def test_paddle_is_imported_quietly_and_leaves_logging_alone():
    code = """
import logging, warnings
from paddle_srgnn.runtime import tune
tune()
root = logging.getLogger()
print(root.handlers, root.level == logging.WARNING)
warnings.warn("still heard")
"""
    process = python(code)
    assert process.stdout.strip() == "[] True"
    assert "ccache" not in process.stderr and "OMP_NUM_THREADS" not in process.stderr
    assert "still heard" in process.stderr


RECORD = """
import ctypes, os
from unittest import mock
from paddle_srgnn import runtime
calls, threads = [], []
class Libc:
    def mallopt(self, *pair):
        calls.append(pair)
paddle = runtime.import_paddle() if {early} else None
with mock.patch.object(runtime.ctypes, "CDLL", lambda _: Libc()), mock.patch.object(runtime, "_is_amd", lambda: {amd}):
    import_paddle = runtime.import_paddle
    def spied():
        paddle = import_paddle()
        paddle.base.core.set_num_threads = threads.append
        return paddle
    runtime.import_paddle = spied
    runtime.tune({threads})
print(len(calls), threads == [len(os.sched_getaffinity(0))], threads, os.environ.get("MKL_DEBUG_CPU_TYPE"),
      os.environ.get("KMP_BLOCKTIME"))
"""


def tuned(early=False, amd=True, threads=None, **environment: str) -> str:
    return printed(RECORD.format(early=early, amd=amd, threads=threads), **environment)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="tune() acts on Linux with glibc only")
class TestTune:
    def test_sets_malloc_mkl_and_all_cores(self):
        n = len(os.sched_getaffinity(0))
        assert tuned() == f"2 True [{n}] 5 1"

    def test_leaves_mkl_alone_on_other_processors(self):
        assert tuned(amd=False).endswith("None 1")

    def test_never_overrides_the_environment(self):
        set_by_the_user = {"OMP_NUM_THREADS": "1", "MKL_DEBUG_CPU_TYPE": "4", "KMP_BLOCKTIME": "200"}
        assert tuned(**set_by_the_user) == "2 False [] 4 200"

    def test_an_explicit_number_of_threads_wins(self):
        assert "[1]" in tuned(threads=1, OMP_NUM_THREADS="3")

    def test_can_be_turned_off(self):
        assert tuned(PADDLE_SRGNN_TUNING="0") == "0 False [] None None"

    def test_after_paddles_import_it_does_the_rest_and_says_so_once(self):
        code = """
import paddle, logging
from paddle_srgnn.runtime import tune
logging.basicConfig(force=True)
tune(); tune()
"""
        assert python(code).stderr.count("after Paddle's import") == 1


def test_tuned_and_untuned_agree_but_for_rounding():
    code = """
import numpy as np, sys
from paddle_srgnn.runtime import tune
tune()
import paddle
from paddle_srgnn import SRGNN
paddle.seed(0)
model = SRGNN({"embedding_dim": 16, "step": 1, "n_items": 500})
rng = np.random.default_rng(0)
seq = rng.integers(1, 500, (32, 10))
output = model(seq, None, rng.integers(1, 500, 32))
output["loss"].backward()
print(output["loss"].item(), *[float(p.grad.abs().sum()) for p in model.parameters()])
"""
    tuned, untuned = (np.array(printed(code, PADDLE_SRGNN_TUNING=value).split(), float) for value in "10")
    np.testing.assert_allclose(tuned, untuned, rtol=1e-4)


def test_without_paddle_one_sentence_says_what_to_install():
    code = """
import sys
class Absent:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "paddle":
            raise ModuleNotFoundError("No module named 'paddle'", name="paddle")
sys.meta_path.insert(0, Absent())
import paddle_srgnn
try:
    paddle_srgnn.SRGNN
except ImportError as error:
    print(error)
"""
    assert "pip install" in printed(code)


def test_seeds_python_numpy_and_paddle():
    import random

    import paddle

    def draw():
        runtime.seed_everything(5)
        return random.random(), np.random.random(), paddle.rand([2]).tolist()

    assert draw() == draw()


def test_a_gpu_that_is_not_there_is_said_clearly():
    import paddle

    if paddle.device.is_compiled_with_cuda() and paddle.device.cuda.device_count():
        pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match="--device cpu"):
        runtime.set_device("gpu")
    assert runtime.set_device() == "cpu"
    with pytest.raises(InputError, match="tpu"):
        runtime.set_device("tpu")
