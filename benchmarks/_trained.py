"""Whether a kept adapter is the one that a training would leave."""

from __future__ import annotations

from mpqdm_core.adapter import Adapter
from mpqdm_core.allocation import BitPlan
from mpqdm_core.calibration import Calibration
from mpqdm_core.finetune_settings import FinetuneSettings
from mpqdm_core.quant_settings import QuantSettings


def trained_so(
    adapter: Adapter,
    calibration: Calibration,
    plan: BitPlan,
    rounding: QuantSettings,
    settings: FinetuneSettings,
) -> bool:
    """Whether a kept adapter is what this training would leave."""
    return (
        adapter.denoiser_hash == calibration.denoiser_hash
        and adapter.calibration_hash == calibration.content_hash
        and adapter.plan.to_json() == plan.to_json()
        and adapter.quant_settings == rounding
        and adapter.settings == settings
    )
