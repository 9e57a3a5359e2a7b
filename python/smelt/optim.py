"""Optimizers over flat buffers: one kernel call a step, whatever the number of parameters.

Parameters, gradients and state of an optimizer lie in one buffer each; a :class:`~smelt.nn.Parameter` is a view. The move
happens at the first ``step()``. After ``step()`` gradients stay readable, and the next backward starts afresh; within a
step, several backwards add up.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

from . import _core
from ._core import Tensor
from .functions._types import is_finite_number

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "get"]

_READS = "it reads a counter or an option of an optimizer, which the next step may find changed"

Parameters = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Sequence[dict[str, Any]]


def _range(name: str, option: str, value: Any, low: float, high: float | None = None, high_open: bool = False) -> float:
    if not is_finite_number(value):
        raise ValueError(f"{name}: {option} must be a finite number, got {value!r}")
    good = value >= low and (high is None or (value < high if high_open else value <= high))
    if not good:
        bounds = f"at least {low:g}" if high is None else f"in [{low:g}, {high:g}{')' if high_open else ']'}"
        raise ValueError(f"{name}: {option} must be {bounds}, got {value}")
    return float(value)


def _items(name: str, parameters: Any) -> list[Any]:
    if isinstance(parameters, Tensor) or not isinstance(parameters, Iterable):
        raise TypeError(
            f"{name}: parameters must be a list of tensors, such as model.parameters(), got {type(parameters).__name__}"
        )
    return list(parameters)


class ParameterGroup:
    """Parameters with options of their own. Attributes may be set between steps; ``lr`` is one of them.

    Example:
        >>> opt = optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)
        >>> opt.groups[0].lr = 0.01
        >>> opt.lr
        0.01
    """

    names: list[str]
    _optimizer: weakref.ref[Optimizer]
    _options: dict[str, Any]

    def __init__(self, names: list[str], options: dict[str, Any], optimizer: Optimizer):
        self.__dict__.update(names=names, _options=dict(options), _optimizer=weakref.ref(optimizer))

    def __getattr__(self, name: str) -> Any:
        if name not in self.__dict__["_options"]:
            raise AttributeError(f"ParameterGroup: has no option {name!r}, only {', '.join(self._options)}")
        _core.refuse_recording(_READS)
        return self._options[name]

    def __setattr__(self, name: str, value: Any) -> None:
        options = self._options
        if name not in options:
            raise AttributeError(f"ParameterGroup: option must be one of {', '.join(options)}, got {name!r}")
        optimizer = self._optimizer()
        if optimizer is None:
            raise RuntimeError("ParameterGroup: its optimizer was deleted")
        optimizer._check({**options, name: value})
        optimizer._numbers({**options, name: value})
        options[name] = value
        optimizer._write_options()

    def options(self) -> dict[str, Any]:
        """The options as a dict.

        Example:
            >>> optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1).groups[0].options()
            {'lr': 0.1, 'momentum': 0.0, 'weight_decay': 0.0}
        """
        _core.refuse_recording(_READS)
        return dict(self._options)


class Optimizer:
    """What SGD, Adam and AdamW share; make one of those.

    Example:
        >>> isinstance(optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1), optim.Optimizer)
        True
    """

    _kind = ""
    _defaults: dict[str, Any] = {}  # noqa: RUF012
    groups: list[ParameterGroup]

    def __init__(
        self, parameters: Parameters, options: dict[str, Any], clip_norm: float | None, momentum: bool, nesterov: bool
    ):
        self._clip_norm: float | None = None
        self.clip_norm = clip_norm
        self.groups = []
        self._given: list[tuple[str, Tensor]] = []
        self._core = _core.Optimizer(self._kind, momentum, nesterov)
        items = _items(type(self).__name__, parameters)
        if not items:
            raise ValueError(f"{type(self).__name__}: needs at least one parameter, got none")
        given = items if isinstance(items[0], dict) else [{"params": items}]
        for entry in given:
            own = dict(entry)
            params = own.pop("params", None)
            unknown = set(own) - set(options)
            if params is None or unknown:
                raise ValueError(
                    f"{type(self).__name__}: a group needs 'params' and may have {', '.join(options)}, "
                    f"got {', '.join(map(repr, entry))}"
                )
            self.add_group(params, **{**options, **own})

    def add_group(self, parameters: Any, **options: Any) -> None:
        """Takes in more parameters, with options of their own.

        Args:
            parameters: parameters, or pairs of name and parameter.
            options: of the group; those left out have the class's defaults.

        Raises:
            ValueError: an option is out of range, or a parameter belongs to an optimizer already.

        Example:
            >>> a, b = nn.Linear(2, 2), nn.Linear(2, 2)
            >>> opt = optim.AdamW(a.parameters(), lr=1e-3)
            >>> opt.add_group(b.parameters(), lr=1e-4)
            >>> [g.lr for g in opt.groups]
            [0.001, 0.0001]
        """
        options = {**self._defaults, **options}
        self._check(options)
        named: list[tuple[str, Tensor]] = []
        taken = {name for name, _ in self._given}
        places = {(p.size and p._address()) or -id(p): (name, p) for name, p in self._given}
        for item in _items(type(self).__name__, parameters):
            name, p = item if isinstance(item, tuple) else (getattr(item, "path", "") or "", item)
            if not isinstance(p, Tensor):
                raise TypeError(f"{type(self).__name__}: parameters must be tensors, got {type(p).__name__}")
            name = name or f"parameter {len(self._given) + len(named)}"
            frozen = type(p) is Tensor and p.dtype.is_floating and not p.requires_grad  # a Parameter may be
            if not p.is_leaf or frozen:
                got = f"a result of {p.grad_fn}" if not p.is_leaf else "requires_grad=False"
                raise ValueError(f"{type(self).__name__}: {name} must be a leaf that requires a gradient, got {got}")
            place = (p.size and p._address()) or -id(p)
            if place in places:
                other_name, other = places[place]
                problem = f"parameter '{name}' is given twice"
                if other is not p:
                    problem = f"parameters '{other_name}' and '{name}' share memory: tie them as one Parameter"
                raise ValueError(f"optimizer: {problem}")
            places[place] = (name, p)
            # Parameters of two models may have one path; the state needs names that differ.
            unique, count = name, 1
            while unique in taken:
                count += 1
                unique = f"{name} ({count})"
            taken.add(unique)
            named.append((unique, p))
        group = ParameterGroup([name for name, _ in named], options, self)
        self._numbers(options)
        self._core.add_group(named)
        self._given += named
        self.groups.append(group)
        self._write_options()

    def _write_options(self) -> None:
        """Hands the groups' options to the core, where also the next replay of a recorded step finds them."""
        _core.refuse_recording("it sets an option of an optimizer")
        for i, group in enumerate(self.groups):
            self._core.set_group(i, *self._numbers(group._options))

    def _set_rates(self, rates: Sequence[float]) -> None:
        for group, rate in zip(self.groups, rates):
            group._options["lr"] = rate
        self._write_options()

    @classmethod
    def _check(cls, options: dict[str, Any]) -> None:
        raise TypeError("Optimizer: make an SGD, Adam or AdamW")

    def _numbers(self, o: dict[str, Any]) -> tuple[float, float, float, float, float]:
        """lr, weight_decay, eps, beta1, beta2."""
        raise TypeError("Optimizer: make an SGD, Adam or AdamW")

    def __getattr__(self, name: str) -> Any:
        if name not in type(self)._defaults:
            raise AttributeError(f"{type(self).__name__}: has no attribute {name!r}")
        return getattr(self.groups[0], name)

    def __setattr__(self, name: str, value: Any) -> None:
        """An option of the class is one of every group."""
        if name == "lr" or name not in type(self)._defaults:
            object.__setattr__(self, name, value)
            return
        for group in self.groups:
            setattr(group, name, value)

    @property
    def lr(self) -> float:
        """The learning rate of the first group; setting it sets that of every group."""
        _core.refuse_recording(_READS)
        return float(self.groups[0]._options["lr"])

    @lr.setter
    def lr(self, value: float) -> None:
        checked = _range(type(self).__name__, "lr", value, 0.0)
        self._set_rates([checked] * len(self.groups))

    @property
    def clip_norm(self) -> float | None:
        """The norm that the gradient of all parameters together is scaled down to, None for no clipping."""
        return self._clip_norm

    @clip_norm.setter
    def clip_norm(self, value: float | None) -> None:
        # An infinite norm only measures, and skips steps that are not finite.
        if value is not None and not (value == math.inf or (is_finite_number(value) and value > 0)):
            raise ValueError(f"{type(self).__name__}: clip_norm must be above 0, or None, got {value!r}")
        if value != self._clip_norm:
            _core.note_change("the optimizer's clip_norm")
        self._clip_norm = value

    @property
    def steps(self) -> int:
        """How many steps were taken."""
        _core.refuse_recording(_READS)
        return self._core.steps

    @property
    def skipped_steps(self) -> int:
        """How many steps changed nothing because the gradient's norm was not finite (with ``clip_norm`` only)."""
        _core.refuse_recording(_READS)
        return self._core.skipped

    @property
    def grad_norm(self) -> float:
        """The gradient's norm before the last clipping, NaN before the first (with ``clip_norm`` only)."""
        return self._core.last_norm

    def step(self) -> None:
        """Updates every parameter that has a gradient.

        Raises:
            RuntimeError: no parameter has one, or a NumPy or DLPack view of a parameter is alive when the parameters are
                moved into the flat buffer.

        Example:
            >>> layer = nn.Linear(2, 1)
            >>> opt = optim.SGD(layer.parameters(), lr=0.1)
            >>> layer(smelt.ones(1, 2)).sum().backward()
            >>> opt.step()
            >>> opt.steps
            1
        """
        self._step()

    def _step(self, loss: Tensor | None = None) -> None:
        """An update, which is left out, with all that follow, where the loss is not finite."""
        self._core.step(self.clip_norm or 0.0, loss)
        _core.advance_generator()

    def zero_grad(self) -> None:
        """Makes every gradient empty, at a cost that does not depend on their number.

        Example:
            >>> layer = nn.Linear(2, 1)
            >>> opt = optim.SGD(layer.parameters(), lr=0.1)
            >>> layer(smelt.ones(1, 2)).sum().backward()
            >>> opt.zero_grad()
            >>> layer.weight.grad is None
            True
        """
        self._core.zero_grad()

    def release(self) -> None:
        """Lets go of the parameters, so that another optimizer may take them; they keep their values.

        Example:
            >>> layer = nn.Linear(2, 1)
            >>> opt = optim.Adam(layer.parameters())
            >>> opt.release()
            >>> opt = optim.SGD(layer.parameters(), lr=0.1)
        """
        self._core.release()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on besides parameters and gradients.

        Returns:
            ``{"steps", "skipped", "groups": [options], "state": {name: {parameter: Tensor}}}``, the tensors on the
            optimizer's own memory.

        Example:
            >>> opt = optim.AdamW(nn.Linear(2, 1).parameters())
            >>> sorted(opt.state_dict()["state"])
            ['exp_avg', 'exp_avg_sq']
        """
        state: dict[str, dict[str, Tensor]] = {}
        for i in range(self._core.parameter_count):
            for name, value in self._core.state(i).items():
                state.setdefault(name, {})[self._core.parameter_name(i)] = value
        return {
            "steps": self.steps,
            "skipped": self.skipped_steps,
            "groups": [group.options() for group in self.groups],
            "state": state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a state of an optimizer over the same parameters.

        Args:
            state: from :meth:`state_dict`.

        Raises:
            ValueError: groups, names or shapes disagree; nothing is changed then.

        Example:
            >>> layer = nn.Linear(2, 1)
            >>> opt = optim.SGD(layer.parameters(), lr=0.1)
            >>> opt.load_state_dict({"steps": 5, "skipped": 0, "groups": [{"lr": 0.2}], "state": {}})
            >>> opt.steps, opt.lr
            (5, 0.2)
        """
        self._check_state(state)
        own = self.state_dict()["state"]
        values = {
            (name, parameter): _core.to_tensor(value)._detach()
            for name, of in state["state"].items()
            for parameter, value in of.items()
        }
        for name, targets in own.items():
            for parameter in targets:
                if (name, parameter) not in values:
                    raise ValueError(f"load_state_dict: '{name}' of parameter '{parameter}' is missing")
        for (name, parameter), value in values.items():
            target = own.get(name, {}).get(parameter)
            if target is None:
                raise ValueError(f"load_state_dict: the optimizer has no '{name}' of parameter '{parameter}'")
            if target.shape != value.shape:
                raise ValueError(
                    f"load_state_dict: '{name}' of '{parameter}' must have shape {target.shape}, got {value.shape}"
                )
        for (name, parameter), value in values.items():
            _core.assign(own[name][parameter], _core.to_device(value, own[name][parameter].device))
        for group, options in zip(self.groups, state["groups"]):
            group._options.update({k: tuple(v) if isinstance(v, list) else v for k, v in options.items()})
        self._write_options()
        self._core.retract()  # steps that were given to a GPU and failed
        self._core.steps = state["steps"]
        self._core.skipped = state.get("skipped", 0)

    def _check_state(self, state: Any) -> None:
        """The structure of a state, its numbers and its options."""
        kinds = {"steps": int, "groups": list, "state": dict}
        good = isinstance(state, dict) and all(isinstance(state.get(key), kind) for key, kind in kinds.items())
        if not good or not all(isinstance(part, dict) for part in [*state["groups"], *state["state"].values()]):
            given = (
                f"a dict with {', '.join(map(repr, state)) or 'nothing'}" if isinstance(state, dict) else repr(state)
            )
            raise ValueError(
                "load_state_dict: needs a dict with 'steps' (a number), 'groups' (a list of dicts) and 'state' (a dict "
                f"of dicts), got {given}"
            )
        for key in ("steps", "skipped"):
            value = state.get(key, 0)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
                raise ValueError(f"load_state_dict: '{key}' must be a whole number of at least 0, got {value!r}")
        if len(state["groups"]) != len(self.groups):
            raise ValueError(
                f"load_state_dict: the optimizer has {len(self.groups)} groups, the state {len(state['groups'])}"
            )
        for group, options in zip(self.groups, state["groups"]):
            for option in options:
                if option not in group.options():
                    raise ValueError(f"load_state_dict: {type(self).__name__} has no option '{option}'")
            self._check({**group.options(), **options})
            self._numbers({**group.options(), **options})

    def __repr__(self) -> str:
        groups = "; ".join(", ".join(f"{k}={v}" for k, v in g.options().items()) for g in self.groups)
        return f"{type(self).__name__}({groups})"


