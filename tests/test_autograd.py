"""The tape: accumulation, gradient mode, functions of one's own, hooks, stamps of gradients, and what is freed when."""

import gc
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

import smelt
from smelt import nn, optim


def leaf(*values, dtype="float32"):
    return smelt.tensor(list(values), dtype=dtype, requires_grad=True)


def in_use():
    return smelt.memory_stats()["in_use"]


@pytest.fixture
def no_collector():
    """What is freed meanwhile is freed by reference counting alone."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# ------------------------------------------------------------------------------------------------------ accumulation


def test_gradients_add_up_over_uses_and_backwards():
    x, y = leaf(2.0, 3.0), leaf(5.0)
    (x * y + x * x + x).sum().backward()
    assert x.grad.tolist() == [10, 12] and y.grad.tolist() == [5]
    (x * 2).sum().backward()
    assert x.grad.tolist() == [12, 14] and y.grad.tolist() == [5]
    a = x * 3  # a result used twice
    (a + a * a).sum().backward()
    assert x.grad.tolist() == [12 + 3 + 18 * 2, 14 + 3 + 18 * 3]


def test_gradients_reach_through_views_casts_and_broadcasts():
    x = smelt.zeros(2, 3).requires_grad_()
    y = x.reshape(3, 2).T.double()[0] + smelt.zeros(4, 3, dtype="float64")
    y.sum().backward()
    assert x.grad.dtype == "float32" and x.grad.tolist() == [[4, 0, 4], [0, 4, 0]]


def test_many_terms_into_one_leaf():
    """Each of the 1000 uses adds exactly 1 or 2: float32 counts them without rounding."""
    x = leaf(1.0)
    smelt.concat([x * (1 + i % 2) for i in range(1000)]).sum().backward()
    assert x.grad.item() == 1500


def test_the_gradient_given_to_backward():
    x = leaf(1.0, 2.0, 3.0)
    y = x * 2
    y.backward(smelt.tensor([1.0, 0.0, -1.0]))
    assert x.grad.tolist() == [2, 0, -2]
    x.grad = None
    x.backward(smelt.ones(3))
    assert x.grad.tolist() == [1, 1, 1], "a leaf is its own result"
    for grad, error, text in [
        (None, ValueError, r"one element, got shape \(3,\)"),
        (smelt.ones(2), ValueError, r"shape \(3,\), got \(2,\)"),
        (smelt.ones(3, dtype="float64"), TypeError, "float32, got float64"),
    ]:
        with pytest.raises(error, match=text):
            (x * 2).backward(grad)


def test_a_given_gradient_is_neither_kept_nor_changed():
    x, given = leaf(1.0, 2.0), smelt.ones(2)
    for _ in range(2):
        (x + 0).backward(given)
        x.backward(given)
    assert given.tolist() == [1, 1] and x.grad.tolist() == [4, 4] and not x.grad._same_memory(given)
    y = leaf(1.0, 2.0)
    ((x + y) + y).backward(given)  # one gradient flows to three places
    assert x.grad.tolist() == [5, 5] and y.grad.tolist() == [2, 2] and given.tolist() == [1, 1]


def test_dtype_and_shape_of_an_assigned_gradient():
    x = leaf(1.0, 2.0)
    x.grad = smelt.tensor([3.0, 4.0])
    (x * 1).sum().backward()
    assert x.grad.tolist() == [4, 5]
    x.grad = None
    assert x.grad is None
    with pytest.raises(ValueError, match=r"grad: shape must be \(2,\), got \(3,\)"):
        x.grad = smelt.ones(3)
    with pytest.raises(TypeError, match="grad: dtype must be float32, got int64"):
        x.grad = smelt.ones(2, dtype="int64")


# --------------------------------------------------------------------------------------------------- what is recorded


def test_what_requires_a_gradient():
    x = leaf(1.0)
    assert x.is_leaf and x.grad_fn is None and x.grad is None
    y = x * 2
    assert y.requires_grad and not y.is_leaf and y.grad_fn == "mul"
    for made in (x > 0, x.long(), x.argmax(), x.detach(), x.data, x.copy(), smelt.tensor(x), x // 1, x.isnan()):
        assert not made.requires_grad and made.is_leaf
    with pytest.raises(TypeError, match="requires_grad: needs a floating dtype, got int64"):
        smelt.ones(1, dtype="int64").requires_grad = True
    with pytest.raises(ValueError, match=r"requires_grad: .*use x.detach\(\)"):
        y.requires_grad = False
    for nothing in (smelt.ones(1), x.detach()):
        with pytest.raises(RuntimeError, match=r"backward: .*requires a gradient"):
            nothing.backward()


def test_gradient_mode():
    x = leaf(1.0)
    with smelt.no_grad():
        assert not smelt.is_grad_enabled() and not (x * 2).requires_grad
        with smelt.enable_grad():
            assert smelt.is_grad_enabled() and (x * 2).requires_grad
        assert not smelt.is_grad_enabled()
        with smelt.no_grad():
            pass
        assert not smelt.is_grad_enabled()
    assert smelt.is_grad_enabled() and (x * 2).requires_grad

    @smelt.no_grad()
    def frozen(n):
        """Documented."""
        return x * 2 if n == 0 else frozen(n - 1)

    assert not frozen(3).requires_grad and smelt.is_grad_enabled() and frozen.__doc__ == "Documented."
    with pytest.raises(KeyError), smelt.no_grad():
        raise KeyError
    assert smelt.is_grad_enabled(), "an error leaves the mode as it was"
    mode = smelt.no_grad()
    with mode, mode:
        pass
    assert smelt.is_grad_enabled()


def test_detached_tensors_share_memory_and_stop_gradients():
    x = leaf(2.0)
    d = x.detach()
    (x * d).sum().backward()
    assert x.grad.tolist() == [2] and d._same_memory(x) and d.grad is None
    d[0] = 7
    assert x.item() == 7


def test_gradient_mode_belongs_to_a_thread():
    x, seen, entered, leave = leaf(1.0), {}, threading.Event(), threading.Event()

    def other():
        seen["at the start"] = smelt.is_grad_enabled()
        with smelt.no_grad():
            entered.set()
            leave.wait(60)
            seen["inside"] = (x * 2).requires_grad

    thread = threading.Thread(target=other)
    with smelt.no_grad():
        thread.start()
        assert entered.wait(60)
        with smelt.enable_grad():
            assert (x * 2).requires_grad
    assert smelt.is_grad_enabled() and (x * 2).requires_grad
    leave.set()
    thread.join(60)
    assert not thread.is_alive() and seen == {"at the start": True, "inside": False}


def test_different_models_in_different_threads():
    def train(seed, out):
        x = smelt.tensor(np.random.default_rng(seed).normal(size=(64, 64)).astype(np.float32))
        w = smelt.tensor(np.random.default_rng(seed + 1).normal(size=(64, 64)).astype(np.float32), requires_grad=True)
        for _ in range(20):
            ((x @ w).tanh() ** 2).mean().backward()
        out[seed] = w.grad.numpy().copy()

    alone, together = {}, {}
    for seed in (0, 10):
        train(seed, alone)
    threads = [threading.Thread(target=train, args=(seed, together)) for seed in (0, 10)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    for seed in (0, 10):
        np.testing.assert_array_equal(alone[seed], together[seed])


# -------------------------------------------------------------------------------------------- freeing the tape, errors


def test_backward_twice():
    x = leaf(3.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward(retain_graph=True)
    assert x.grad.item() == 12
    y.backward()
    with pytest.raises(RuntimeError, match=r"already freed .*retain_graph=True"):
        y.backward()
    shared = x * x
    shared.sum().backward()
    with pytest.raises(RuntimeError, match="already freed"):
        (shared * 2).sum().backward()
    assert x.grad.item() == 24, "a refused backward adds nothing"


def test_gradients_of_gradients_are_refused():
    x = leaf(3.0)
    with pytest.raises(RuntimeError, match="gradients of gradients are not supported, got create_graph=True"):
        (x * x).sum().backward(create_graph=True)
    assert x.grad is None
    (x * x).sum().backward()
    assert not x.grad.requires_grad


WRITES = {
    "index": lambda x: x.__setitem__(0, 5.0),
    "array": lambda x: x.__setitem__([0], 5.0),
    "assign_": lambda x: x.assign_(5.0),
    "copy_": lambda x: x.copy_(smelt.ones(2)),
    "through a view": lambda x: x.detach()[:1].assign_(5.0),
    "data": lambda x: setattr(x, "data", smelt.ones(2)),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_writing_to_what_backward_needs(write):
    """Backward of exp needs its output, of the product its inputs, of the sum nothing."""
    x, w = leaf(1.0, 2.0), leaf(1.0, 1.0)
    for made, written in [((x * w), w), ((x * w.detach()), w.detach()), ((e := x.exp()), e), ((x @ w), x)]:
        with smelt.no_grad():
            write(written)
        with pytest.raises(RuntimeError, match=r"\(2,\).* changed in place|written|in place"):
            made.sum().backward()
    y = x + w
    with smelt.no_grad():
        write(x)
    y.sum().backward()
    assert x.grad.tolist() == [1, 1]


def test_an_optimizer_step_makes_older_tapes_stale():
    model = nn.Linear(2, 1)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    data = smelt.ones(3, 2).requires_grad_()
    for _ in range(2):  # the first step packs, the second does not
        old = model(data).sum()
        model(data.detach()).sum().backward()
        optimizer.step()
        with pytest.raises(RuntimeError, match="in place"):
            old.backward()


@pytest.mark.parametrize("kind", ["chain", "wide", "python"])
def test_a_deep_tape_is_freed_on_a_flat_stack(kind):
    """In a process with a small stack; 100,000 nodes would overflow it if each freed the one before it."""
    code = f"""
