"""Importers on small files of each format, on bad ones, and on the real ones where they are at hand."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from deployment.market.formats import gcp_prices, go_prices, gpu_price_index, instance_types, skypilot
from deployment.market.importing import main
from deployment.market.offers import all_offers
from deployment.market.store import identity, read_offers
from phases.errors import DataError

DOCS = Path(__file__).parents[2] / "docs/deployment.md"
AWS = """// generated at 2026-07-20T13:44:30Z for us-east-1
var InitialOnDemandPricesAWS = map[string]map[ec2types.InstanceType]float64{
	// us-east-1
	"us-east-1": {
		"g6.12xlarge": 4.601600, "g6f.large": 0.202000, "m7i.large": 0.100800,
		"x9.unheard": 1.000000, "u7i.112xlarge": 9.9,
	},
	"cn-north-1": {
		"g6.12xlarge": 39.5,
	},
}
"""
TYPES = """## g6 Family
### `g6.12xlarge`
 |karpenter.k8s.aws/instance-cpu|48|
 |karpenter.k8s.aws/instance-gpu-count|4|
 |karpenter.k8s.aws/instance-gpu-memory|22888|
 |karpenter.k8s.aws/instance-gpu-name|l4|
 |karpenter.k8s.aws/instance-memory|196608|
### `g6f.large`
 |karpenter.k8s.aws/instance-cpu|2|
 |karpenter.k8s.aws/instance-gpu-count|0|
 |karpenter.k8s.aws/instance-gpu-name|l4|
 |karpenter.k8s.aws/instance-memory|8192|
### `m7i.large`
 |karpenter.k8s.aws/instance-cpu|2|
 |karpenter.k8s.aws/instance-memory|8192|
### `u7i.112xlarge`
 |karpenter.k8s.aws/instance-cpu|448|
 |karpenter.k8s.aws/instance-memory|6291456|
"""
AZURE = """// generated at 2026-06-18T03:43:41Z
	initialOnDemandPrices["uksouth"] = map[string]float64{
		"Standard_NC48ads_A100_v4": 9.182000,
		"Standard_A0":              0.024000,
		"Standard_NC6s_v3":         0,
	}
