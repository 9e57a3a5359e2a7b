"""Loss classes against functions and formulas; metrics against counts made by hand, batch by batch."""

import json
import math
import re

import numpy as np
import pytest

import smelt
from smelt import losses, metrics, nn

N, C = 40, 7


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def cross_entropy(x, y, weight=None, smoothing=0.0, ignore=-100):
    """Value of each row and its weight."""
    weight = np.ones(x.shape[-1]) if weight is None else weight
    p = np.log(softmax(x))
    own = np.where(y == ignore, 0, y)
    rows = -(1 - smoothing) * weight[own] * np.take_along_axis(p, own[..., None], -1)[..., 0]
    rows = rows - smoothing / x.shape[-1] * (weight * p).sum(-1)
    return np.where(y == ignore, 0, rows), np.where(y == ignore, 0, weight[own])


def binary(x, t, positive=1.0):
    return -(positive * t * np.log(1 / (1 + np.exp(-x))) + (1 - t) * np.log(1 / (1 + np.exp(x))))


def huber(d, delta):
    return np.where(np.abs(d) <= delta, d * d / 2, delta * (np.abs(d) - delta / 2))


WEIGHT, POSITIVE = np.linspace(0.5, 2, C), np.linspace(0.5, 3, C)
ELEMENTWISE = {
    "mse": (lambda r: nn.MSELoss(r), lambda p, t, r: losses.mse_loss(p, t, r), lambda p, t: (p - t) ** 2),
    "l1": (lambda r: nn.L1Loss(r), lambda p, t, r: losses.l1_loss(p, t, r), lambda p, t: np.abs(p - t)),
    "huber": (
        lambda r: nn.HuberLoss(0.6, r),
        lambda p, t, r: losses.huber_loss(p, t, 0.6, r),
        lambda p, t: huber(p - t, 0.6),
    ),
    "binary": (
        lambda r: nn.BCEWithLogitsLoss(reduction=r),
        lambda p, t, r: losses.binary_cross_entropy_with_logits(p, t, None, r),
        lambda p, t: binary(p, t),
    ),
    "binary weighted": (
        lambda r: nn.BCEWithLogitsLoss(smelt.tensor(POSITIVE), r),
        lambda p, t, r: losses.binary_cross_entropy_with_logits(p, t, smelt.tensor(POSITIVE), r),
        lambda p, t: binary(p, t, POSITIVE),
    ),
}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_losses(name, reduction, rng):
    make, function, formula = ELEMENTWISE[name]
    p, t = rng.normal(size=(N, C)), rng.random((N, C))
    given = smelt.tensor(p), smelt.tensor(t)
    got = make(reduction)(*given)
    np.testing.assert_array_equal(got.numpy(), function(*given, reduction).numpy())
    exact = formula(p, t)
    exact = {"mean": exact.mean(), "sum": exact.sum(), "none": exact}[reduction]
    # Terms are not negative: a sum of them loses at most one unit a term. The formula here loses up to 64 units of 1 in
    # logarithms of numbers near 1, where the terms themselves are of the order of 1.
    terms = 1 if reduction == "none" else N * C
    np.testing.assert_allclose(got.numpy(), exact, rtol=(terms + 64) * 2.0**-53, atol=64 * 2.0**-53 * terms)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("options", [{}, {"weight": WEIGHT}, {"label_smoothing": 0.2}, {"ignore_index": 3},
                                     {"weight": WEIGHT, "label_smoothing": 0.1, "ignore_index": -100}])  # fmt: skip
