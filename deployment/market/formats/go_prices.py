"""Prices that Karpenter's AWS and Azure providers generate as Go: a map of regions to maps of instances to prices.

    // generated at 2026-07-20T13:44:30Z for us-east-1
    "us-east-1": { "g6.xlarge": 0.804800, … }                              AWS
    initialOnDemandPrices["eastus"] = map[string]float64{ "Standard_…": }  Azure

The files: zz_generated.pricing_aws.go (and _aws_us_gov, _aws_cn) of github.com/aws/karpenter-provider-aws, with its
page of instance types, which says what a size is made of; zz_generated.pricing.go of
github.com/Azure/karpenter-provider-azure. On demand, Linux. The day is in the file.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from deployment.market.formats.imported import Imported, text_of
from deployment.market.shapes import Shape, shapes_of
from deployment.market.store import sources
from phases.errors import DataError

_DAY = re.compile(r"generated at (\d{4}-\d{2}-\d{2})T")
_TOKEN = re.compile(
    r'initialOnDemandPrices\["(?P<azure>[\w-]+)"\] = map'  # a region of Azure's file
    r'|^\s*"(?P<aws>[a-z]{2}(?:-[a-z]+)+-\d)":\s*\{'  # a region of AWS's file
    r'|"(?P<instance>[^"\n]+)":\s*(?P<price>\d+(?:\.\d+)?)',
    re.MULTILINE,
)
AWS_CPU_FAMILIES = ("c7g", "c7i", "m7g", "m7i", "t3")
"""Of the hundreds of families without an accelerator: a current one of each kind is enough for a small agent."""
_AWS_CPU_SIZES = ("medium", "large", "xlarge", "2xlarge", "4xlarge")


def read_aws(path: Path, made_of: Mapping[str, Shape]) -> Imported:
    """AWS's file; `made_of` from `instance_types.read`. Raises DataError."""
    text = text_of(path)
    imported = Imported(str(path), "aws", "USD", _day(path, text), sources()["aws-price-list"])
    for region, instance, price in _prices(path, text):
        # AWS bills its two regions in China in yuan.
        imported.currency = "CNY" if region.startswith("cn-") else "USD"
        shape = made_of.get(instance)
        if shape is None:
            imported.left_out["of unknown make-up"] += 1
        elif shape.accelerator == "cpu" and not _wanted_cpu(instance):
            imported.left_out["without accelerators, of a family that is not kept"] += 1
        elif shape.accelerator == "" or (shape.accelerator != "cpu" and shape.count == 0):
            imported.left_out["with a part of an accelerator, or one that the catalogue does not have"] += 1
        else:
            imported.add(instance, region, shape, price)
    return imported


def read_azure(path: Path) -> Imported:
    """Azure's file; what a size is made of stands in `data/shapes.csv`. Raises DataError."""
    text = text_of(path)
    imported = Imported(str(path), "azure", "USD", _day(path, text), sources()["azure-retail-prices"])
    made_of = shapes_of("azure")
    for region, instance, price in _prices(path, text):
        if instance in made_of:
            imported.add(instance, region, made_of[instance], price)
        else:
            imported.left_out["of a size that data/shapes.csv does not have"] += 1
    return imported


def _day(path: Path, text: str) -> str:
    found = _DAY.search(text)
    if found is None:
        raise DataError(f"{path}: no line 'generated at DAY': this is not one of Karpenter's generated price files")
    return found[1]


def _prices(path: Path, text: str) -> Iterator[tuple[str, str, float]]:
    """(region, instance, price per hour) in the order of the file."""
    region = ""
    found = False
    for token in _TOKEN.finditer(text):
        region = token["azure"] or token["aws"] or region
        if region and token["price"] and float(token["price"]) > 0:  # a few retired sizes stand there with 0
            found = True
            yield region, token["instance"], float(token["price"])
    if not found:
        raise DataError(f"{path}: no prices in it: this is not one of Karpenter's generated price files")


def _wanted_cpu(instance: str) -> bool:
    family, _, size = instance.partition(".")
    return family in AWS_CPU_FAMILIES and size in _AWS_CPU_SIZES
