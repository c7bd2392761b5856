"""IA3 adapters through PEFT, seen as one flat vector of log scales.

theta = ln l, one number for each scaled coordinate of every module, concatenated in module order
(P,). In log space adapters compose by addition. Two PEFT adapters are active: `merged`, frozen, holds
what earlier edits and stages wrote, `stage` is being trained. Knows PEFT and gradients with respect
to theta; doesn't know objectives.
"""

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from peft import IA3Config, inject_adapter_in_model
from torch.utils.hooks import RemovableHandle

from policies.editing.architectures import ScaledModule, base_module
from policies.editing.model import LanguageModel, NotFiniteError

MERGED, STAGE = "merged", "stage"


class AdapterStack:
    """The two IA3 adapters of an edit, injected in place into `lm`'s modules.

    Scales are fp32 whatever the weights are: in half precision a small step would be rounded away.
    Call `remove()` when done: the model is then as before, bit for bit (PEFT's layers are replaced
    by the very base layers they wrap; nothing is merged or unmerged).
    """

    def __init__(self, lm: LanguageModel, modules: Sequence[ScaledModule]) -> None:
        self.lm, self.modules = lm, tuple(modules)
        self.size = sum(m.size for m in modules)
        self.first = modules[0].layer  # no adapter reaches below
        config = ia3_config(modules)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # two are what we want
            for name in (MERGED, STAGE):
                inject_adapter_in_model(config, lm.model, adapter_name=name)
        self.layers = [lm.model.get_submodule(m.path) for m in modules]
        for layer in self.layers:
            layer.set_adapter([MERGED, STAGE])
        self.slices = slices(modules)
        self.set(MERGED, torch.zeros(self.size))
        self.set(STAGE, torch.zeros(self.size))

    def set(self, name: str, theta: torch.Tensor) -> None:
        """Write log scales (P,) into adapter `name` as scales exp(theta)."""
        for layer, part in zip(self.layers, self.slices, strict=True):
            scale = layer.ia3_l[name]
            scale.data = theta[part].exp().reshape(scale.shape).to(scale.device, torch.float32)
            scale.requires_grad_(name == STAGE)

    def scales(self, name: str) -> torch.Tensor:
        """The log scales (P,) of adapter `name`."""
        return torch.cat([layer.ia3_l[name].detach().flatten().log().cpu() for layer in self.layers])

    @contextlib.contextmanager
    def without(self, name: str) -> Iterator[bool]:
        """Adapter `name` scales nothing meanwhile; whether it did anything before."""
        scales = [layer.ia3_l[name] for layer in self.layers]
        before = [scale.data for scale in scales]
        self.set(name, torch.zeros(self.size))
        try:
            yield any(bool((data != 1).any()) for data in before)
        finally:
            for scale, data in zip(scales, before, strict=True):
                scale.data = data

    @contextlib.contextmanager
    def recording(self) -> Iterator["Recorder"]:
        """Record every scaled activation, so that gradients by theta can be read per sequence."""
        recorder = Recorder(self.modules, [None] * len(self.layers))
        handles = []
        for i, (layer, module) in enumerate(zip(self.layers, self.modules, strict=True)):
            if module.feedforward:
                handles.append(layer.base_layer.register_forward_pre_hook(recorder.input_hook(i)))
            else:
                handles.append(layer.register_forward_hook(recorder.output_hook(i)))
        try:
            yield recorder
        finally:
            for handle in handles:
                handle.remove()

    def replace_activation(
        self, index: int, positions: torch.Tensor, values: torch.Tensor
    ) -> RemovableHandle:
        """From now on the scaled activations of module `index` are `values` (n, d) at `positions`."""
        free = slice(self.modules[index].fixed, None)

        def patched(activation: torch.Tensor) -> torch.Tensor:
            changed = activation.clone()
            changed[0, positions, free] = values[:, free]
            return changed

        if self.modules[index].feedforward:
            before: RemovableHandle = self.layers[index].base_layer.register_forward_pre_hook(
                lambda _m, args: (patched(args[0]),)
            )
            return before
        after: RemovableHandle = self.layers[index].register_forward_hook(
            lambda _m, _args, output: patched(output)
        )
        return after

    def remove(self) -> None:
        unwrap(self.lm, [m.path for m in self.modules])


@dataclass(slots=True)
class Recorder:
    """Scaled activations a (T, d) of each module. With a = l * x and theta = ln l,
    d loss / d theta = sum over tokens of (d loss / d a) * a: one product, no expanded parameters.
    It is zero at a module's fixed coordinates, which therefore never move. Sums are in fp32."""

    modules: tuple[ScaledModule, ...]
    activations: list[torch.Tensor | None] = field(repr=False)

    def input_hook(self, index: int):  # type: ignore[no-untyped-def]
        def hook(_module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            self.activations[index] = args[0]

        return hook

    def output_hook(self, index: int):  # type: ignore[no-untyped-def]
        def hook(_module: torch.nn.Module, _args: object, output: torch.Tensor) -> None:
            self.activations[index] = output

        return hook

    def gradient(self, objective: torch.Tensor) -> torch.Tensor:
        """d objective / d theta (P,)."""
        return torch.cat([product.sum(0) for product in self._products(objective)])

    def rows(
        self, objective: torch.Tensor, segment: torch.Tensor, count: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(per-sequence gradients (count, P) of a summed objective, its whole gradient (P,)).

        What flows through the shared prefix's tokens can't be told apart by sequence: it is in the
        whole gradient and in no row.
        """
        own = segment >= 0
        rows, whole = [], []
        for product in self._products(objective):
            whole.append(product.sum(0))
            rows.append(product.new_zeros(count, product.shape[1]).index_add_(0, segment[own], product[own]))
        return torch.cat(rows, dim=1), torch.cat(whole)

    def _products(self, objective: torch.Tensor) -> list[torch.Tensor]:
        """(d objective / d a) * a of each module, (T, d) in fp32. Raises NotFiniteError."""
        activations = [a for a in self.activations if a is not None]
        gradients = torch.autograd.grad(objective, activations)
        products = []
        for module, a, g in zip(self.modules, activations, gradients, strict=True):
            product = (g.float() * a.detach().float()).flatten(0, -2)
            product[:, : module.fixed] = 0
            if not bool(torch.isfinite(product).all()):
                hint = "the model's activations overflow its dtype, or its weights are damaged"
                raise NotFiniteError("differentiate", module.path, "the gradient isn't a finite number", hint)
            products.append(product)
        return products


def unwrap(lm: LanguageModel, paths: Iterable[str]) -> None:
    """Put the base layers that PEFT wrapped back in their places; nothing is merged or unmerged."""
    for path in paths:
        parent, _, name = path.rpartition(".")
        setattr(lm.model.get_submodule(parent), name, base_module(lm.model.get_submodule(path)))
    if hasattr(lm.model, "peft_config"):
        del lm.model.peft_config
    lm.model._hf_peft_config_loaded = False


def ia3_config(modules: Sequence[ScaledModule]) -> IA3Config:
    paths = [m.path for m in modules]
    forward = [m.path for m in modules if m.feedforward]
    return IA3Config(
        target_modules=paths,
        feedforward_modules=forward,
        fan_in_fan_out=any(m.transposed for m in modules),
        task_type="CAUSAL_LM",
    )


def slices(modules: Sequence[ScaledModule]) -> list[slice]:
    ends, total = [], 0
    for m in modules:
        ends.append(slice(total, total + m.size))
        total += m.size
    return ends
