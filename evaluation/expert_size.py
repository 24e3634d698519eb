"""What an agent needs besides its weights where its design chooses an expert for each conversation."""

from pathlib import Path

from phases.adas.vectors import FILES
from phases.agent.design import Mixture
from phases.agent.settings import SETTINGS, read_settings
from phases.bitnet.storage import LATENT


def expert_bytes(path: Path) -> int:
    """Bytes of the vectors of its kind and of the latent weights that they are added to.

    0 for a design that does not choose: its mixture is in the weights already.
    """
    if not (path / SETTINGS).is_file() or (mixture := read_settings(path).design.mixture) == Mixture():
        return 0
    needed = [path / FILES[mixture.kind], path / LATENT]
    return sum(file.stat().st_size for file in needed if file.is_file())