@pytest.mark.parametrize("shape", [(N,), (5, 8)])
def test_cross_entropy(options, reduction, shape, rng):
    x, y = rng.normal(size=(*shape, C)) * 3, rng.integers(0, C, shape)
    if options.get("ignore_index") == -100:
        y[..., ::5] = -100
    given = {k: smelt.tensor(v) if k == "weight" else v for k, v in options.items()}
    got = nn.CrossEntropyLoss(**given, reduction=reduction)(smelt.tensor(x), smelt.tensor(y))
    function = losses.cross_entropy(smelt.tensor(x), smelt.tensor(y), **given, reduction=reduction)
    np.testing.assert_array_equal(got.numpy(), function.numpy())
    smoothing, ignore = options.get("label_smoothing", 0.0), options.get("ignore_index", -100)
    rows, weights = cross_entropy(x, y, options.get("weight"), smoothing, ignore)
    exact = {"mean": rows.sum() / weights.sum(), "sum": rows.sum(), "none": rows}[reduction]
    # As above: at most N rows of C terms, none negative, each log of a sum of C exponentials.
    np.testing.assert_allclose(got.numpy(), exact, rtol=(N + C * 2 + 64) * 2.0**-53, atol=64 * 2.0**-53 * N)


def test_losses_of_nothing_and_of_extremes():
    nothing = losses.cross_entropy(smelt.zeros(0, 3), smelt.zeros(0, dtype="int64"))
    ignored = losses.cross_entropy(smelt.zeros(2, 3), smelt.tensor([-100, -100]))
    assert math.isnan(nothing.item()) and math.isnan(ignored.item())
    assert math.isnan(losses.mse_loss(smelt.zeros(0), smelt.zeros(0)).item())
    assert losses.mse_loss(smelt.zeros(0), smelt.zeros(0), "sum").item() == 0
    x = smelt.tensor([[1000.0, -1000.0]])
    assert losses.cross_entropy(x, smelt.tensor([0])).item() == 0
    assert losses.cross_entropy(x, smelt.tensor([1])).item() == 2000
    logits = smelt.tensor([500.0, -500.0])
    each = losses.binary_cross_entropy_with_logits(logits, smelt.tensor([0.0, 1.0]), reduction="none")
    assert each.tolist() == [500, 500]
    rows = losses.cross_entropy(smelt.tensor([[np.nan, 0.0], [0.0, 0.0]]), smelt.tensor([0, 0]), reduction="none")
    assert math.isnan(rows[0].item()) and rows[1].item() == pytest.approx(math.log(2), rel=2.0**-22)
    p = smelt.tensor([[0.5, 0.2], [0.1, 0.9]], requires_grad=True)
    losses.cross_entropy(p, smelt.tensor([-100, 1])).backward()
    assert p.grad[0].tolist() == [0, 0] and p.grad[1].any().item()


PAIRWISE = [losses.mse_loss, losses.l1_loss, losses.huber_loss, losses.binary_cross_entropy_with_logits]
CLASSES = [nn.MSELoss(), nn.L1Loss(), nn.HuberLoss(), nn.BCEWithLogitsLoss()]


@pytest.mark.parametrize("loss", PAIRWISE + CLASSES, ids=lambda f: getattr(f, "__name__", type(f).__name__))
@pytest.mark.parametrize(("a", "b"), [((5, 1), (5,)), ((5,), (5, 1)), ((5, 1), (5, 5)), ((1,), (5,)), ((), (1,))])
def test_shapes_are_never_broadcast(loss, a, b):
    with pytest.raises(ValueError, match=re.escape(f"must have one shape, got {a} and {b}")):
        loss(smelt.zeros(a), smelt.zeros(b))