class SGD(Optimizer):
    """Stochastic gradient descent: m = momentum m + g, p -= lr m, with g the gradient plus weight_decay p.

    With ``nesterov`` the step is lr (g + momentum m) (Sutskever et al., 2013).

    Args:
        parameters: parameters, pairs of name and parameter, or dicts with ``"params"`` and options.
        lr: learning rate, at least 0.
        momentum: in [0, 1).
        weight_decay: added to the gradient as a multiple of the parameter, at least 0.
        nesterov: look ahead; needs momentum.
        clip_norm: scale the gradient of all parameters together down to this norm, above 0; a step whose norm is not finite
            changes nothing and is counted in ``skipped_steps``.

    Raises:
        ValueError: an option is out of range, or a parameter belongs to an optimizer already.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> opt = optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
        >>> layer(smelt.ones(1, 2)).sum().backward()
        >>> opt.step()
    """

    _kind = "sgd"
    _defaults = {"lr": 1e-2, "momentum": 0.0, "weight_decay": 0.0}  # noqa: RUF012

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-2,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        clip_norm: float | None = None,
    ):
        if nesterov and momentum == 0:
            raise ValueError("SGD: nesterov needs momentum above 0, got 0")
        self.nesterov = nesterov
        options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        items = _items("SGD", parameters)
        uses = momentum != 0 or any(isinstance(g, dict) and g.get("momentum", 0) != 0 for g in items)
        self._momentum = uses
        super().__init__(items, options, clip_norm, uses, nesterov)

    @classmethod
    def _check(cls, options: dict[str, Any]) -> None:
        _range("SGD", "lr", options["lr"], 0.0)
        _range("SGD", "momentum", options["momentum"], 0.0, 1.0, high_open=True)
        _range("SGD", "weight_decay", options["weight_decay"], 0.0)

    def _numbers(self, o: dict[str, Any]) -> tuple[float, float, float, float, float]:
        if o["momentum"] and not self._momentum:
            raise ValueError(f"SGD: momentum must be 0 in an optimizer made without it, got {o['momentum']}")
        return o["lr"], o["weight_decay"], 0.0, o["momentum"], 0.0


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015); ``weight_decay`` is added to the gradient.

    Bias corrections count the optimizer's steps, also for parameters that had no gradient in some of them.

    Args:
        parameters: parameters, pairs of name and parameter, or dicts with ``"params"`` and options.
        lr: learning rate, at least 0.
        betas: decay of the mean gradient and of the mean square, each in [0, 1).
        eps: added to the root of the mean square, at least 0.
        weight_decay: added to the gradient as a multiple of the parameter, at least 0.
        clip_norm: scale the gradient of all parameters together down to this norm, above 0; a step whose norm is not finite
            changes nothing and is counted in ``skipped_steps``.

    Raises:
        ValueError: an option is out of range, or a parameter belongs to an optimizer already.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> opt = optim.Adam(layer.parameters(), lr=1e-3)
        >>> layer(smelt.ones(1, 2)).sum().backward()
        >>> opt.step()
    """

    _kind = "adam"
    _defaults = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}  # noqa: RUF012

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
    ):
        options = {
            "lr": lr,
            "betas": tuple(betas) if isinstance(betas, list) else betas,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(parameters, options, clip_norm, False, False)

    @classmethod
    def _check(cls, options: dict[str, Any]) -> None:
        name = cls.__name__
        _range(name, "lr", options["lr"], 0.0)
        betas = options["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"{name}: betas must be two numbers, got {betas!r}")
        for beta in betas:
            _range(name, "betas", beta, 0.0, 1.0, high_open=True)
        _range(name, "eps", options["eps"], 0.0)
        _range(name, "weight_decay", options["weight_decay"], 0.0)

    def _numbers(self, o: dict[str, Any]) -> tuple[float, float, float, float, float]:
        return o["lr"], o["weight_decay"], o["eps"], o["betas"][0], o["betas"][1]


class AdamW(Adam):
    """Adam with decoupled weight decay: p is first multiplied by 1 - lr weight_decay (Loshchilov and Hutter, 2019).

    Args:
        parameters: parameters, pairs of name and parameter, or dicts with ``"params"`` and options.
        lr: learning rate, at least 0.
        betas: decay of the mean gradient and of the mean square, each in [0, 1).
        eps: added to the root of the mean square, at least 0.
        weight_decay: at least 0.
        clip_norm: scale the gradient of all parameters together down to this norm, above 0; a step whose norm is not finite
            changes nothing and is counted in ``skipped_steps``.

    Raises:
        ValueError: an option is out of range, or a parameter belongs to an optimizer already.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> opt = optim.AdamW(layer.parameters(), lr=1e-3, weight_decay=0.05)
        >>> layer(smelt.ones(1, 2)).sum().backward()
        >>> opt.step()
    """

    _kind = "adamw"
    _defaults = {**Adam._defaults, "weight_decay": 0.01}  # noqa: RUF012

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        clip_norm: float | None = None,
    ):
        super().__init__(parameters, lr, betas, eps, weight_decay, clip_norm)


_BY_NAME: dict[str, type[SGD] | type[Adam]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}


def get(name: str, parameters: Parameters, **options: Any) -> Optimizer:
    """An optimizer by name.

    Args:
        name: ``"sgd"``, ``"adam"`` or ``"adamw"``.
        parameters: as the classes take them.
        options: as the classes take them.

    Returns:
        The optimizer.

    Raises:
        ValueError: the name is unknown.

    Example:
        >>> optim.get("sgd", nn.Linear(2, 1).parameters(), lr=0.1)
        SGD(lr=0.1, momentum=0.0, weight_decay=0.0)
    """
    if name not in _BY_NAME:
        raise ValueError(f"optimizer: must be one of {', '.join(_BY_NAME)}, got {name!r}")
    return _BY_NAME[name](parameters, **options)
