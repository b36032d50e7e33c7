"""The losses of one window: predictions, features, and relations inside features."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mpqdm_core.errors import SettingsError
from mpqdm_core.finetune_settings import FinetuneSettings
from mpqdm_core.network_calls import joined_calls
from mpqdm_core.recording import feature_map, output_tensor
from mpqdm_core.relation import relation_loss, smoothed
from mpqdm_core.teacher import TeacherRecord
from mpqdm_core.timestep_clock import TimestepClock
from mpqdm_core.timesteps import timestep_units

CompileBackend = str | Callable[..., Any]  # what `torch.compile` takes
TERMS = ("task", "relation", "feature")


class _Heard(threading.local):
    """The features of the call that runs in this thread; of one tap, several only where it was called so."""

    def __init__(self) -> None:
        self.features: list[Tensor] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> _Heard:
        return _Heard()  # a copied network hears for itself


class WindowLosses:
    """Runs a student over the rows of a window and compares it with the teacher's record."""

    def __init__(
        self,
        network: nn.Module,
        tap: str,
        settings: FinetuneSettings,
        step_weights: Tensor,
        *,
        clock: TimestepClock | None = None,
        compile_backend: CompileBackend | None = None,
    ) -> None:
        """Compare `network`, whose features are the output of the module named `tap`.

        Args:
            network: the student; called from several threads at once.
            tap: see `Family.feature_tap`.
            settings: weights and forms of the losses.
            step_weights: (T,) factor of the task loss at each timestep.
            clock: of the student; needed where calls are compiled.
            compile_backend: of `torch.compile`, for calls that ask for it; None: none is compiled.
        """
        self._network = network
        self._clock, self._compiled = clock, None
        if compile_backend is not None:
            self._compiled = torch.compile(self._traceable, backend=compile_backend, dynamic=False)
        self._settings, self._step_weights = settings, step_weights.tolist()
        self._heard = _Heard()
        self._handle = network.get_submodule(tap).register_forward_hook(self._on_tap)

    def close(self) -> None:
        """Stop listening to the network."""
        self._handle.remove()

    def terms(
        self, record: TeacherRecord, slots: tuple[int, ...], pictures: Tensor, *, compiled: bool = False
    ) -> dict[str, Tensor]:
        """Unweighted losses of some pictures of a window, by term; only those with a weight above 0.

        Args:
            record: what the teacher did.
            slots: of the window.
            pictures: which of the record's.
            compiled: call the compiled network, if there is one. It is compiled anew for every other number
                of pictures, with and without gradients: for calls that are repeated.

        Returns:
            () tensors with their graphs. Sums over the window's steps for "task"; "relation" and "feature"
            see the features averaged over the window.
        """
        device = next(self._network.parameters()).device
        task: list[Tensor] = []
        own: list[Tensor] = []
        wanted: list[Tensor] = []
        calls = [record.arguments(slot, pictures, device) for slot in slots]
        if compiled and self._compiled is not None:
            prediction, feature = self._forward_compiled(joined_calls(record, calls))
        else:
            prediction, feature = self._forward(calls[0] if len(calls) == 1 else joined_calls(record, calls))
        for place, slot in enumerate(slots):
            part = slice(place * len(prediction) // len(slots), (place + 1) * len(prediction) // len(slots))
            target = record.prediction[slot, pictures].flatten(0, 1).to(device)
            error = self._task(prediction[part], target, record, len(pictures))
            task.append(self._step_weights[slot] * error)
            if self._settings.needs_features and record.feature is not None and feature is not None:
                own.append(feature[part].detach() if self._settings.detach_features else feature[part])
                wanted.append(record.feature[slot, pictures].flatten(0, 1).to(device))
        losses = {"task": torch.stack(task).sum()} if self._settings.task_weight else {}
        if self._settings.relation_weight:
            losses["relation"] = relation_loss(
                smoothed(own),
                smoothed(wanted),
                temperature=self._settings.temperature,
                pool=self._settings.pool,
                reduction=self._settings.reduction,
            )
        if self._settings.feature_weight:
            losses["feature"] = self._reduced((smoothed(own) - smoothed(wanted)).square())
        return losses

    def weighted(self, losses: dict[str, Tensor]) -> Tensor:
        """The sum that is trained."""
        weights = {term: getattr(self._settings, f"{term}_weight") for term in losses}
        return torch.stack([weights[term] * loss for term, loss in losses.items()]).sum()

    def _task(self, prediction: Tensor, target: Tensor, record: TeacherRecord, pictures: int) -> Tensor:
        difference = prediction.float() - target
        if self._settings.task_on == "guided" and record.guided:
            free, conditional = difference.reshape(pictures, 2, *difference.shape[1:]).unbind(dim=1)
            difference = free + record.sampler.guidance_scale * (conditional - free)
        return self._reduced(difference.square())

    def _reduced(self, values: Tensor) -> Tensor:
        return values.mean() if self._settings.reduction == "mean" else values.sum()

    def _forward(self, arguments: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Prediction and tapped feature of one call in this thread."""
        self._heard.features.clear()
        with self._autocast():
            prediction = output_tensor(self._network(**arguments))
        return prediction, self._last_feature()

    def _forward_compiled(self, arguments: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """The same by the compiled network; the timestep is given for each row, (B,).

        Raises:
            SettingsError: it cannot be compiled on this machine.
        """
        from torch._dynamo.exc import TorchDynamoException  # takes seconds to import

        if self._compiled is None or self._clock is None:
            raise SettingsError("this network is not compiled")
        # Slots as a tensor: a number would be compiled in, and every timestep anew.
        self._clock.set(arguments["timestep"], timestep_units(self._network), by_sample=True)
        try:
            with self._autocast():
                return self._compiled(arguments)
        except TorchDynamoException as error:
            reason = " ".join(str(error).split("\n\n")[0].split())
            raise SettingsError(f"the network cannot be compiled here, train without: {reason}") from error

    def _traceable(self, arguments: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """The same without the network's own hooks, for `torch.compile`."""
        self._heard.features.clear()
        prediction = output_tensor(self._network.forward(**arguments))
        return prediction, self._last_feature()

    def _autocast(self) -> torch.autocast:
        device = next(self._network.parameters()).device
        return torch.autocast(device.type, torch.bfloat16, enabled=self._settings.precision == "bfloat16")

    def _last_feature(self) -> Tensor | None:
        return self._heard.features.pop() if self._heard.features else None

    def _on_tap(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._heard.features.append(feature_map(output))
