"""Mixed-precision low-bit quantization of diffusion models: load, calibrate, allocate, quantize, compare.

Names are imported when they are first used: the page's first screen needs allocations, not torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpqdm_core.adapter import Adapter as Adapter
    from mpqdm_core.adapter import apply_adapter as apply_adapter
    from mpqdm_core.allocation import Allocation as Allocation
    from mpqdm_core.allocation import AllocationSettings as AllocationSettings
    from mpqdm_core.allocation import BitPlan as BitPlan
    from mpqdm_core.allocation import allocate as allocate
    from mpqdm_core.allocation import feasible_range as feasible_range
    from mpqdm_core.allocation import frontier as frontier
    from mpqdm_core.bundled import bundled_models as bundled_models
    from mpqdm_core.calibration import Calibration as Calibration
    from mpqdm_core.calibration import CalibrationSettings as CalibrationSettings
    from mpqdm_core.calibration import calibrate as calibrate
    from mpqdm_core.clip_score import clip_scores as clip_scores
    from mpqdm_core.clip_score import load_clip as load_clip
    from mpqdm_core.comparison import Comparison as Comparison
    from mpqdm_core.comparison import compare as compare
    from mpqdm_core.denoiser import Denoiser as Denoiser
    from mpqdm_core.denoiser import LayerSpec as LayerSpec
    from mpqdm_core.denoiser import SamplerSettings as SamplerSettings
    from mpqdm_core.effects import layer_effects as layer_effects
    from mpqdm_core.error_table import ErrorTable as ErrorTable
    from mpqdm_core.errors import BudgetError as BudgetError
    from mpqdm_core.errors import Cancelled as Cancelled
    from mpqdm_core.errors import DataError as DataError
    from mpqdm_core.errors import LoadError as LoadError
    from mpqdm_core.errors import MpqdmError as MpqdmError
    from mpqdm_core.errors import SettingsError as SettingsError
    from mpqdm_core.errors import ShapeError as ShapeError
    from mpqdm_core.families import with_prompts as with_prompts
    from mpqdm_core.finetune_run import finetune as finetune
    from mpqdm_core.finetune_settings import FinetuneSettings as FinetuneSettings
    from mpqdm_core.generic_family import open_network as open_network
    from mpqdm_core.generic_family import quantize_weights as quantize_weights
    from mpqdm_core.hub import describe_hub_model as describe_hub_model
    from mpqdm_core.hub import fetch_hub_model as fetch_hub_model
    from mpqdm_core.integer_layers import multiply_integers_ as multiply_integers_
    from mpqdm_core.loading import load_denoiser as load_denoiser
    from mpqdm_core.measure import RowSettings as RowSettings
    from mpqdm_core.measure import measure_error_table as measure_error_table
    from mpqdm_core.outliers import OutlierStats as OutlierStats
    from mpqdm_core.outliers import outlier_stats as outlier_stats
    from mpqdm_core.packing import PackedFolder as PackedFolder
    from mpqdm_core.packing import export_packed as export_packed
    from mpqdm_core.packing import inspect_packed as inspect_packed
    from mpqdm_core.packing import load_packed as load_packed
    from mpqdm_core.quant_settings import QuantSettings as QuantSettings
    from mpqdm_core.quantization import QuantizedDenoiser as QuantizedDenoiser
    from mpqdm_core.quantization import quantize as quantize
    from mpqdm_core.recipes import get_recipe as get_recipe
    from mpqdm_core.sampling import Samples as Samples
    from mpqdm_core.sampling import sample as sample
    from mpqdm_core.schedules import with_scheduler as with_scheduler
    from mpqdm_core.sensitivity import channel_sensitivity as channel_sensitivity
    from mpqdm_core.stored_weights import open_stored as open_stored
    from mpqdm_core.streaming import stored_error_table as stored_error_table
    from mpqdm_core.streaming import stored_outlier_stats as stored_outlier_stats
    from mpqdm_core.teacher import TeacherRecord as TeacherRecord
    from mpqdm_core.teacher import record_teacher as record_teacher

_HOME = {
    "Adapter": "mpqdm_core.adapter",
    "Allocation": "mpqdm_core.allocation",
    "AllocationSettings": "mpqdm_core.allocation",
    "BitPlan": "mpqdm_core.allocation",
    "BudgetError": "mpqdm_core.errors",
    "Calibration": "mpqdm_core.calibration",
    "CalibrationSettings": "mpqdm_core.calibration",
    "Cancelled": "mpqdm_core.errors",
    "Comparison": "mpqdm_core.comparison",
    "DataError": "mpqdm_core.errors",
    "Denoiser": "mpqdm_core.denoiser",
    "ErrorTable": "mpqdm_core.error_table",
    "FinetuneSettings": "mpqdm_core.finetune_settings",
    "LayerSpec": "mpqdm_core.denoiser",
    "LoadError": "mpqdm_core.errors",
    "MpqdmError": "mpqdm_core.errors",
    "OutlierStats": "mpqdm_core.outliers",
    "PackedFolder": "mpqdm_core.packing",
    "QuantSettings": "mpqdm_core.quant_settings",
    "QuantizedDenoiser": "mpqdm_core.quantization",
    "RowSettings": "mpqdm_core.measure",
    "SamplerSettings": "mpqdm_core.denoiser",
    "Samples": "mpqdm_core.sampling",
    "SettingsError": "mpqdm_core.errors",
    "ShapeError": "mpqdm_core.errors",
    "TeacherRecord": "mpqdm_core.teacher",
    "allocate": "mpqdm_core.allocation",
    "apply_adapter": "mpqdm_core.adapter",
    "bundled_models": "mpqdm_core.bundled",
    "calibrate": "mpqdm_core.calibration",
    "channel_sensitivity": "mpqdm_core.sensitivity",
    "clip_scores": "mpqdm_core.clip_score",
    "compare": "mpqdm_core.comparison",
    "describe_hub_model": "mpqdm_core.hub",
    "export_packed": "mpqdm_core.packing",
    "feasible_range": "mpqdm_core.allocation",
    "fetch_hub_model": "mpqdm_core.hub",
    "finetune": "mpqdm_core.finetune_run",
    "frontier": "mpqdm_core.allocation",
    "get_recipe": "mpqdm_core.recipes",
    "inspect_packed": "mpqdm_core.packing",
    "layer_effects": "mpqdm_core.effects",
    "load_clip": "mpqdm_core.clip_score",
    "load_denoiser": "mpqdm_core.loading",
    "load_packed": "mpqdm_core.packing",
    "measure_error_table": "mpqdm_core.measure",
    "multiply_integers_": "mpqdm_core.integer_layers",
    "open_network": "mpqdm_core.generic_family",
    "open_stored": "mpqdm_core.stored_weights",
    "outlier_stats": "mpqdm_core.outliers",
    "quantize": "mpqdm_core.quantization",
    "quantize_weights": "mpqdm_core.generic_family",
    "record_teacher": "mpqdm_core.teacher",
    "sample": "mpqdm_core.sampling",
    "stored_error_table": "mpqdm_core.streaming",
    "stored_outlier_stats": "mpqdm_core.streaming",
    "with_prompts": "mpqdm_core.families",
    "with_scheduler": "mpqdm_core.schedules",
}

__all__ = [
    "Adapter",
    "Allocation",
    "AllocationSettings",
    "BitPlan",
    "BudgetError",
    "Calibration",
    "CalibrationSettings",
    "Cancelled",
    "Comparison",
    "DataError",
    "Denoiser",
    "ErrorTable",
    "FinetuneSettings",
    "LayerSpec",
    "LoadError",
    "MpqdmError",
    "OutlierStats",
    "PackedFolder",
    "QuantSettings",
    "QuantizedDenoiser",
    "RowSettings",
    "SamplerSettings",
    "Samples",
    "SettingsError",
    "ShapeError",
    "TeacherRecord",
    "allocate",
    "apply_adapter",
    "bundled_models",
    "calibrate",
    "channel_sensitivity",
    "clip_scores",
    "compare",
    "describe_hub_model",
    "export_packed",
    "feasible_range",
    "fetch_hub_model",
    "finetune",
    "frontier",
    "get_recipe",
    "inspect_packed",
    "layer_effects",
    "load_clip",
    "load_denoiser",
    "load_packed",
    "measure_error_table",
    "multiply_integers_",
    "open_network",
    "open_stored",
    "outlier_stats",
    "quantize",
    "quantize_weights",
    "record_teacher",
    "sample",
    "stored_error_table",
    "stored_outlier_stats",
    "with_prompts",
    "with_scheduler",
]


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