import resource, threading, smelt
kind = {kind!r}
class Add(smelt.Function):
    @staticmethod
    def forward(context, x): return x + 1
    @staticmethod
    def backward(context, grad): return grad
def run():
    x = smelt.tensor([1.0], requires_grad=True)
    for backward in (True, False):
        y = x
        for i in range(100_000 if kind != "python" else 20_000):
            y = y + 1 if kind == "chain" else y + x if kind == "wide" else Add.apply(y)
        if backward:
            y.sum().backward()
        del y
    print(x.grad.item())
threading.stack_size(256 * 1024)
t = threading.Thread(target=run); t.start(); t.join()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-500:]
    assert float(done.stdout) == {"chain": 1, "wide": 100_001, "python": 1}[kind]


def test_the_tape_is_freed_by_backward_and_by_reference_counting(no_collector):
    x = smelt.ones(100, 100).requires_grad_()
    (x * 1).sum().backward()  # x.grad exists from here on
    start = in_use()
    y = x
    for _ in range(10):
        y = (y * 1.01).tanh()
    loss = y.mean()
    del y
    assert in_use() - start >= 10 * x.nbytes, "tanh keeps its outputs"
    loss.backward()
    assert in_use() - start <= 1024, "backward gives back what it needed, though the loss lives"
    del loss
    assert in_use() == start
    z = (x @ x).exp().sum()
    del z
    assert in_use() == start, "a tape without backward is freed with its last result"