"""
SKYPILOT = """InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,SpotPrice,Region,AvailabilityZone,GPU
gpu_8x_h100,H100-SXM,8.0,208.0,1800.0,31.92,9.5,us-east-1,a,"{'Gpus': []}"
gpu_8x_h100,H100-SXM,8.0,208.0,1800.0,31.92,8.5,us-east-1,b,
cpu_4x,,,4.0,16.0,0.2,,us-east-1,,
gpu_old,K80,1,4,61,0.9,,us-east-1,,
gpu_part,L4,0.5,4,16,0.4,,us-east-1,,
,A100,1,,,2.9,1.1,us-east-1,,
"""
Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def file(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return file


def test_aws(write: Write) -> None:
    imported = go_prices.read_aws(write("p.go", AWS), instance_types.read(write("t.md", TYPES)))
    l4, agent, china = imported.offers
    assert (l4.instance, l4.region, l4.accelerator, l4.count, l4.price) == ("g6.12xlarge", "us-east-1", "l4", 4, 4.6016)
    assert (l4.vcpus, l4.memory_bytes, l4.date, l4.spot) == (48, 192 * 2**30, "2026-07-20", False)
    assert (agent.instance, agent.accelerator, agent.count, agent.currency) == ("m7i.large", "cpu", 0, "USD")
    assert (china.region, china.currency, china.price) == ("cn-north-1", "CNY", 39.5)
    assert imported.left_out.total() == 3  # a part of a GPU, a size of unknown make-up, a family that is not kept


def test_azure(write: Write) -> None:
    imported = go_prices.read_azure(write("a.go", AZURE))
    (offer,) = imported.offers  # the price of 0 is a retired size
    assert (offer.accelerator, offer.count, offer.vcpus, offer.date) == ("a100-80gb-pcie", 2, 48, "2026-06-18")
    assert offer.price_per_accelerator == 4.591 and imported.left_out.total() == 1


def test_gcp(write: Write) -> None:
    text = json.dumps({"prices": {"us-central1": {"on_demand": {"g2-standard-24": 2}, "spot": {"g2-standard-24": 1}}}})
    offers = gcp_prices.read(write("g.json", text), "2026-08-03").offers
    assert [(o.price, o.spot, o.accelerator, o.count) for o in offers] == [(2, False, "l4", 2), (1, True, "l4", 2)]


def test_skypilot(write: Write) -> None:
    imported = skypilot.read(write("vms.csv", SKYPILOT), "lambda", "2026-10-10")
    on_demand, spot, cpu = imported.offers
    assert (on_demand.price, spot.price, spot.spot) == (31.92, 8.5, True)  # of the two zones the cheaper
    assert (spot.accelerator, spot.count, cpu.accelerator, cpu.count) == ("h100-sxm", 8, "cpu", 0)
    assert dict(imported.left_out) == {
        "with K80, which the catalogue does not have": 1,
        "with a part of an accelerator": 1,
        "of a host or an accelerator alone": 1,
    }


def test_skypilot_never_sells_google_s_host_without_its_gpus(write: Write) -> None:
    text = SKYPILOT.splitlines()[0] + "\na2-highgpu-1g,,,12,85,0.74,0.37,us-central1,us-central1-a,\n"
    imported = skypilot.read(write("vms.csv", text), "gcp", "2026-10-10")
    assert imported.offers == [] and imported.left_out.total() == 1


def test_the_command_merges_and_counts(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store.csv"
    monkeypatch.setenv("FORGE_OFFERS", str(store))
    assert main(["azure", str(write("a.go", AZURE))]) == 0
    assert "1 offers read" in capsys.readouterr().out
    sky = str(write("vms.csv", SKYPILOT))
    assert main(["skypilot", sky, "--cloud", "lambda", "--date", "2026-10-10"]) == 0
    assert "left out: 1 prices with K80" in capsys.readouterr().out
    once = store.read_bytes()
    assert main(["plain", str(store)]) == 0 and store.read_bytes() == once
    assert len(read_offers(store)) == len(all_offers()) == 4


INDEX = """\
date,collected_at,source,provider,segment,pricing,gpu_model,sku,region,geo,gpu_count,usd_per_hour,usd_per_gpu_hour,sample_size
2027-01-02,t,aws,AWS,hyperscaler,on_demand,L40S,g6e.12xlarge,us-east-1,NA,4,11.5,2.875,1
2027-01-02,t,aws,AWS,hyperscaler,on_demand,B300,p99.new,us-east-1,NA,8,90.0,11.25,1
2027-01-02,t,azure,Microsoft Azure,hyperscaler,spot,A100-80GB-PCIe,Standard_NC24ads_A100_v4,eastus,NA,1,0.9,0.9,1
2027-01-02,t,lambda,Lambda,neocloud,on_demand,A100-40GB,gpu_1x_a100_pcie_40gb,global,Global,1,2.5,2.5,1
2027-01-02,t,oracle,Oracle Cloud,hyperscaler,on_demand,H100,BM.GPU.H100.8,global,Global,1,11.0,11.0,1
2027-01-02,t,runpod,RunPod Secure,neocloud,on_demand,H200,NVIDIA H200,global,Global,1,5.0,5.0,1
2027-01-02,t,runpod,RunPod Community,marketplace,on_demand,H200,NVIDIA H200,global,Global,1,3.0,3.0,1
2027-01-02,t,runpod,RunPod Community,marketplace,on_demand,B300,NVIDIA B300 MIG 1g.34gb,global,Global,1,0.6,0.6,1
2027-01-02,t,runpod,RunPod Community,marketplace,on_demand,MI300X,AMD Instinct MI300X OAM,global,Global,1,0.5,0.5,1
2027-01-02,t,vast,Vast.ai,marketplace,on_demand,H100,median-offer,global,Global,1,4.0,4.0,7
2027-01-02,t,crusoe,Crusoe,neocloud,on_demand,L40S,NVIDIA L40S 48GB ,global,Global,1,1.6,1.6,1
2027-01-02,t,nebius,Nebius,neocloud,on_demand,H100,NVIDIA HGX H100,global,Global,1,4.5,4.5,1
2027-01-02,t,aws,AWS,hyperscaler,on_demand,Z9,z9.large,us-east-1,NA,1,4.5,4.5,1
"""


def test_the_gpu_price_index_names_instances_as_the_shipped_offers_do(write: Write) -> None:
    imported = gpu_price_index.read(write("day.csv", INDEX))
    assert imported.left_out.total() == 4
    found = {f"{o.cloud} {o.instance}{' spot' if o.spot else ''}": o for o in imported.offers}
    assert {name: (o.accelerator, o.count, o.price) for name, o in found.items()} == {
        "aws g6e.12xlarge": ("l40s", 4, 11.5),
        "aws p99.new": ("b300-sxm", 8, 90.0),
        "azure Standard_NC24ads_A100_v4 spot": ("a100-80gb-pcie", 1, 0.9),
        "lambda gpu_1x_a100_pcie_40gb": ("a100-40gb-pcie", 1, 2.5),
        "oracle BM.GPU.H100.8": ("h100-sxm", 8, 88.0),
        **{f"runpod {n}x NVIDIA H200 (secure)": ("h200-sxm", n, 5.0 * n) for n in (1, 2, 4, 8)},
        "runpod 1x NVIDIA H200 (community)": ("h200-sxm", 1, 3.0),
        "vast 1x h100-sxm (median offer)": ("h100-sxm", 1, 4.0),
        "crusoe NVIDIA L40S 48GB": ("l40s", 1, 1.6),
    }
    assert (found["aws g6e.12xlarge"].vcpus, found["aws p99.new"].vcpus) == (48, 0)
    assert {o.date for o in imported.offers} == {"2027-01-02"}
    shipped = {(o.cloud, o.instance) for o in all_offers()}
    assert {(o.cloud, o.instance) for o in imported.offers} - shipped == {("aws", "p99.new")}


def test_what_a_newer_list_no_longer_has_is_dropped(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store.csv"

    def imported(text: str, day: str) -> set[str]:
        assert main(["gcp", str(write("g.json", text)), "--date", day, "--store", str(store)]) == 0
        return {f"{offer.region} {offer.instance} {offer.spot:d}" for offer in read_offers(store)}

    one, two = '"g2-standard-4": 0.7', '"g2-standard-24": 2.0'
    both = f'{{"prices": {{"a": {{"on_demand": {{{one}, {two}}}}}, "b": {{"on_demand": {{{one}}}}}}}}}'
    less = f'{{"prices": {{"a": {{"on_demand": {{{one}}}, "spot": {{{one}}}}}}}}}'
    before = imported(both, "2026-08-03")
    assert len(before) == 3
    after = {"a g2-standard-4 0", "a g2-standard-4 1", "b g2-standard-4 0"}
    assert imported(less, "2026-09-01") == after, "region b is not in the list: it says nothing of it"
    assert "1 new, 1 dropped" in capsys.readouterr().out
    assert imported(both, "2026-08-03") == after | before, "an older list drops nothing"


@pytest.mark.parametrize(
    ("arguments", "text", "said"),
    [
        (["azure"], "package pricing", "no line 'generated at DAY'"),
        (["azure"], "// generated at 2026-06-18T03:43:41Z", "no prices in it"),
        (["aws"], AWS, "aws takes the price file and the page of instance types"),
        (["gcp"], "{}", "add --date YYYY-MM-DD"),
        (["gcp", "--date", "2026-13-01"], "{}", "add --date YYYY-MM-DD"),
        (["gcp", "--date", "2026-08-03"], "{}", "not JSON of prices by region"),
        (["gcp", "--date", "2026-08-03"], '{"prices": {"x": {"weekly": {"y": 1}}}}', "KeyError"),
        (["gcp", "--date", "2026-08-03"], '{"prices": {"x": {"spot": {"g2-standard-4": -1}}}}', "a price of -1.0"),
        (["skypilot", "--date", "2026-08-03"], SKYPILOT, "add --cloud NAME"),
        (["skypilot", "--date", "2026-08-03", "--cloud", "x"], "a,b\n", "no column InstanceType"),
        (
            ["skypilot", "--date", "2026-08-03", "--cloud", "x"],
            SKYPILOT.replace("31.92,9.5", "31.92,?"),
            "line 2: SpotPrice is '?'",
        ),
        (
            ["skypilot", "--date", "2026-08-03", "--cloud", "x"],
            SKYPILOT.replace("H100-SXM,8.0", "H100-SXM,nan"),
            "line 2: AcceleratorCount is 'nan'",
        ),
        (["plain"], "", "the first line has to be"),
        (["gpu-price-index"], "a,b", "no column date"),
        (["gpu-price-index"], INDEX.replace(",11.5,", ",dear,"), "line 2: gpu_count or usd_per_hour is no number"),
        (["gpu-price-index"], INDEX.replace("2027-01-02,t,aws", "today,t,aws"), "line 2: "),
    ],
)
def test_a_bad_file_is_one_clear_line(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str, said: str
) -> None:
    form, *rest = arguments
    status = main([form, str(write("bad.txt", text)), *rest, "--store", str(tmp_path / "store.csv")])
    error = capsys.readouterr().err
    assert status == 2 and error.count("\n") == 1 and not (tmp_path / "store.csv").exists()
    assert said in error


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        go_prices.read_azure(tmp_path / "none.go")
    (tmp_path / "picture.go").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(DataError, match="cannot be read as text"):
        go_prices.read_azure(tmp_path / "picture.go")


def test_a_page_without_the_labels_is_refused(write: Write) -> None:
    with pytest.raises(DataError, match="no instance types in it"):
        instance_types.read(write("t.md", "# Instance types\n"))
    with pytest.raises(DataError, match=r"g6.xlarge: no usable label"):
        instance_types.read(write("t.md", "### `g6.xlarge`\n |karpenter.k8s.aws/instance-cpu|four|\n"))


def test_what_is_shipped_comes_from_the_real_lists(shared: Path) -> None:
    """Every price of the two lists stands in the shipped file, or a newer one of the same offer does."""
    shipped = {identity(o): o for o in all_offers()}
    prices = shared / "prices"
    types = instance_types.read(prices / "aws_instance_types.md")
    aws = go_prices.read_aws(prices / "aws_on_demand_us_east_1.go.txt", types)
    azure = go_prices.read_azure(prices / "azure_on_demand.go.txt")
    assert len(aws.offers) > 60 and len(azure.offers) > 600
    for offer in (*aws.offers, *azure.offers):
        ours = shipped[identity(offer)]
        assert ours.price == offer.price if ours.date == offer.date else ours.date > offer.date
        assert (ours.accelerator, ours.count, ours.vcpus) == (offer.accelerator, offer.count, offer.vcpus)


def test_the_docs_name_every_reader_and_count_the_offers() -> None:
    text, offers = DOCS.read_text("utf-8"), all_offers()
    for form in ("aws", "azure", "gcp", "skypilot", "gpu-price-index", "plain"):
        assert f"python -m deployment.market.importing {form} " in text
    accelerated = [one for one in offers if one.count]
    spot, clouds = sum(one.spot for one in accelerated), len({one.cloud for one in offers})
    counts = (
        f"{len(offers):,} offers at {clouds} clouds, {len(accelerated):,} of them with accelerators ({spot} of these"
    )
    assert counts in text
