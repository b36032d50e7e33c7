"""A student of the tiny U-Net in training."""

from functools import cache

from tiny_quant import small_calibration, small_denoiser, uniform_plan

from mpqdm_core.finetune_settings import FinetuneSettings
from mpqdm_core.finetuner import Finetuner
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.quantization import quantize
from mpqdm_core.teacher import record_teacher

FAST = dict(steps=6, batch_size=4, rank=4, low_rank_rate=0.02, weight_scale_rate=1e-4, activation_rate=1e-3)


@cache
def small_record():
    return record_teacher(small_denoiser(), pictures=6, sampler=small_calibration().settings.sampler)


def student(bits=3, **changes):
    settings = QuantSettings(**{"activation_bits": 4, **changes})
    denoiser = small_denoiser()
    return quantize(denoiser, small_calibration(), uniform_plan(denoiser, bits), settings, freeze=False)


def tuner(student_=None, **changes):
    settings = FinetuneSettings(**{**FAST, **changes})
    return Finetuner(student_ or student(), small_record(), settings, teacher=small_denoiser())