def test_results_hooks_and_functions_are_freed_by_reference_counting(no_collector):
    class Keep(smelt.Function):
        @staticmethod
        def forward(context, x):
            y = x * 2
            context.save_for_backward(x, y)
            return y

        @staticmethod
        def backward(context, grad):
            x, y = context.saved_tensors
            return grad * 2 + 0 * (x + y)

    start = in_use()
    for backward in (True, False):
        x = smelt.ones(50, 50).requires_grad_()
        handle = x.register_hook(lambda grad: grad * 2)
        y = Keep.apply(x)
        inner = y.register_hook(lambda grad: grad + 1)
        gone = weakref.ref(y)
        if backward:
            y.sum().backward()
            assert (x.grad == 8).all()
        del x, y, handle, inner
        assert gone() is None
        assert in_use() == start


def test_an_error_in_backward_leaks_nothing_and_leaves_the_library_usable(no_collector):
    class Fails(smelt.Function):
        @staticmethod
        def forward(context, x):
            return x * 1

        @staticmethod
        def backward(context, grad):
            raise KeyError("mine")

    start = in_use()
    x = smelt.ones(50).requires_grad_()
    for _ in range(3):
        with pytest.raises(KeyError, match="mine"):
            (Fails.apply(x * 2) * 3).sum().backward()
    assert smelt.is_grad_enabled() and x.grad is None
    (x * 2).sum().backward()
    assert (x.grad == 2).all()
    del x
    assert in_use() == start


