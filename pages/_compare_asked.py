"""How Compare draws: by the model's own sampler or another, and what a text-to-image model is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from mpqdm_core.errors import SettingsError
from mpqdm_core.permalink import MAX_LETTERS, MAX_PROMPTS
from pages._workspace import Workspace

OWN = ""  # the sampler that the model comes with
SAMPLERS = {
    "ddim": "DDIM",
    "ddpm": "DDPM (fresh noise at every step)",
    "pndm": "PNDM",
    "euler": "Euler",
    "euler-ancestral": "Euler ancestral (fresh noise at every step)",
    "dpm-solver++": "DPM-Solver++",
    "flow-euler": "Euler on flows",
}


@dataclass(kw_only=True)
class AskedFields:
    """Components of the choice."""

    sampler: gr.Dropdown
    prompts: gr.Textbox

    @classmethod
    def build(cls, samplers: tuple[str, ...]) -> AskedFields:
        """Create them, for the model that is shown first."""
        return cls(
            sampler=gr.Dropdown(
                sampler_choices(samplers),
                value=OWN,
                label="Sampler",
                elem_id="sampler",
                info="How noise becomes a picture; the plan stays the same.",
            ),
            prompts=gr.Textbox(
                label="Prompts",
                lines=3,
                max_lines=8,
                elem_id="prompts",
                visible=False,
                info=f"One a line, at most {MAX_PROMPTS}, instead of the list above; they take turns.",
            ),
        )


def offered(work: Workspace, sampler: Any, prompts: Any) -> tuple[Any, Any]:
    """The samplers of a model, and prompts where it takes them; what was there stays where it fits."""
    kept = sampler if sampler in work.schedulers else OWN
    return (
        gr.Dropdown(choices=sampler_choices(work.schedulers), value=kept, interactive=bool(work.schedulers)),
        gr.Textbox(value=str(prompts or "") if work.prompted else "", visible=work.prompted),
    )


def sampler_choices(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """What the list shows, and the library's names."""
    return [("The model's own", OWN), *((SAMPLERS.get(name, name), name) for name in names)]


def read_sampler(work: Workspace, value: Any) -> str:
    """Check the choice of a sampler.

    Raises:
        SettingsError: the model cannot be drawn by it.
    """
    name = str(value or OWN)
    if name != OWN and name not in work.schedulers:
        known = ", ".join(work.schedulers) or "its own sampler alone"
        raise SettingsError(f"{work.title} can be drawn by {known}, not by {name[:40]!r}")
    return name


def read_prompts(work: Workspace, value: Any) -> tuple[str, ...]:
    """Check the prompts: the lines that are not empty; none for a model that takes none.

    Raises:
        SettingsError: they are too many, too long, or hold what cannot be printed.
    """
    if not work.prompted:
        return ()
    lines = tuple(line.strip() for line in str(value or "").splitlines() if line.strip())
    if len(lines) > MAX_PROMPTS:
        raise SettingsError(f"at most {MAX_PROMPTS} prompts are drawn at a time, got {len(lines)}")
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_LETTERS or not line.isprintable():
            raise SettingsError(f"prompt {number} must be printable text of at most {MAX_LETTERS} letters")
    return lines


def as_asked(denoiser: Any, sampler: str, prompts: tuple[str, ...]) -> Any:
    """The model as it is to be drawn; plans, calibrations and adapters of it go on to fit.

    Raises:
        SettingsError: the model cannot be drawn so.
    """
    from mpqdm_core.families import with_prompts
    from mpqdm_core.schedules import with_scheduler

    asked = with_prompts(denoiser, prompts) if prompts else denoiser
    return with_scheduler(asked, sampler) if sampler != OWN else asked
