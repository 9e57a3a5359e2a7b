"""Recorded steps: a step of training runs as ever while its kernels are noted, and once two runs did the same, the kernels
alone run again, without Python, tape or allocation.

What is noted is a list of calls with their arguments. Whatever changes from step to step lies in memory: the inputs, the
parameters, the optimizer's options, the state of the random generator. Everything else that a step reads is taken for
constant until an attribute of a module is written or a mode is switched; then the next step runs as ever and is compared.
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import _changes, _core
from ._core import Tensor
from .nn import module as _module

__all__ = ["Capture", "Plan", "capture"]

_log = logging.getLogger("smelt")

MOST_PLANS = 8  # of one step; the least recently used goes
MOST_MISSES = 4  # runs in a row that could not be used; then the step is not recorded any more
MOST_COMPARED = 16  # runs in a row that were compared with their plan, without a replay between them
MOST_DROPPED = 16  # plans that went without having been of use
MOST_KEYS = 32  # that wait for their second run
FIRST_STEPS = 50  # if more than half of these have inputs of a new kind, recording does not pay


class Plan:
    """The calls of a recorded step, and the memory that they need. Steps make it, see `capture` and `Trainer.plan`.

    Example:
        >>> trainer = smelt.Trainer(nn.Linear(4, 2))
        >>> plan = trainer.plan(batch_size=8)
        >>> isinstance(plan, smelt.Plan), len(plan)
        (True, 8)
    """

    def __init__(self, core: _core.Plan):
        self._core = core

    def memory(self) -> int:
        """Bytes that a replay needs besides inputs, parameters, gradients and optimizer state.

        Returns:
            The size of the plan's one piece of memory: every intermediate result and workspace has its place in it, and
            the last byte in use is its last.

        Example:
            >>> trainer = smelt.Trainer(nn.Linear(4, 2))
            >>> 0 < trainer.plan(batch_size=8).memory() <= trainer.plan(batch_size=800).memory()
            True
        """
        return self._core.memory()

    def kernels(self) -> list[str]:
        """The kernels in the order in which they run.

        Returns:
            Names as in `smelt.kernels.impls`.

        Example:
            >>> smelt.Trainer(nn.Linear(4, 2)).plan(batch_size=8).kernels()[-1].endswith("adam")
            True
        """
        return self._core.kernels()

    def blocks(self) -> list[tuple[int, int, int, int]]:
        """Where results and workspaces lie.

        Returns:
            ``(offset, bytes, first, last)`` of each piece of the memory: in use from call ``first`` to call ``last``.

        Example:
            >>> plan = smelt.Trainer(nn.Linear(4, 2)).plan(batch_size=8)
            >>> max(offset + size for offset, size, first, last in plan.blocks()) == plan.memory()
            True
        """
        return self._core.blocks()

    def __len__(self) -> int:
        return len(self._core.kernels())

    def __repr__(self) -> str:
        return f"Plan({_count(len(self), 'kernel')}, {_size(self.memory())})"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _size(n: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} GB"


class _Kept:
    """A plan, and what was true when it was last compared with a run of the step."""

    def __init__(self, plan: _core.Plan, result: Any):
        self.plan, self.result = plan, result
        self.changes = _core.changes()
        self.last_use = 0


class _Key:
    """What is known of steps with one kind of inputs."""

    def __init__(self) -> None:
        self.plans: list[_Kept] = []
        self.waiting: list[tuple[_core.RecordedStep, Any]] = []  # runs without a second one like them
        self.misses = self.compared = 0
        self.why: str | None = None


class Recorder:
    """Decides of each run of a step whether it is replayed, recorded or only run."""

    def __init__(self, what: str):
        self.what = what
        self.off: str | None = None  # why nothing is recorded
        self._arena = _core.Arena()
        self._keys: dict[Any, _Key] = {}
        self._seen: set[Any] = set()
        self._layout = 0
        self._runs = self._replays = self._dropped = 0
        self._key: _Key | None = None  # of the run that is to be recorded
        self._recorder: _core.Recorder | None = None
        self._random: Any = None

    # ------------------------------------------------------------------------------------------------------ replaying

    def lookup(self, key: Any, inputs: list[Tensor]) -> _Kept | None:
        """The plan to replay; none when the step has to run."""
        self._runs += 1
        self._key = None
        _core.advance_generator()  # random calls of a step have the same constants every time
        observed = (
            _module.listener is not None or _core.launches_observed()
        )  # a profile or a trace is of kernels that run
        if self.off or observed or _core.recording() or _core.dry_run_active():
            return None
        layout = _core.layout_generation()
        if layout != self._layout:
            self._keys.clear()
            self._layout = layout
        key = (key, _core.step_environment())
        known = self._keys.pop(key, None)
        if known is None:
            known = self._new(key)
        else:
            self._keys[key] = known  # the last is the one used last
        if known is None or known.why:
            return None
        changes = _core.changes()
        for kept in known.plans:
            if kept.changes == changes and kept.plan.ready(inputs):
                kept.last_use = self._runs
                self._replays += 1
                known.compared = 0
                return kept
        self._key = known
        self._arena.leave()  # the step takes as much again
        return None

    def _new(self, key: Any) -> _Key | None:
        if key not in self._seen:
            self._seen.add(key)
            if self._runs <= FIRST_STEPS and len(self._seen) > FIRST_STEPS // 2:
                self.give_up(
                    f"{len(self._seen)} of its first {self._runs} runs had inputs of a new kind: bring lengths to a few "
                    "sizes, pass numbers that change as arrays, and set options of an optimizer before the call"
                )
                return None
            if len(self._seen) > 1000:
                self._seen.clear()
        while len(self._keys) >= MOST_KEYS:
            del self._keys[next(iter(self._keys))]
        return self._keys.setdefault(key, _Key())

    def give_up(self, why: str) -> None:
        """Ends the recording of the step, for good until `retry`."""
        self._arena.leave()
        self.off = why
        self._keys.clear()
        _log.info("%s is not recorded: %s", self.what, why)

    # ------------------------------------------------------------------------------------------------------ recording

    def start(self, inputs: list[Tensor]) -> list[Tensor]:
        """Records what follows, if `lookup` found that to be worth while; gives the inputs that the step is to use."""
        if self._key is None:
            return inputs
        self._random = _changes.random_state()
        _changes.count_recordings(1)
        try:
            self._recorder = _core.Recorder(inputs, False)
        finally:
            if self._recorder is None:
                _changes.count_recordings(-1)
        return self._recorder.inputs()

    def pause(self) -> None:
        if self._recorder is not None:
            self._recorder.pause()

    def resume(self) -> None:
        """Goes on with the next part of the step."""
        if self._recorder is not None:
            self._recorder.cut()
            self._recorder.resume()

    def abandon(self) -> None:
        if self._recorder is not None:
            self._recorder.finish([])
            self._stop()

    def _stop(self) -> None:
        self._recorder = self._key = None
        _changes.count_recordings(-1)

    def finish(
        self,
        outputs: Sequence[Tensor],
        roots: Sequence[Any],
        result: Any = None,
        why: str = "",
        held: Sequence[int] = (),
    ) -> None:
        """Ends a run.

        Args:
            outputs: what the step gives back.
            roots: where its Python begins.
            result: what a replay gives back besides.
            why: a reason against a replay.
            held: which outputs somebody else holds.
        """
        if self._recorder is None or self._key is None:
            return
        known = self._key
        step = self._recorder.finish(list(outputs))
        self._stop()
        if not why and any(step.makes(i) for i in held):
            why = "a tensor that it gives back is also kept elsewhere"
        if why or step.refusal:
            self._miss(known, why or step.refusal)
        elif not _changes.same_random_state(self._random, _changes.random_state()):
            self._miss(known, "it draws from Python's or NumPy's random numbers")
        else:
            if _changes.reaches_generator(roots):
                self._end(known, "it has a random generator that is not smelt's")
            else:
                self._compare(known, step, result)

    def _compare(self, known: _Key, step: _core.RecordedStep, result: Any) -> None:
        for kept in known.plans:
            if not kept.plan.same_start(step):
                continue
            difference = kept.plan.difference(step) or _difference(kept.result, result)
            if not difference:
                kept.changes = _core.changes()
                known.misses = 0
                known.compared += 1
                self._arena.settle()
                if known.compared >= MOST_COMPARED:
                    self._end(known, "attributes of modules or modes change before each of its runs")
                return
            known.plans.remove(kept)  # the step is another one now
            break
        else:
            difference = ""
        for waiting in known.waiting:
            if waiting[0].same_start(step):
                known.waiting.remove(waiting)
                difference = waiting[0].difference(step) or _difference(waiting[1], result)
                if not difference:
                    known.plans.append(_Kept(_core.Plan(step, self._arena), result))
                    known.plans[-1].last_use = self._runs
                    known.misses = 0
                    self._trim()
                    self._arena.settle()
                    return
                break
        known.waiting = [(step, result), *known.waiting[:1]]
        if difference:
            self._miss(known, difference)

    def _trim(self) -> None:
        plans = [(kept.last_use, key, kept) for key in self._keys.values() for kept in key.plans]
        if len(plans) > MOST_PLANS:
            _, key, kept = min(plans, key=lambda item: item[0])
            key.plans.remove(kept)
            self._dropped += 1
            if self._dropped >= MOST_DROPPED and self._replays < 4 * self._dropped:
                self.give_up(f"its inputs come in more kinds than the {MOST_PLANS} of which plans are kept")

    def _miss(self, known: _Key, why: str) -> None:
        known.misses += 1
        if known.misses >= MOST_MISSES:
            self._end(known, why)

    def _end(self, known: _Key, why: str) -> None:
        known.plans, known.waiting, known.why = [], [], why
        _log.info("%s is not recorded: %s", self.what, why)

    def retry(self) -> None:
        """Forgets why steps were not recorded."""
        self.off = None
        self._seen.clear()
        self._runs = 0
        for key in [key for key, known in self._keys.items() if known.why]:
            del self._keys[key]

    # ------------------------------------------------------------------------------------------------------- telling

    def plans(self) -> list[Plan]:
        kept = [kept for known in self._keys.values() for kept in known.plans]
        return [Plan(k.plan) for k in sorted(kept, key=lambda k: -k.last_use)]

    def describe(self) -> str:
        kept = [kept for known in self._keys.values() for kept in known.plans]
        why = self.off or next((known.why for known in self._keys.values() if known.why), None)
        if (kept or (self._replays and not why)) and not self.off:
            kernels = ", ".join(f"{_count(len(k.plan.kernels()), 'kernel')} in {_size(k.plan.memory())}" for k in kept)
            return f"recorded: {kernels or 'no plan at present'}; {_count(self._replays, 'replay')}"
        return f"not recorded: {why}" if why else "not recorded yet"


def _difference(before: Any, now: Any) -> str:
    return "" if before == now else "two runs of it gave back different things"


# --------------------------------------------------------------------------------------------------------- structures


class _Place:
    """Stands for a tensor in a structure: its number, shape and dtype, and whether it takes a gradient."""

    def __init__(self, number: int, tensor: Tensor):
        self.number = number
        self._kind = (number, tensor.shape, tensor.dtype.name, tensor.requires_grad, tensor.device)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Place) and self._kind == other._kind

    def __hash__(self) -> int:
        return hash(self._kind)


class Same:
    """An object as part of a key: itself, which the key keeps alive, and nothing that is equal to it."""

    def __init__(self, value: object):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


_PLAIN = (bool, int, float, complex, str, bytes, type(None), np.generic)
_MOST_ITEMS = 64  # of a list or dict that counts as plain


def state_of(value: Any) -> Any:
    """What an object that is not a module may be seen to depend on: its attributes that are plain values, or short lists,
    tuples and dicts of them."""
    if isinstance(value, functools.partial):
        return tuple(map(state_of, (value.func, *value.args, *value.keywords.values())))
    if isinstance(value, types.MethodType):
        return state_of(value.__self__)
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType, _module.Module, *_PLAIN)):
        return ()
    return tuple((name, repr(v)) for name, v in _changes.attributes_of(value).items() if _is_plain(v))


def _is_plain(value: Any) -> bool:
    if type(value) in (tuple, list, dict):
        items = [*value, *value.values()] if type(value) is dict else value
        return len(items) <= 2 * _MOST_ITEMS and all(map(_is_plain, items))
    return isinstance(value, _PLAIN)


def _take_apart(value: Any, tensors: list[Tensor], arrays: bool) -> Any:
    """The structure of nested arguments or results, hashable; the tensors within, and arrays, go to the list."""
    if arrays and isinstance(value, (Tensor, np.ndarray)):
        tensors.append(_core.dense(_core.to_tensor(value)))
        return _Place(len(tensors) - 1, tensors[-1])
    if isinstance(value, Tensor):
        tensors.append(value)
        return _Place(len(tensors) - 1, value)
    if type(value) in (tuple, list) or (isinstance(value, tuple) and hasattr(value, "_fields")):
        return (type(value), *(_take_apart(item, tensors, arrays) for item in value))
    if type(value) is dict:
        return (dict, *((key, _take_apart(item, tensors, arrays)) for key, item in value.items()))
    if isinstance(value, (float, complex, np.inexact)):
        return (None, type(value), value, repr(value))  # -0.0 is another constant than 0.0
    return (None, type(value), value, state_of(value))


def _put_together(structure: Any, tensors: Sequence[Tensor]) -> Any:
    if isinstance(structure, _Place):
        return tensors[structure.number]
    kind, *items = structure
    if kind is None:
        return items[1]
    if kind is dict:
        return {key: _put_together(item, tensors) for key, item in items}
    parts = [_put_together(item, tensors) for item in items]
    return kind(*parts) if hasattr(kind, "_fields") else kind(parts)


def _foreign(structure: Any) -> str:
    """Why a result cannot be given back by a replay."""
    if isinstance(structure, _Place):
        return ""
    kind, *items = structure
    if kind is None:
        plain = isinstance(items[1], (bool, int, float, str, bytes, type(None)))
        return "" if plain else f"it gives back a {items[0].__name__}, which a replay cannot make"
    parts = [item for _, item in items] if kind is dict else items
    return next((why for part in parts if (why := _foreign(part))), "")


def _references(items: list[Any], i: int) -> int:
    return sys.getrefcount(items[i])


_IN_LIST = _references([object()], 0)  # of what a list alone holds: versions of Python count differently


class Capture:
    """A function that is recorded while it runs, and then replayed: see `capture`.

    Example:
        >>> double = smelt.Capture(lambda x: x * 2)
        >>> [double(smelt.ones(2)).tolist() for _ in range(3)]
        [[2.0, 2.0], [2.0, 2.0], [2.0, 2.0]]
        >>> double.recording
        'recorded: 1 kernel in 8 bytes; 1 replay'
    """

    def __init__(self, function: Callable[..., Any]):
        if not callable(function):
            raise TypeError(f"capture: needs a function, got {type(function).__name__}")
        self.function = function
        functools.update_wrapper(self, function)
        self._recorder = Recorder(getattr(function, "__name__", type(function).__name__))
        self._lock = threading.RLock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            inputs: list[Tensor] = []
            structure = _take_apart((args, kwargs), inputs, True)
            try:
                hash(structure)
            except TypeError as error:
                raise TypeError(
                    f"capture: arguments must be tensors, arrays, values that hash, or lists, tuples and dicts of them: "
                    f"{error}"
                ) from None
            if _core.recording():  # a part of another step, or of this one
                args, kwargs = _put_together(structure, inputs)
                return self.function(*args, **kwargs)
            kept = self._recorder.lookup(structure, inputs)
            if kept is not None:
                fresh = kept.plan.prepare()  # before anything changes: memory may not suffice
                kept.plan.replay(0, inputs)
                kept.plan.copy_outputs(inputs, fresh)
                return _put_together(kept.result, fresh)
            try:
                args, kwargs = _put_together(structure, self._recorder.start(inputs))
                result = self.function(*args, **kwargs)
                outputs: list[Tensor] = []
                given = _take_apart(result, outputs, False)
                held = [i for i in range(len(outputs)) if _references(outputs, i) > _IN_LIST + 1]  # one is the result's
                self._recorder.finish(outputs, (self.function,), given, _foreign(given), held)
            except BaseException:
                self._recorder.abandon()
                raise
            return _put_together(given, [y if _core.on_tape(y) else y.detach().copy() for y in outputs])

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<capture of {self._recorder.what}: {self.recording}>"

    @property
    def plans(self) -> list[Plan]:
        """The plans, the one used last first; there are several where inputs differ in shape or dtype."""
        return self._recorder.plans()

    @property
    def recording(self) -> str:
        """What has become of the recording, in a sentence: plans and replays, or why there are none."""
        return self._recorder.describe()

    def reset(self) -> None:
        """Drops all plans and begins anew.

        Example:
            >>> double = smelt.capture(lambda x: x * 2)
            >>> y = [double(smelt.ones(2)) for _ in range(2)]
            >>> double.reset()
            >>> double.recording
            'not recorded yet'
        """
        with self._lock:
            self._recorder = Recorder(self._recorder.what)


def capture(function: Callable[..., Any]) -> Capture:
    """Records a step of one's own, such as forward, backward and update, and replays it: also a decorator.

    The first runs are ordinary ones. Once two of them made the same calls, a call replays the kernels: no tape, no
    allocation, and no Python, so what the function prints, counts or appends elsewhere no longer happens.

    Arguments that are tensors or arrays are the step's inputs (the function gets tensors); a plan holds for their shapes and
    dtypes, and for the values of all other arguments. Results are fresh tensors off the tape; plain values among them are
    constants. Parameters, buffers, the optimizer's options as set before the call, and random numbers are read anew by each
    replay. Other things that the function closes over count as constant until an attribute of a module is written; then the
    next call runs the function and compares.

    A function is not recorded, and runs as ever, where a replay could not do what it does: `Capture.recording` says why.
    That it acts differently by a counter or a clock of its own cannot be seen; ``recordable = False`` in a module that
    does so keeps steps with it from being recorded.

    Args:
        function: takes and returns tensors, or tuples, lists and dicts of them, among plain values.

    Returns:
        The function, recorded.

    Raises:
        TypeError: an argument is neither a tensor nor a value that hashes.
        IndexError: a label or index is out of range, in a replay without the layer's path.

    Example:
        >>> model = nn.Linear(4, 2)
        >>> opt = optim.SGD(model.parameters(), lr=0.1)
        >>> @smelt.capture
        ... def step(x, y):
        ...     opt.zero_grad()
        ...     loss = losses.cross_entropy(model(x), y)
        ...     loss.backward()
        ...     opt.step()
        ...     return loss
        >>> x, y = np.eye(4, dtype="float32"), np.array([0, 1, 0, 1])
        >>> values = [step(x, y).item() for _ in range(10)]
        >>> values[9] < values[0], len(step.plans[0]), step.recording.split("; ")[1]
        (True, 8, '7 replays')
    """
    return Capture(function)
