import torch

from mpqdm_core.zoo.train_autoencoder import AutoencoderSettings, build_autoencoder, held_out_psnr


def test_the_untrained_autoencoder_already_keeps_colours():
    torch.manual_seed(0)
    vae = build_autoencoder(AutoencoderSettings()).eval()
    red, blue = torch.full((2, 3, 64, 64), -0.9).unbind(0)
    red[0], blue[2] = 0.9, 0.9
    red[:, 20:40, 20:40], blue[:, 20:40, 20:40] = 0.0, 0.0  # a grey square: a flat picture has no scale
    with torch.no_grad():
        decoded = vae.decode(vae.encode(torch.stack([red, blue])).latent_dist.mode()).sample
    corner = decoded[:, :, 2:14, 2:14].mean(dim=(2, 3))  # (2, 3)
    assert corner[0].argmax() == 0
    assert corner[1].argmax() == 2


def test_every_weight_can_still_learn():
    torch.manual_seed(0)
    vae = build_autoencoder(AutoencoderSettings())
    pixels = torch.rand(2, 3, 64, 64) * 2 - 1
    for _ in range(2):  # branches that start at zero pass a gradient on once they have moved
        optimizer = torch.optim.SGD(vae.parameters(), lr=0.1)
        optimizer.zero_grad()
        posterior = vae.encode(pixels).latent_dist
        sample = posterior.sample(torch.Generator().manual_seed(0))
        (vae.decode(sample).sample - pixels).square().mean().backward()
        optimizer.step()
    still = [name for name, value in vae.named_parameters() if value.grad.abs().max() == 0]
    assert still == []


def test_held_out_psnr_of_the_start_is_that_of_a_blurred_picture():
    torch.manual_seed(0)
    assert 8.0 < held_out_psnr(build_autoencoder(AutoencoderSettings()), None, count=8) < 22.0
