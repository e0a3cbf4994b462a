"""The engine that draws. Importing it imports no torch: only the modules that draw or score do."""

import os
import sys

# The libraries read these when they are imported, which any module of an engine does after this one.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# cuBLAS repeats its sums only with a fixed workspace.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# Threads that wait by spinning take the core from whoever they wait for: on a busy two-core machine a training step
# took eight times as long. But a step is thousands of short pieces, after each of which the threads wait for the slowest, and
# to be woken takes longer than most of these waits: so they spin for some microseconds first, and in a process that looks at
# what others use for longer (see `waiting`). Read by OpenMP when torch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
# Where bitsandbytes is installed, diffusers and peft import it, and with it torch's compiler: two seconds of every process, for
# models in 4 bits, which nothing here loads. It also asks the GPU what it can do, which opens the driver, so that no fork of the
# process could use the GPU. To them it is not installed; `training.engine.optimizers` imports it for itself.
sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]
