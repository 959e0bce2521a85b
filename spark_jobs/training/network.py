"""network: the small neural network that orders the head of a list anew, learnt by scikit-learn and exported to ONNX."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from infra.catalog.features.ranking import NETWORK_FEATURES, network_matrix
from infra.contracts.candidates import Float32s
from spark_jobs.training.examples import Examples
from spark_jobs.training.listwise import weights_of

HIDDEN = (32, 16)
PASSES = 8
"""Over the examples: more of them learn users by heart."""

ROWS = 150_000
"""Rows learnt from, at most: some 6 s."""

FIRST_FRACTION = 0.7
"""Of the users teach the network; a network is surer of users whom it knows by heart than of others."""

_OPSET = 17
_TREES = NETWORK_FEATURES.index("trees_score")


def inputs_of(examples: Examples, *, trees: Float32s, light: Float32s) -> Float32s:
    """float32 [rows, len(NETWORK_FEATURES)], by the function that the service calls."""
    return network_matrix(examples.matrix, trees=trees, light=light, products=examples.products)


@dataclass(frozen=True, slots=True)
class Fitted:
    """score = trees x the trees' score + logit x log(p / (1 - p)), where p is the pipeline's chance that a row is taken; the logit
    is what its last layer gives to the sigmoid, in which float32 would lose what tells small chances apart."""

    pipeline: Pipeline
    trees: float
    logit: float

    def scores(self, inputs: Float32s) -> NDArray[np.float64]:
        """float64 [rows], by scikit-learn and numpy: what an export is compared with."""
        return np.asarray(self.trees * inputs[:, _TREES] + self.logit * self.logits(inputs), np.float64)

    def logits(self, inputs: Float32s) -> NDArray[np.float64]:
        """float64 [rows]."""
        layer, network = self.pipeline[:-1].transform(inputs.astype(np.float64)), self.pipeline[-1]
        *hidden, last = zip(network.coefs_, network.intercepts_, strict=True)
        for weights, bias in hidden:
            layer = np.maximum(layer @ weights + bias, 0)
        logits: NDArray[np.float64] = (layer @ last[0] + last[1])[:, 0]
        return logits


def fit(examples: Examples, inputs: Float32s, *, seed: int) -> Fitted:
    """Whether a row is taken is learnt from most of the users; how far that is to be followed beside the trees, from the others.

    Unknown inputs count as the mean, all are brought to one scale. examples: of users who each have a taken row and others.
    """
    rng = np.random.default_rng(seed)
    first = rng.random(len(examples)) < FIRST_FRACTION
    first[: min(2, len(first))] = (True, False)[: len(first)]  # of few users there are some of each kind
    rows = np.flatnonzero(first[examples.owners])
    if len(rows) > ROWS:
        rows = np.sort(rng.choice(rows, ROWS, replace=False))
    network = MLPClassifier(
        HIDDEN, alpha=1e-3, batch_size=512, learning_rate_init=2e-3, max_iter=PASSES, random_state=seed
    )
    pipeline = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # PASSES is what is wanted
        pipeline.fit(inputs[rows].astype(np.float64), examples.grades[rows] > 0)
    rest = ~first[examples.owners]
    alone = Fitted(pipeline, 0.0, 1.0).scores(inputs[rest])
    trees, logit = weights_of(np.column_stack([inputs[rest, _TREES], alone]), examples.where(~first))
    return Fitted(pipeline, trees, logit)


def exported(fitted: Fitted) -> bytes:
    """The same as ONNX: float32 [n, len(NETWORK_FEATURES)] in, float32 [n, 1] out, scaling included."""
    model = to_onnx(
        fitted.pipeline,
        initial_types=[("rows", FloatTensorType([None, len(NETWORK_FEATURES)]))],
        options={id(fitted.pipeline[-1]): {"zipmap": False}},
        target_opset=_OPSET,
    )
    graph = model.graph
    (logit,) = (node.input[0] for node in graph.node if node.op_type == "Sigmoid")
    del graph.output[:]
    numbers = {"trees_weight": np.float32(fitted.trees), "logit_weight": np.float32(fitted.logit)}
    for name, number in {**numbers, "trees": np.array([_TREES], np.int64)}.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(number), name))
    graph.node.extend(
        [
            helper.make_node("Mul", [logit, "logit_weight"], ["by_network"]),
            helper.make_node("Gather", ["rows", "trees"], ["trees_score"], axis=1),
            helper.make_node("Mul", ["trees_score", "trees_weight"], ["by_trees"]),
            helper.make_node("Add", ["by_network", "by_trees"], ["scores"]),
        ]
    )
    graph.output.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 1]))
    graph.doc_string = "inputs: " + ", ".join(NETWORK_FEATURES)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
