"""The class Module: parameters, buffers, children, hooks, and where in a model an error happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from .. import _changes as changes
from .. import _core
from .._core import Tensor
from ..functions._types import names_device

if TYPE_CHECKING:
    import inspect

__all__ = ["Module", "Parameter"]

M = TypeVar("M", bound="Module")


class Parameter(Tensor):
    """A tensor that training changes: assigned to an attribute of a :class:`Module`, it belongs to the module.

    Args:
        data: the initial value, floating; memory is shared with it.
        requires_grad: False for a frozen parameter.

    Example:
        >>> p = nn.Parameter(smelt.zeros(2))
        >>> p.requires_grad
        True
    """

    path: str = ""  # the name in the model whose parameters() gave it last

    def __init__(self, data: Tensor, requires_grad: bool = True):
        if not isinstance(data, Tensor):
            raise TypeError(f"Parameter: data must be a tensor, got {type(data).__name__}; use smelt.tensor")
        super().__init__(data._detach())
        if requires_grad:
            self.requires_grad = True

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        return Parameter(self.copy(), self.requires_grad)


_LOCATED = (ValueError, TypeError, IndexError, RuntimeError, MemoryError)

# Hears of every call of a module while a profile runs; what it gives is called when the call ends.
listener: Callable[[Module], Callable[[], None] | None] | None = None
_PLAIN = (bool, int, float, str)


class _ConstructorSignature:
    """What `inspect.signature`, and so `help`, says of a module's class: the arguments of its ``__init__``.

    Some versions of Python would give those of `Module.__new__`.
    """

    def __get__(self, instance: object, owner: Any) -> inspect.Signature:
        import inspect

        if instance is not None:
            raise AttributeError("__signature__")
        if owner.__init__ is object.__init__:
            return inspect.Signature()
        own = inspect.signature(owner.__init__)
        return own.replace(parameters=list(own.parameters.values())[1:])


class Module:
    """A part of a model: derive a class, make parameters and other modules attributes, define ``forward``.

    Attributes:
        training: whether the module trains (batch norm and dropout look at it).
        recordable: False for a module whose ``forward`` acts differently from time to time by what no attribute shows, such
            as a counter elsewhere or a clock: steps with it are not recorded (see :func:`smelt.capture`).

    Example:
        >>> class Net(nn.Module):
        ...     def __init__(self, hidden):
        ...         super().__init__()
        ...         self.first = nn.Linear(4, hidden)
        ...         self.second = nn.Linear(hidden, 2)
        ...
        ...     def forward(self, x):
        ...         return self.second(smelt.relu(self.first(x)))
        >>> Net(8)(smelt.ones(3, 4)).shape
        (3, 2)
    """

    __signature__ = _ConstructorSignature()
    training: bool
    recordable: bool = True
    _birth: int  # steps that had been recorded when the module was made
    _frozen: bool
    _thawed: bool  # the mode that a frozen module takes up when it is no longer frozen
    _buffers: dict[str, None]
    _pre_hooks: dict[object, Callable[..., Any]]
    _post_hooks: dict[object, Callable[..., Any]]
    _arguments: tuple[tuple[Any, ...], dict[str, Any]]  # of the constructor: the architecture of a saved model

    def __new__(cls, *args: Any, **kwargs: Any) -> Module:
        self = super().__new__(cls)
        fields = self.__dict__
        fields["_birth"] = changes.recorded
        fields["training"] = True
        fields["_frozen"] = False
        fields["_thawed"] = True
        fields["_arguments"] = (args, kwargs)
        fields["_buffers"] = {}
        fields["_pre_hooks"] = {}
        fields["_post_hooks"] = {}
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        plain = isinstance(value, Tensor) and not isinstance(value, Parameter)
        if plain and isinstance(self.__dict__.get(name), Parameter):
            raise TypeError(
                f"{type(self).__name__}: {name} is a parameter, got a plain tensor; assign an nn.Parameter, or write "
                f"into it: with smelt.no_grad(): layer.{name}.copy_(...)"
            )
        old = self.__dict__.get(name, _core)  # the module _core is nobody's attribute
        object.__setattr__(self, name, value)
        # `m.items += [1]` writes the list that was there: only values that cannot change count as what they were.
        same = type(old) is type(value) and (
            old == value if type(value) in _PLAIN else old is value and _is_fixed(value)
        )
        if not same or (type(value) is float and repr(old) != repr(value)):
            self._note_change(name)

    def _note_change(self, name: str) -> None:
        if self._birth != changes.recorded:  # else no recorded step can have seen this module
            kind = type(self).__name__
            mode = name in ("training", "_thawed", "_frozen")
            _core.note_change(
                f"the mode of {kind}, as model.train() and model.eval() do" if mode else f"the attribute {kind}.{name}"
            )

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        self._note_change(name)

    # ------------------------------------------------------------------------------------------------------- calling

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Computes the output; a derived class defines it. Call the module itself, not this.

        Args:
            args: the inputs.
            kwargs: further inputs by name.
        """
        raise TypeError(f"{type(self).__name__}: a derived class must define forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(self.forward, *args, **kwargs)

    def _call(self, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A call with all that belongs to it; what runs is `forward`, a fused form of the module's own."""
        if changes.recordings:
            self._check_recording()
        heard = listener  # another thread may end its profile meanwhile
        leave = heard(self) if heard is not None else None
        try:
            if not self._pre_hooks and not self._post_hooks:
                return forward(*args, **kwargs)
            for hook in list(self._pre_hooks.values()):
                changed = hook(self, args)
                if changed is not None:
                    args = changed if isinstance(changed, tuple) else (changed,)
            output = forward(*args, **kwargs)
            for hook in list(self._post_hooks.values()):
                changed = hook(self, args, output)
                if changed is not None:
                    output = changed
            return output
        except _LOCATED as error:
            self._locate(error)
            raise
        finally:
            if leave is not None:
                leave()

    def _check_recording(self) -> None:
        """Tells a step that is being recorded what stands against it here."""
        if not self.recordable:
            _core.refuse_recording(f"{type(self).__name__} has recordable = False")
        if any(map(changes.is_generator, self.__dict__.values())):
            _core.refuse_recording(f"{type(self).__name__} has a random generator that is not smelt's")
        if self._pre_hooks or self._post_hooks:
            _core.refuse_recording(f"a forward hook of {type(self).__name__} runs in it, which is Python")

    def _locate(self, error: Exception) -> None:
        """Puts the path of the failing layer before the message, a step at every level that the error passes."""
        if len(error.args) != 1 or not isinstance(error.args[0], str):
            return
        module, path, message = getattr(error, "_smelt_layer", (None, "", error.args[0]))
        if module is not None:
            for name, child in self.named_modules():
                if child is module and name:
                    path = f"{name}.{path}" if path else name
                    error.args = (f"layer {path}: {message}",)
                    break
        error._smelt_layer = (self, path, message)  # type: ignore[attr-defined]

    def register_forward_pre_hook(self, hook: Callable[[Module, tuple[Any, ...]], Any]) -> Callable[[], None]:
        """Calls ``hook(module, inputs)`` before every forward; what it returns, unless None, replaces the inputs.

        Args:
            hook: the function.

        Returns:
            A function that takes the hook away.

        Example:
            >>> layer = nn.Linear(2, 2)
            >>> remove = layer.register_forward_pre_hook(lambda module, inputs: print(inputs[0].shape))
            >>> y = layer(smelt.ones(1, 2))
            (1, 2)
            >>> remove()
        """
        return _add_hook(self._pre_hooks, hook)

    def register_forward_hook(self, hook: Callable[[Module, tuple[Any, ...], Any], Any]) -> Callable[[], None]:
        """Calls ``hook(module, inputs, output)`` after every forward; what it returns, unless None, replaces the output.

        Args:
            hook: the function.

        Returns:
            A function that takes the hook away.

        Example:
            >>> layer = nn.Linear(2, 2)
            >>> remove = layer.register_forward_hook(lambda module, inputs, output: output * 0)
            >>> layer(smelt.ones(1, 2)).tolist()
            [[0.0, 0.0]]
            >>> remove()
        """
        return _add_hook(self._post_hooks, hook)

    def fusions(self) -> Any:
        """Which neighbouring layers run as one, here and below: those of `Sequential` and `Residual` that nothing listens to.

        Returns:
            A list of (paths, layers, fused call) that prints as a table.

        Example:
            >>> nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).fusions()
            1 + 2  BatchNorm2d + ReLU  batch_norm(activation='relu')
        """
        from . import fusion

        return fusion.Fusions(fusion.of(self))

    # -------------------------------------------------------------------------------------------------------- content

    def register_buffer(self, name: str, value: Tensor) -> None:
        """Makes a tensor part of the module's state without being trained, such as running statistics.

        Args:
            name: the attribute's name.
            value: the tensor.

        Example:
            >>> m = nn.Module()
            >>> m.register_buffer("count", smelt.zeros(1))
            >>> list(m.state_dict())
            ['count']
        """
        self._buffers[name] = None
        setattr(self, name, value)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules that are attributes of this one, with their names.

        Returns:
            Iterator over pairs, in order of assignment.

        Example:
            >>> [name for name, _ in nn.Sequential(nn.ReLU(), nn.Flatten()).named_children()]
            ['0', '1']
        """
        for name, value in self.__dict__.items():
            if isinstance(value, Module):
                yield name, value

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module (named by ``prefix``) and all below it, each once, with their paths.

        Args:
            prefix: put before every path.

        Returns:
            Iterator over pairs, parents before children.

        Example:
            >>> [path for path, _ in nn.Sequential(nn.Sequential(nn.ReLU())).named_modules()]
            ['', '0', '0.0']
        """
        seen: set[int] = set()
        pending: list[tuple[str, Module]] = [(prefix, self)]
        while pending:
            path, module = pending.pop(0)
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield path, module
            below = [(f"{path}.{name}" if path else name, child) for name, child in module.named_children()]
            pending[:0] = below

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once.

        Returns:
            Iterator, parents before children.

        Example:
            >>> sum(isinstance(m, nn.ReLU) for m in nn.Sequential(nn.ReLU(), nn.ReLU()).modules())
            2
        """
        return (module for _, module in self.named_modules())

    def _named_tensors(self, buffers: bool) -> Iterator[tuple[str, Tensor]]:
        for path, module in self.named_modules():
            for name, value in module.__dict__.items():
                wanted = (
                    isinstance(value, Tensor) and name in module._buffers if buffers else isinstance(value, Parameter)
                )
                if wanted:
                    yield f"{path}.{name}" if path else name, value

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their paths, each once.

        Returns:
            Iterator over pairs, in order of assignment.

        Example:
            >>> [path for path, _ in nn.Sequential(nn.Linear(2, 3)).named_parameters()]
            ['0.weight', '0.bias']
        """
        seen: set[int] = set()
        for path, p in self._named_tensors(buffers=False):
            assert isinstance(p, Parameter)
            if id(p) not in seen:
                seen.add(id(p))
                p.path = path
                yield path, p

    def parameters(self) -> Iterator[Parameter]:
        """All parameters, each once.

        Returns:
            Iterator, in order of assignment.

        Example:
            >>> sum(p.size for p in nn.Linear(2, 3).parameters())
            9
        """
        return (p for _, p in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """All buffers with their paths.

        Returns:
            Iterator over pairs.

        Example:
            >>> [path for path, _ in nn.BatchNorm2d(3).named_buffers()]
            ['running_mean', 'running_var', 'batches']
        """
        return self._named_tensors(buffers=True)

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters and buffers by path, on the module's own memory.

        Returns:
            Dict of tensors off the tape; a tied parameter stands under each of its paths.

        Example:
            >>> list(nn.Linear(2, 3).state_dict())
            ['weight', 'bias']
        """
        state = {}
        for path, module in self.named_modules():
            for name, value in module.__dict__.items():
                if isinstance(value, Tensor) and (isinstance(value, Parameter) or name in module._buffers):
                    state[f"{path}.{name}" if path else name] = value._detach()
        return state

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Copies values from a dict of tensors or arrays into parameters and buffers.

        Nothing is changed unless everything fits.

        Args:
            state: values by path, as from :meth:`state_dict`.
            strict: also refuse names that are missing or unknown.

        Raises:
            ValueError: names or shapes disagree; all of them are listed.

        Example:
            >>> a, b = nn.Linear(2, 3), nn.Linear(2, 3)
            >>> b.load_state_dict(a.state_dict())
        """
        own = self.state_dict()
        given = {name: _core.to_tensor(value) for name, value in state.items()}
        problems = []
        if strict:
            problems += [f"'{name}' is missing" for name in own if name not in given]
            problems += [f"'{name}' is unknown" for name in given if name not in own]
        problems += [
            f"'{name}' must have shape {own[name].shape}, got {value.shape}"
            for name, value in given.items()
            if name in own and own[name].shape != value.shape
        ]
        if problems:
            raise ValueError("load_state_dict: " + "; ".join(problems))
        for name, value in given.items():
            if name in own:
                _core.assign(own[name], _core.to_device(value._detach(), own[name].device))

    # ---------------------------------------------------------------------------------------------------------- modes

    def train(self: M, mode: bool = True) -> M:
        """Puts this module and all below it in training mode; frozen ones stay in evaluation mode.

        Args:
            mode: False for evaluation mode.

        Returns:
            The module itself.

        Example:
            >>> nn.Dropout(0.5).train().training
            True
        """
        for module in self.modules():
            module.training = mode and not module._frozen
            module._thawed = mode
        return self

    def eval(self: M) -> M:
        """Puts this module and all below it in evaluation mode.

        Returns:
            The module itself.

        Example:
            >>> nn.Dropout(0.5).eval().training
            False
        """
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Sets ``requires_grad`` of every parameter.

        Args:
            requires_grad: the new value.

        Returns:
            The module itself.

        Example:
            >>> any(p.requires_grad for p in nn.Linear(2, 2).requires_grad_(False).parameters())
            False
        """
        for p in self.parameters():
            p.requires_grad = requires_grad
        return self

    def zero_grad(self) -> None:
        """Makes every parameter's gradient empty.

        Example:
            >>> layer = nn.Linear(2, 1)
            >>> layer(smelt.ones(1, 2)).sum().backward()
            >>> layer.zero_grad()
            >>> layer.weight.grad is None
            True
        """
        for p in self.parameters():
            p.grad = None

    def to(self: M, *where: Any) -> M:
        """Converts parameters and floating buffers to a dtype, or moves everything to a device, in place.

        Args:
            where: dtypes and devices.

        Returns:
            The module itself; its Parameter objects stay the same.

        Raises:
            TypeError: the dtype is not floating.

        Example:
            >>> nn.Linear(2, 2).to("float64").weight.dtype
            smelt.float64
        """
        for item in where:
            if not names_device(item) and not _core.parse_dtype(item).is_floating:
                raise TypeError(f"Module.to: parameters must be floating, got {item}")
        for module in self.modules():
            for name, value in list(module.__dict__.items()):
                if not isinstance(value, Tensor) or not (isinstance(value, Parameter) or name in module._buffers):
                    continue
                detached = value._detach()
                for item in where:
                    if names_device(item):
                        detached = _core.to_device(detached, item)
                    elif value.dtype.is_floating:
                        detached = _core.cast(detached, item)
                if not detached._same_memory(value):
                    value.grad = None
                    value._set_data(detached)
        return self

    def float(self: M) -> M:
        """Converts parameters and floating buffers to float32.

        Returns:
            The module itself.

        Example:
            >>> nn.Linear(2, 2).double().float().weight.dtype
            smelt.float32
        """
        return self.to("float32")

    def double(self: M) -> M:
        """Converts parameters and floating buffers to float64.

        Returns:
            The module itself.

        Example:
            >>> nn.Linear(2, 2).double().weight.dtype
            smelt.float64
        """
        return self.to("float64")

    # ------------------------------------------------------------------------------------------------------ checking

    def check(self, *batch: Any) -> list[str]:
        """Runs the shape rules of the whole model on tensors without memory: all errors at once, before any data moves.

        A layer that does not fit is noted and the walk goes on with the shape that its weight implies.

        Args:
            batch: tensors, arrays or shapes such as ``(64, 28, 28, 1)`` (float32), as the model's inputs. Indices, as of an
                embedding, are given as an integer array.

        Returns:
            Messages with the layer's path, none when everything fits. A last one says where the walk had to end, if it
            had to.

        Example:
            >>> model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(5, 2))
            >>> model.check((16, 8))
            ['layer 2: linear: weight has 5 input features, input has 4 (input (16, 4), weight (2, 5))']
        """
        messages: list[str] = []
        paths = {id(module): path for path, module in self.named_modules()}

        def collect(module: Module, *_: Any) -> None:
            where = paths.get(id(module), "")
            messages.extend(f"layer {where}: {note}" if where else note for note in _core.take_notes())

        removers = [module.register_forward_hook(collect) for module in self.modules()]
        _core.take_notes()
        _core.set_dry_run(True)
        try:
            self(*(_without_memory(item) for item in batch))
        except _LOCATED as error:
            messages.extend(_core.take_notes())
            messages.append(str(error))
        finally:
            _core.set_dry_run(False)
            for remove in removers:
                remove()
        if any(isinstance(item, tuple) for item in batch):  # a shape stands for float32
            integers = "indices must be integers, got float32"
            messages = [
                f"{m}; for indices give an integer array, not a shape" if m.endswith(integers) else m for m in messages
            ]
        return messages

    # ----------------------------------------------------------------------------------------------------- describing

    def extra_repr(self) -> str:
        """What stands between the parentheses of the printed module.

        Returns:
            A short text.

        Example:
            >>> nn.Linear(2, 3).extra_repr()
            '2, 3, bias=True'
        """
        return ""

    def __repr__(self) -> str:
        children = list(self.named_children())
        if not children:
            return f"{type(self).__name__}({self.extra_repr()})"
        lines = []
        for name, child in children:
            lines.append(f"  ({name}): " + repr(child).replace("\n", "\n  "))
        return f"{type(self).__name__}({self.extra_repr()}\n" + "\n".join(lines) + "\n)"


def stated(module: Module, **defaults: Any) -> str:
    """Attributes that are not at their default, for `extra_repr`: ``", name=value"`` each."""
    text = ""
    for name, default in defaults.items():
        value = getattr(module, name)
        if isinstance(value, Tensor):
            text += f", {name}=Tensor{value.shape}"
        elif value != default:
            text += f", {name}={value!r}"
    return text


def _without_memory(item: Any) -> Any:
    if isinstance(item, Tensor):
        return _core.empty(list(item.shape), item.dtype, item.device)
    if isinstance(item, (tuple, list)) and all(isinstance(n, int) for n in item):
        return _core.empty(list(item), "float32", "cpu")
    if hasattr(item, "shape") and hasattr(item, "dtype"):
        return _core.empty(list(item.shape), item.dtype, "cpu")
    return item


def _is_fixed(value: object) -> bool:
    """Whether an attribute that is assigned again is what it was: of tensors and modules it is known what changes in them."""
    return value is None or isinstance(value, (Tensor, Module))


def _add_hook(hooks: dict[object, Callable[..., Any]], hook: Callable[..., Any]) -> Callable[[], None]:
    key = object()
    hooks[key] = hook
    _core.note_change("the hooks of a module")

    def remove() -> None:
        if hooks.pop(key, None) is not None:
            _core.note_change("the hooks of a module")

    return remove


@contextmanager
def evaluating(module: Module) -> Iterator[None]:
    """Evaluation mode for a while; afterwards every module below has the mode that it had."""
    modes = [(part, part.training, part._thawed) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training, thawed in modes:
            part.training, part._thawed = training, thawed
