import contextlib
import io
import os
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest

from paddle_srgnn import runtime
from paddle_srgnn.errors import InputError

OURS = ("OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE", "KMP_BLOCKTIME", "PADDLE_SRGNN_TUNING")


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Run code in a process of its own, with none of the variables that tune() or Paddle's import set here."""
    clean = {name: value for name, value in os.environ.items() if name not in OURS}
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


@pytest.fixture
def tuned(monkeypatch):
    """Runs tune() in this process as if Paddle were not imported yet; returns what it has set."""

    def run(amd: bool = True, threads: int | None = None, **environment: str) -> dict:
        mallopt, set_threads = mock.Mock(), mock.Mock()
        paddle = mock.Mock(base=mock.Mock(core=mock.Mock(set_num_threads=set_threads)))

        def import_paddle():
            os.environ.setdefault("OMP_NUM_THREADS", "1")  # as the real one does
            return paddle

        for name in OURS:
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        for name in ("_threads", "_tuned"):  # to be put back
            monkeypatch.setattr(runtime, name, getattr(runtime, name))
        monkeypatch.delitem(sys.modules, "paddle", raising=False)
        monkeypatch.setattr(runtime, "import_paddle", import_paddle)
        monkeypatch.setattr(runtime, "_is_amd", lambda: amd)
        monkeypatch.setattr(runtime.ctypes, "CDLL", lambda _: mock.Mock(mallopt=mallopt))
        returned = runtime.tune(threads)
        return {
            "malloc": mallopt.call_count,
            "threads": [call.args[0] for call in set_threads.call_args_list],
            "returned": returned,
            "mkl": os.environ.get("MKL_DEBUG_CPU_TYPE"),
            "blocktime": os.environ.get("KMP_BLOCKTIME"),
        }

    return run


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="tune() acts on Linux with glibc only")
class TestTune:
    n = len(os.sched_getaffinity(0)) if sys.platform.startswith("linux") else 1

    def test_sets_malloc_mkl_and_all_cores(self, tuned):
        assert tuned() == {"malloc": 2, "threads": [self.n], "returned": self.n, "mkl": "5", "blocktime": "1"}

    def test_does_so_around_the_real_import(self):
        """Paddle's import puts 1 into OMP_NUM_THREADS, which is no wish of the user's."""
        code = "import os; from paddle_srgnn import runtime; runtime._is_amd = lambda: True; print(runtime.tune(), "
        code += "os.environ['OMP_NUM_THREADS'], os.environ['MKL_DEBUG_CPU_TYPE'], os.environ['KMP_BLOCKTIME'])"
        assert printed(code) == f"{self.n} 1 5 1"

    def test_leaves_mkl_alone_on_other_processors(self, tuned):
        found = tuned(amd=False)
        assert (found["mkl"], found["blocktime"]) == (None, "1")

    def test_never_overrides_the_environment(self, tuned):
        found = tuned(OMP_NUM_THREADS="1", MKL_DEBUG_CPU_TYPE="4", KMP_BLOCKTIME="200")
        assert found == {"malloc": 2, "threads": [1], "returned": 1, "mkl": "4", "blocktime": "200"}

    def test_an_explicit_number_of_threads_wins(self, tuned):
        assert tuned(threads=1, OMP_NUM_THREADS="3")["threads"] == [1]

    def test_the_first_number_of_a_list_of_threads_counts(self, tuned):
        assert tuned(OMP_NUM_THREADS="3,2")["returned"] == 3

    def test_a_malformed_number_of_threads_is_ignored(self, tuned):
        assert tuned(OMP_NUM_THREADS="many")["returned"] == self.n

    def test_can_be_turned_off(self, tuned):
        found = tuned(PADDLE_SRGNN_TUNING="0")
        assert found == {"malloc": 0, "threads": [], "returned": 1, "mkl": None, "blocktime": None}

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
    with contextlib.redirect_stdout(io.StringIO()) as tuned:
        exec(code, {})  # this process is tuned
    untuned = printed(code, PADDLE_SRGNN_TUNING="0")
    np.testing.assert_allclose(*(np.array(text.split(), float) for text in (tuned.getvalue(), untuned)), rtol=1e-4)


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

    from paddle_srgnn.training.loop import seed_everything

    def draw():
        seed_everything(5)
        return random.random(), np.random.random(), paddle.rand([2]).tolist()

    assert draw() == draw()


def test_a_gpu_that_is_not_there_is_said_clearly():
    import paddle

    if paddle.device.is_compiled_with_cuda() and paddle.device.cuda.device_count():
        pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match="use the cpu"):
        runtime.set_device("gpu")
    assert runtime.set_device() == "cpu"
    with pytest.raises(InputError, match="tpu"):
        runtime.set_device("tpu")
