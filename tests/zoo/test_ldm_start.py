"""A text-to-image U-Net's start; the oracle is the other U-Net with its attention blocks silenced."""

import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel

from mpqdm_core.errors import SettingsError
from mpqdm_core.zoo.ldm_start import start_from_ldm_

NULL = 3
SHAPE = {"sample_size": 8, "in_channels": 4, "out_channels": 4, "layers_per_block": 1, "norm_num_groups": 8}


def donor(widths=(16, 32)):
    torch.manual_seed(1)
    blocks = {"down_block_types": ("AttnDownBlock2D",) * 2, "up_block_types": ("AttnUpBlock2D",) * 2}
    return UNet2DModel(
        **SHAPE, **blocks, block_out_channels=widths, attention_head_dim=8, num_class_embeds=NULL + 1
    ).eval()


def reader(widths=(16, 32)):
    torch.manual_seed(2)
    return UNet2DConditionModel(
        **SHAPE,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        block_out_channels=widths,
        attention_head_dim=(2, 4),
        cross_attention_dim=12,
    ).eval()


def test_it_first_predicts_what_the_other_does_without_attention_and_class():
    given, own = donor(), reader()
    start_from_ldm_(own, given, null_class=NULL)
    for name, module in given.named_modules():
        if name.endswith("to_out.0"):  # the input of an attention block is added to what comes out here
            module.weight.data.zero_()
            module.bias.data.zero_()
    noisy, timesteps = torch.randn(3, 4, 8, 8), torch.tensor([5, 400, 900])
    text = torch.randn(3, 6, 12)
    with torch.no_grad():
        expected = given(noisy, timesteps, class_labels=torch.full((3,), NULL)).sample
        found = own(noisy, timesteps, encoder_hidden_states=text).sample
    torch.testing.assert_close(found, expected)
    assert expected.std() > 0.01


def test_text_is_learned_from_the_first_step_on():
    own = reader()
    start_from_ldm_(own, donor(), null_class=NULL)
    noisy, text = torch.randn(2, 4, 8, 8), torch.randn(2, 6, 12)
    own(noisy, torch.tensor([5, 900]), encoder_hidden_states=text).sample.square().mean().backward()
    leaving = [p.grad for name, p in own.named_parameters() if name.endswith("proj_out.weight")]
    assert leaving and all(gradient.abs().max() > 0 for gradient in leaving)


def test_another_width_is_refused_by_name():
    with pytest.raises(SettingsError, match=r"conv_in\.weight of \(24, 4, 3, 3\) has no counterpart"):
        start_from_ldm_(reader((24, 32)), donor(), null_class=NULL)