# --------------------------------------------------------------------------------------------- functions of one's own


class Scale(smelt.Function):
    """x * factor and x + shift; gradients as lists of what backward is given."""

    @staticmethod
    def forward(context, x, factor, shift):
        context.factor = factor
        context.save_for_backward(x)
        assert not smelt.is_grad_enabled()
        return x * factor, x + shift

    @staticmethod
    def backward(context, first, second):
        (x,) = context.saved_tensors
        assert x.shape == first.shape and context.needs_input_grad == (True, False, False)
        return first * context.factor + second, None, None


def test_function_with_several_outputs():
    x = leaf(1.0, 2.0)
    y, z = Scale.apply(x, 3.0, smelt.tensor([10.0, 20.0]))
    assert y.grad_fn == "Scale" and y.tolist() == [3, 6] and z.tolist() == [11, 22]
    (y * 2 + z).sum().backward()
    assert x.grad.tolist() == [7, 7]
    x.grad = None
    y, z = Scale.apply(x, 3.0, 1.0)
    z.sum().backward()  # the gradient of y is zeros
    assert x.grad.tolist() == [1, 1]
    with smelt.no_grad():
        assert not Scale.apply(x, 3.0, 1.0)[0].requires_grad
    assert not Scale.apply(smelt.ones(1), 3.0, 1.0)[0].requires_grad


def function(forward, backward):
    return type("Own", (smelt.Function,), {"forward": staticmethod(forward), "backward": staticmethod(backward)})


@pytest.mark.parametrize(
    "result, error, text",
    [
        (lambda g: smelt.ones(3), ValueError, r"Own: gradient 0 must have shape \(2,\), got \(3,\)"),
        (lambda g: (g, g), ValueError, "Own: backward must return 1 gradients, got 2"),
        (lambda g: (), ValueError, "Own: backward must return 1 gradients, got 0"),
        (lambda g: 3.0, TypeError, "Own: .*float"),
    ],
)
def test_wrong_results_of_backward(result, error, text):
    own = function(lambda context, x: x * 1, lambda context, g: result(g))
    with pytest.raises(error, match=text):
        own.apply(leaf(1.0, 2.0)).sum().backward()


def test_other_errors_of_functions():
    with pytest.raises(TypeError, match="Own: forward must return tensors, got int"):
        function(lambda context, x: (x, 3), None).apply(leaf(1.0))
    with pytest.raises(TypeError, match="derived class must define forward"):
        smelt.Function.apply(leaf(1.0))
    with pytest.raises(TypeError, match="derived class must define backward"):
        type("Own", (smelt.Function,), {"forward": staticmethod(lambda c, x: x * 1)}).apply(leaf(1.0)).backward()


def test_function_notices_writes_to_what_it_saved():
    def forward(context, x):
        context.save_for_backward(x)
        return x * x

    own = function(forward, lambda context, g: 2 * g * context.saved_tensors[0])
    x = leaf(1.0, 2.0)
    y = own.apply(x)
    with smelt.no_grad():
        x[0] = 5
    with pytest.raises(RuntimeError, match=r"\(2,\) that backward needs was changed in place"):
        y.sum().backward()
    own.apply(x).sum().backward()
    assert x.grad.tolist() == [10, 4]


