"""network: a snapshot's small neural network (ONNX), ready to score; to the bit the same whatever else is scored with it."""

from __future__ import annotations

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as states

from infra.catalog.features.ranking import NETWORK_HEAD
from infra.contracts.candidates import Float32s
from infra.contracts.errors import SnapshotCorrupt

ROWS = NETWORK_HEAD
"""Of a call, always: fewer are filled up with zeros. How a matrix product is cut into blocks depends on its size alone, so a row's
score cannot depend on how many others there are."""

_ERRORS = (states.InvalidProtobuf, states.InvalidGraph, states.Fail, states.NotImplemented, states.InvalidArgument)


class Network:
    """The network of one snapshot, on one native thread."""

    def __init__(self, content: bytes, *, inputs: int) -> None:
        """content: ONNX, from float32 [n, inputs] to float32 [n] or [n, 1]. Raises SnapshotCorrupt where it is anything else."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except _ERRORS as error:
            raise SnapshotCorrupt(
                f"The network cannot be read: {str(error).splitlines()[0]}", mend="Build again: make snapshot"
            ) from error
        seen = [(one.type, one.shape) for one in self._session.get_inputs()]
        if len(seen) != 1 or seen[0][0] != "tensor(float)" or len(seen[0][1]) != 2 or seen[0][1][1] != inputs:
            raise SnapshotCorrupt(f"The network takes {seen}; wanted one tensor(float) [n, {inputs}].")
        self._input = self._session.get_inputs()[0].name
        self._inputs = inputs
        first = self._call(np.zeros((ROWS, inputs), np.float32))
        if first.size != ROWS or first.dtype != np.float32:
            raise SnapshotCorrupt(
                f"The network gives {first.dtype} {first.shape} for {ROWS} rows; wanted float32 [{ROWS}]."
            )

    def scores(self, rows: Float32s) -> Float32s:
        """float32 [n]: of rows float32 [n, inputs]; ROWS at a time."""
        out = np.empty(len(rows), np.float32)
        for low in range(0, len(rows), ROWS):
            part = rows[low : low + ROWS]
            whole = np.zeros((ROWS, self._inputs), np.float32)
            whole[: len(part)] = part
            out[low : low + len(part)] = self._call(whole).reshape(-1)[: len(part)]
        return out

    def _call(self, whole: Float32s) -> Float32s:
        (scores,) = self._session.run(None, {self._input: whole})
        return np.asarray(scores)
