"""A CLIP model of two tiny towers, its tokenizer and its image processor, as a folder."""

from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

from mpqdm_core.zoo.caption_encoder import build_tokenizer

SIDE = 16
MEAN, DEVIATION = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


def save_clip(place: Path) -> Path:
    """Write the folder; it reads pictures of SIDE x SIDE without resizing."""
    tokenizer = build_tokenizer(["a", "red", "star", "cat", "blue", "boat", "on", "pink", "background"])
    torch.manual_seed(3)
    tower = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": 8,
    }
    text = {
        **tower,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 16,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model = CLIPModel(
        CLIPConfig(
            text_config=text, vision_config={**tower, "image_size": SIDE, "patch_size": 8}, projection_dim=8
        )
    )
    model.save_pretrained(place)
    sizes = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    pictures = CLIPImageProcessor(**sizes, image_mean=MEAN, image_std=DEVIATION)
    CLIPProcessor(image_processor=pictures, tokenizer=tokenizer).save_pretrained(place)
    return place