def test_function_that_returns_its_input():
    own = function(lambda context, x: x, lambda context, g: g * 2)
    x = leaf(1.0)
    y = own.apply(x)
    y.sum().backward()
    assert x.grad.tolist() == [2] and x.is_leaf and not y.is_leaf


def test_gradcheck_accepts_right_and_catches_wrong_gradients():
    x, y = leaf(0.3, -2.0, dtype="float64"), leaf(1.5, 0.7, dtype="float64")
    assert smelt.gradcheck(lambda x, y: (x * y).tanh(), [x, y])
    assert smelt.gradcheck(lambda x, y: (x * y).sum(), [x, y.detach()])
    assert x.tolist() == [0.3, -2.0], "the inputs are as they were"

    def wrong(at, factor):
        def backward(context, g):
            scale = smelt.ones(2, dtype="float64")
            scale[at] = factor
            return g * 3 * scale

        return function(lambda context, x: x * 3, backward)

    assert smelt.gradcheck(wrong(0, 1).apply, [x])
    for at, factor in [(0, 1.0001), (1, -1), (1, 0), (0, float("nan"))]:
        with pytest.raises(ValueError, match=rf"gradcheck: gradient of input 0 at \({at},\) must be .*, got"):
            smelt.gradcheck(wrong(at, factor).apply, [x])
    with pytest.raises(ValueError, match="input 1 must be float64, got float32"):
        smelt.gradcheck(lambda x, y: (x * y.double()).sum(), [x, leaf(1.0, 2.0)])


def test_gradcheck_sees_a_gradient_that_is_missing():
    x = leaf(0.5, dtype="float64")
    with pytest.raises(ValueError, match="got 0"):
        smelt.gradcheck(function(lambda context, x: x * 3, lambda context, g: None).apply, [x])


# -------------------------------------------------------------------------------------------------------------- hooks


def test_hooks_see_and_replace_gradients():
    x, seen = leaf(1.0, 2.0), []
    y = x * 3
    y.register_hook(lambda grad: seen.append(("y", grad.tolist())))
    y.register_hook(lambda grad: grad * 10)
    handle = x.register_hook(lambda grad: seen.append(("x", grad.tolist())))
    x.register_hook(lambda grad: grad + 1)
    (y + x).sum().backward()
    assert seen == [("y", [1, 1]), ("x", [31, 31])], "a leaf's hook runs once, with the whole gradient"
    assert x.grad.tolist() == [32, 32]
    handle.remove()
    handle.remove()
    (x * 1).sum().backward()
    assert len(seen) == 2 and x.grad.tolist() == [34, 34]


def test_errors_of_hooks():
    with pytest.raises(RuntimeError, match="register_hook: the tensor must require a gradient"):
        smelt.ones(1).register_hook(print)
    for hook, error, text in [
        (lambda grad: smelt.ones(3), ValueError, r"hook: .*\(1,\) and dtype float32, got \(3,\)"),
        (lambda grad: grad.double(), ValueError, "hook: .* got .*float64"),
        (lambda grad: 3.0, TypeError, "hook: must return a tensor or None, got float"),
        (lambda grad: 1 / 0, ZeroDivisionError, "division"),
    ]:
        for x in (leaf(1.0), leaf(1.0) * 1):
            x.register_hook(hook)
            with pytest.raises(error, match=text):
                (x * 2).sum().backward()


# ------------------------------------------------------------------------------------------------------ gradient stamps


def parameters(*shapes):
    return [nn.Parameter(smelt.ones(shape)) for shape in shapes]


