"""Open an ONNX model in little memory."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import time
from pathlib import Path

import onnxruntime
import structlog

log = structlog.get_logger(__name__)

_PROVIDERS = ["CPUExecutionProvider"]
_DISABLED = ["SkipLayerNormFusion"]  # the fused node takes twice the time of the two that it replaces
_FOLDER_PREFIX = "ragq-model-"
_LEFT_BEHIND_SECONDS = 60.0  # an older folder was left by a killed process; one in use exists under a second
_CPU_INFO = Path("/proc/cpuinfo")


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """Open a model with its weights mapped from a file: 10 MB beside the file's pages, instead of 45 MB from bytes.

    The file is deleted once it is mapped. If a process is killed before that, the next one deletes the file.
    """
    try:
        for old in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*"):
            with contextlib.suppress(OSError):  # another process deleted it first
                if old.stat().st_mtime < time.time() - _LEFT_BEHIND_SECONDS:
                    shutil.rmtree(old, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=_FOLDER_PREFIX) as folder:
            path = Path(folder, "model.onnx")
            options = _make_options()
            options.optimized_model_filepath = str(path)
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
            options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
            _open(model, options)
            return _open(path, _make_options())
    except Exception as error:  # noqa: BLE001  (onnxruntime has errors of its own for a full disk)
        log.warning("model_not_mapped", error=str(error))
        return _open(model, _make_options())


def _open(model: bytes | Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model, options, providers=_PROVIDERS, disabled_optimizers=_DISABLED)


def _make_options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # the arena never returns the memory of the largest batch
    options.log_severity_level = 3  # no warnings about what `fold` left unused
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.x64quantprecision", "0" if _adds_int8_exactly() else "1")
    return options


def _adds_int8_exactly() -> bool:
    """Whether the processor has VNNI. Others add int8 products with saturation, unless onnxruntime takes a slower way.

    That way takes 1.65 times as long, and would do so with VNNI, too, for the same vectors.
    """
    try:
        return re.search(r"\bavx(512)?_vnni\b", _CPU_INFO.read_text()) is not None
    except OSError:  # not Linux
        return False
