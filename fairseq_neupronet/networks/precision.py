"""The forward pass in bfloat16."""

import torch


def autocast(enabled: bool, device: torch.device) -> torch.autocast:
    """A context in which matrix products and convolutions run in bfloat16, and what needs its digits in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)