def test_a_gradient_is_empty_then_filled_then_stale():
    a, b = parameters((2,), (3,))
    optimizer = optim.SGD([a, b], lr=1.0)
    for round_ in range(3):  # packed from the second round on
        assert (a.grad is None) == (round_ == 0)
        (a * 2).sum().backward()
        assert a.grad.tolist() == [2, 2], "the first write replaces, whatever was there"
        (a * 3).sum().backward()
        assert a.grad.tolist() == [5, 5], "later ones add"
        optimizer.step()
        assert a.grad.tolist() == [5, 5], "a stale gradient can be read"
        assert b.grad is None and b.tolist() == [1, 1, 1], "without a gradient a parameter stays"
    assert a.tolist() == [1 - 15, 1 - 15]
    with pytest.raises(RuntimeError, match="gradient"):
        optimizer.step()  # all are stale
    assert a.tolist() == [-14, -14]
    (a * 1).sum().backward()
    optimizer.zero_grad()
    assert a.grad is None and b.grad is None
    with pytest.raises(RuntimeError, match="gradient"):
        optimizer.step()


def test_a_stale_gradient_takes_no_part_in_a_step():
    a, b = parameters((2,), (2,))
    optimizer = optim.SGD([a, b], lr=1.0)
    (a + b).sum().backward()
    optimizer.step()
    (b * 2).sum().backward()
    optimizer.step()
    assert a.tolist() == [0, 0] and b.tolist() == [-2, -2]
    assert a.grad.tolist() == [1, 1] and b.grad.tolist() == [2, 2]


def test_zero_grad_empties_its_own_gradients_only():
    a, b = parameters((2,), (2,))
    first, second = optim.SGD([a], lr=1.0), optim.SGD([b], lr=1.0)
    (a + b).sum().backward()
    first.zero_grad()
    assert a.grad is None and b.grad.tolist() == [1, 1]
    second.step()
    (a + b * 2).sum().backward()
    assert a.grad.tolist() == [1, 1] and b.grad.tolist() == [2, 2]


def test_overwriting_does_not_read():
    """After zero_grad the memory may hold anything: NaN there must not come through."""
    (a,) = parameters((4,))
    optimizer = optim.SGD([a], lr=0.5)
    for _ in range(2):
        (a * float("nan")).sum().backward()
        assert a.grad.isnan().all()
        optimizer.zero_grad()
        (a * 1).sum().backward()
        assert a.grad.tolist() == [1] * 4
        optimizer.step()
    assert a.tolist() == [0] * 4


def test_assigning_a_gradient_fills_or_empties_it():
    (a,) = parameters((2,))
    optimizer = optim.SGD([a], lr=1.0)
    for expected in ([-2, -3], [-5, -7]):
        a.grad = smelt.tensor([3.0, 4.0])
        optimizer.step()
        assert a.tolist() == expected
    (a * 1).sum().backward()
    a.grad = None
    with pytest.raises(RuntimeError, match="gradient"):
        optimizer.step()


def test_hooks_and_stamps_together():
    (a,) = parameters((2,))
    optimizer = optim.SGD([a], lr=1.0)
    a.register_hook(lambda grad: grad * 2)
    for _ in range(2):
        (a * 1 + a * 2).sum().backward()
        assert a.grad.tolist() == [6, 6]
        optimizer.step()
    assert a.tolist() == [-11, -11]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_hook_may_remove_itself(count):
    x = smelt.tensor([1.0], requires_grad=True)
    y = x * 2
    called, handles = [], []
    for i in range(count):
        handles.append(y.register_hook(lambda g, i=i: (called.append(i), handles[i].remove())[0]))
    y.sum().backward()
    assert called == list(range(count)) and x.grad.tolist() == [2.0]


def test_gradients_never_go_into_arrays_of_the_caller():
    array = np.ones(3, np.float32)
    x = smelt.tensor([1.0, 1.0, 1.0], requires_grad=True)
    z = x * 3
    older = z * 5
    y = z + smelt.zeros(3)
    y.register_hook(lambda g: smelt.from_numpy(array))
    (y.sum() + older.sum()).backward()
    assert array.tolist() == [1, 1, 1] and x.grad.tolist() == [18, 18, 18]


def test_a_hook_on_a_leaf_that_is_the_root():
    x = smelt.tensor(2.0, requires_grad=True)
    x.register_hook(lambda g: g * 10)
    x.backward()
    assert x.grad.item() == 10