X, Y = smelt.zeros(3, 4), smelt.tensor([0, 1, 2])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: losses.cross_entropy(X, smelt.tensor([0, 4, 1])), IndexError, "labels must be in [0, 4), got 4 at"),
        (lambda: losses.cross_entropy(X, smelt.tensor([0, 1, -1])), IndexError, "[0, 4), got -1 at position 2"),
        (lambda: losses.cross_entropy(X, smelt.tensor([0.0, 1, 2])), TypeError, "cross_entropy: labels must be integers"),
        (lambda: losses.cross_entropy(X, smelt.tensor([0, 1])), ValueError, "cross_entropy"),
        (lambda: losses.cross_entropy(X, smelt.tensor([[0], [1], [2]])), ValueError, "cross_entropy"),
        (lambda: losses.cross_entropy(smelt.zeros(3), smelt.tensor(1)), ValueError, "cross_entropy"),
        (lambda: losses.cross_entropy(smelt.zeros(3, 4, dtype="int64"), Y), TypeError, "cross_entropy"),
        (lambda: losses.cross_entropy(X, Y, weight=smelt.ones(3)), ValueError, "cross_entropy: weight must"),
        (lambda: losses.cross_entropy(X, Y, label_smoothing=1.0), ValueError, "label_smoothing must be in [0, 1), got 1"),
        (lambda: losses.cross_entropy(X, Y, label_smoothing=-0.1), ValueError, "label_smoothing must be in [0, 1), got -0.1"),
        (lambda: losses.cross_entropy(X, Y, reduction="avg"), ValueError, "reduction: must be 'mean', 'sum' or 'none'"),
        (lambda: nn.MSELoss("avg")(X, X), ValueError, "reduction: must be 'mean', 'sum' or 'none', got 'avg'"),
        (lambda: losses.huber_loss(X, X, delta=0.0), ValueError, "huber_loss: delta must be positive, got 0"),
        (lambda: losses.mse_loss(X, smelt.zeros(3, 4, dtype="int64")), TypeError, "mse_loss"),
        (lambda: losses.get("mae"), ValueError, "loss: must be one of cross_entropy, binary_cross_"),
    ],
)  # fmt: skip
def test_loss_errors(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_losses_by_name():
    own = lambda outputs, targets: outputs.sum()  # noqa: E731
    assert losses.get(own) is own and losses.get("huber") is losses.huber_loss
    assert losses.get("cross_entropy") is losses.cross_entropy and losses.get("l1") is losses.l1_loss
    trainer = smelt.Trainer(nn.Linear(2, 1), loss="mse")
    with pytest.raises(
        ValueError,
        match=r"^Trainer: mse_loss: input and target must have one shape, got \(4, 1\) and \(4,\); use y\[:, None\]$",
    ):
        trainer.step(smelt.ones(4, 2), smelt.ones(4))


# ------------------------------------------------------------------------------------------------------------- metrics


def batches(rng, rows=53, classes=5, size=10):
    """Scores of classes 0 to 4 where class 4 never is a label, and class 3 never is predicted."""
    scores, labels = rng.normal(size=(rows, classes)), rng.integers(0, classes - 1, rows)
    scores[np.arange(rows), labels] += 1
    scores[:, 3] -= 100
    return scores, labels, [slice(i, i + size) for i in range(0, rows, size)]


def by_hand(scores, labels):
    """Hits, predictions and rows of each class."""
    predicted = scores.argmax(1)
    each = [
        (sum((predicted == c) & (labels == c)), sum(predicted == c), sum(labels == c)) for c in range(scores.shape[1])
    ]
    return np.array(each, float).T


def safe(a, b):
    return np.array([x / y if y else 0.0 for x, y in zip(np.atleast_1d(a), np.atleast_1d(b))])


RATIOS = {
    metrics.Precision: lambda hits, given, rows: safe(hits, given),
    metrics.Recall: lambda hits, given, rows: safe(hits, rows),
    metrics.F1: lambda hits, given, rows: safe(2 * hits, given + rows),
}


@pytest.mark.parametrize("average", ["micro", "macro", "weighted", None])
@pytest.mark.parametrize("cls", RATIOS)
def test_precision_recall_f1(cls, average, rng):
    scores, labels, cuts = batches(rng)
    hits, given, rows = by_hand(scores, labels)
    each = RATIOS[cls](hits, given, rows)
    assert each[3] == 0 and rows[4] == 0  # the awkward classes are there
    expected = {
        "micro": RATIOS[cls](hits.sum(), given.sum(), rows.sum())[0],
        "macro": each[(given > 0) | (rows > 0)].mean(),
        "weighted": (each * rows).sum() / rows.sum(),
        None: each.tolist(),
    }[average]
    m = cls(average)
    for _ in range(2):  # the second round shows that reset forgets
        m.reset()
        for cut in cuts:
            m.update(smelt.tensor(scores[cut]), smelt.tensor(labels[cut]))
        assert m.compute() == pytest.approx(expected, rel=1e-14)  # a few float64 operations
    whole = cls(average)
    whole.update(scores.argmax(1), labels)  # classes in NumPy instead of scores in tensors
    for got, want in zip(np.atleast_1d(whole.compute()), np.atleast_1d(m.compute())):
        assert got == want
    again = cls(average)
    again.load_state(json.loads(json.dumps(m.state())))
    assert again.compute() == m.compute()
    if average == "micro":
        accuracy = metrics.Accuracy()
        accuracy.update(scores, labels)
        assert m.compute() == pytest.approx(accuracy.compute(), rel=1e-14)


def test_accuracy_and_confusion_matrix(rng):
    scores, labels, cuts = batches(rng)
    accuracy, matrix = metrics.Accuracy(), metrics.ConfusionMatrix()
    expected = np.zeros((5, 5), int)
    for cut in cuts:
        accuracy.update(smelt.tensor(scores[cut]), smelt.tensor(labels[cut]))
        matrix.update(smelt.tensor(scores[cut]), smelt.tensor(labels[cut]))
        for label, guess in zip(labels[cut], scores[cut].argmax(1)):
            expected[label, guess] += 1
        np.testing.assert_array_equal(matrix.compute(), expected)
        assert accuracy.compute() == np.trace(expected) / expected.sum()
    again = metrics.ConfusionMatrix()
    again.load_state(json.loads(json.dumps(matrix.state())))
    again.update([4], [0])
    assert again.compute()[0, 4] == expected[0, 4] + 1 and matrix.compute()[0, 4] == expected[0, 4]
    matrix.reset()
    assert matrix.compute().shape == (0, 0)
    fixed = metrics.ConfusionMatrix(3)
    fixed.update([1], [1])
    assert fixed.compute().tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    grown = metrics.ConfusionMatrix()
    for label in (0, 4, 1):
        grown.update([label], [label])
    assert np.diag(grown.compute()).tolist() == [1, 1, 0, 0, 1]


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_top_k(k, rng):
    scores, labels, cuts = batches(rng)
    best = np.argsort(-scores, 1)[:, :k]
    m = metrics.get(f"top{k}")
    for cut in cuts:
        m.update(smelt.tensor(scores[cut]), smelt.tensor(labels[cut]))
    assert m.compute() == (best == labels[:, None]).any(1).mean() and m.name == f"top{k}"
    if k == 5:
        assert m.compute() == 1
    m.reset()
    m.update(smelt.tensor([[0.5, 0.5, 0.5, 0.5, 0.5]]), smelt.tensor([4]))
    assert m.compute() == 1  # ties count for the row


@pytest.mark.parametrize("name", ["accuracy", "precision", "recall", "f1", "confusion_matrix", "top1", "top2"])
def test_scores_that_are_nan_name_the_row(name):
    """One NaN is enough, also of a class that is not the row's; infinity is a score."""
    m = metrics.get(name)
    with pytest.raises(ValueError, match=rf"^{name}: scores must not be NaN, those of 2 rows are \(first row 1\)$"):
        m.update(smelt.tensor([[0.0, 1.0], [np.nan, 1.0], [np.nan, np.nan]]), smelt.tensor([1, 1, 0]))
    m.update(smelt.tensor([[-np.inf, 1.0], [np.inf, 0.0]]), smelt.tensor([1, 0]))
    assert np.trace(m.compute()) == 2 if name == "confusion_matrix" else m.compute() == 1, (
        "nothing of the error is left"
    )


def test_more_axes_and_two_columns():
    tokens, labels = smelt.zeros(2, 3, 4), smelt.zeros(2, 3, dtype="int64")
    for name in ("accuracy", "top2", "precision"):
        m = metrics.get(name)
        m.update(tokens, labels)
        assert m.compute() == 1
    m = metrics.Accuracy()
    m.update(smelt.tensor([1, 0, 1]), smelt.tensor([[1], [0], [0]]))  # leading axes are flattened
    assert m.compute() == 2 / 3


def test_nothing_gives_nan():
    for name in ("accuracy", "precision", "recall", "f1", "top3"):
        m = metrics.get(name)
        assert math.isnan(m.compute())
        m.update(smelt.zeros(0, 3), smelt.zeros(0, dtype="int64"))
        assert math.isnan(m.compute())
    assert math.isnan(metrics.Loss().compute())


def test_loss_metric():
    m = metrics.Loss()
    m.add(2.0, rows=3)
    m.add(0.5, rows=1)
    assert m.compute() == 6.5 / 4
    again = metrics.Loss()
    again.load_state(json.loads(json.dumps(m.state())))
    again.add(1.0, rows=4)
    assert again.compute() == 10.5 / 8
    m.reset()
    m.update(smelt.tensor([1.0, 2.0]), None)
    assert m.compute() == 1.5


@pytest.mark.parametrize("name", ["accuracy", "precision", "recall", "f1", "top2", "confusion_matrix"])
def test_wrong_outputs_and_labels(name):
    m = metrics.get(name)
    for labels in (smelt.tensor([0.0, 1.0]), np.array([0.5, 1.0])):
        with pytest.raises(TypeError, match=rf"{name}: labels must be integers, got float"):
            m.update(smelt.zeros(2, 3), labels)
    for outputs in (smelt.zeros(3, 4), smelt.zeros(4), smelt.zeros(2), smelt.zeros(0, 3)):
        message = rf"{name}: outputs must be \(N, classes\).* for 2 labels, got {re.escape(str(outputs.shape))}"
        with pytest.raises(ValueError, match=message):
            m.update(outputs, smelt.tensor([0, 1]))
    for labels, wrong in (([0, 3], 3), ([-1, 0], -1)):
        with pytest.raises(ValueError, match=rf"^{name}: labels must be in \[0, 3\), got {wrong};"):
            m.update(smelt.zeros(2, 3), smelt.tensor(labels))
    value = m.compute()  # nothing of the refused batches was counted
    assert value.sum() == 0 if name == "confusion_matrix" else math.isnan(value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: metrics.get("auc"),
            "metrics: must be one of accuracy, precision, recall, f1, confusion_matrix, top<k> or a",
        ),
        (lambda: metrics.get("top0"), "TopK: k must be a whole number of at least 1, got 0"),
        (lambda: metrics.TopK(1.5), "TopK: k must be a whole number of at least 1, got 1.5"),
        (
            lambda: metrics.TopK(5).update(np.zeros((2, 3)), [0, 1]),
            "top5: k must be at most the number of classes, 3, got 5",
        ),
        (lambda: metrics.get("topk"), "metrics: must be one of"),
        (lambda: metrics.F1("binary"), "f1: average must be 'micro', 'macro', 'weighted' or None, got 'binary'"),
        (lambda: metrics.ConfusionMatrix(3).update([3], [0]), "confusion_matrix: classes must be in [0, 3), got 3"),
        (lambda: metrics.ConfusionMatrix().update([0], [-1]), "confusion_matrix: classes must not be negative, got -1"),
    ],
)
def test_metric_errors(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_a_metric_of_ones_own():
    class Mistakes(metrics.Metric):
        name = "mistakes"

        def reset(self):
            self.count = 0

        def update(self, outputs, labels):
            self.count += int((outputs.argmax(-1) != labels).sum())

        def compute(self):
            return self.count

    own = Mistakes()
    assert metrics.get(own) is own
    trainer = smelt.Trainer(nn.Linear(2, 2), metrics=[own, "accuracy"])
    x, y = np.ones((10, 2), np.float32), np.arange(10) % 2
    report = trainer.evaluate((x, y), batch_size=3)
    assert report["mistakes"] == 5 and report["accuracy"] == 0.5
    with pytest.raises(TypeError, match="Metric: a derived class must define compute"):
        metrics.Metric().compute()
