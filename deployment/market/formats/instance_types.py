"""What AWS's instances are made of, from the page of instance types that Karpenter's AWS provider generates.

    ### `g6.12xlarge`
     |karpenter.k8s.aws/instance-cpu|48|
     |karpenter.k8s.aws/instance-gpu-name|l4|

The file: website/content/en/docs/reference/instance-types.md of github.com/aws/karpenter-provider-aws.
"""

import re
from pathlib import Path

from deployment.market.accelerators import canonical_name
from deployment.market.formats.imported import text_of
from deployment.market.shapes import Shape
from phases.errors import DataError

_LABEL = re.compile(r"\|karpenter\.k8s\.aws/instance-([a-z-]+)\|([^|\n]*)\|")
_BY_MEMORY_MIB = {
    ("a100", "40960"): "a100-40gb-sxm",
    ("a100", "81920"): "a100-80gb-sxm",
    ("v100", "16384"): "v100-16gb-sxm",
    ("v100", "32768"): "v100-32gb-sxm",
    ("rtx-pro-server-6000", "98304"): "rtx-pro-6000",
}
"""AWS's name and memory, where the name alone does not say which."""


def read(path: Path) -> dict[str, Shape]:
    """By instance. The accelerator is "cpu" for none and "" for one that the catalogue does not have.

    Raises DataError.
    """
    found = {}
    for block in re.split(r"^### `", text_of(path), flags=re.MULTILINE)[1:]:
        instance = block.partition("`")[0]
        labels = dict(_LABEL.findall(block))
        try:
            found[instance] = _shape(labels)
        except (KeyError, ValueError) as error:
            raise DataError(f"{path}: {instance}: no usable label instance-cpu or instance-memory ({error})") from None
    if not found:
        raise DataError(f"{path}: no instance types in it; it is a page with headings such as ### `g6.xlarge`")
    return found


def _shape(labels: dict[str, str]) -> Shape:
    count = int(labels.get("gpu-count") or labels.get("accelerator-count") or 0)
    name = labels.get("gpu-name") or labels.get("accelerator-name")
    ours = "cpu"
    if name is not None:
        ours = _BY_MEMORY_MIB.get((name, labels.get("gpu-memory", "")), "") or canonical_name(name) or ""
    return Shape(ours, count, int(labels["cpu"]), int(labels["memory"]) / 1024)
