"""Profile files: chains, overlays, guards, roles, `--set`; every error names file, line and key."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.machines import GIB, make_machine
from tvops.cli import run
from tvops.engine.bus.roles import ROLES as SERVER_ROLES
from tvops.errors import SettingsError, UsageError
from tvops.profile_files import ROLES, load_profile_chain, profile_names
from tvops.settings import load_settings
from tvops.shipped import resource
from tvops.tuning.catalogue import load_catalogue
from tvops.tuning.facts import read_facts
from tvops.tuning.model import SERVE_KINDS, Facts, Profile
from tvops.tuning.profiles import chosen_profile, list_profiles, resolve_profile
from tvops.tuning.topology import HOT
from tvops.tuning.values import format_cpus, parse_wanted

CATALOGUE = load_catalogue()
FACTS = Facts(kernel=(6, 18, 0), release="6.18.0", memory_bytes=16 * GIB, cpus=tuple(range(8)), privileged=True)


def put(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def resolve(name: str, *assignments: str, facts: Facts = FACTS, overlays: Path | None = None) -> Profile:
    return resolve_profile(name, facts, CATALOGUE, assignments, overlays)


def wishes(profile: Profile) -> dict[str, Any]:
    return {f"{w.knob}@{w.selector}" if w.selector else w.knob: w.value for w in profile.wishes}


def test_the_later_file_wins_for_each_knob_and_place(tmp_path: Path) -> None:
    put(tmp_path, "base.yaml", "knobs: {vm.swappiness: 1, redis.hz@market: 20, vm.stat_interval: 5}\n")
    put(tmp_path, "more.yaml", "description: More\nknobs: {vm.swappiness: 2, redis.hz: 30}\n")
    top = put(tmp_path, "top.yaml", "extends: [base.yaml, ./more.yaml]\nknobs:\n  vm.stat_interval: 9\n")
    profile = resolve(top)
    assert wishes(profile) == {
        "vm.swappiness": 2, "redis.hz@market": 20, "redis.hz": 30, "vm.stat_interval": 9,
    }  # fmt: skip
    assert (profile.name, profile.description) == ("top", "More")
    assert {w.knob: w.origin for w in profile.wishes}["vm.stat_interval"] == "top.yaml:3"
    assert {w.knob: w.origin for w in profile.wishes}["vm.swappiness"] == "more.yaml:2"


def test_what_two_files_extend_stands_there_once(tmp_path: Path) -> None:
    put(tmp_path, "base.yaml", "knobs: {vm.swappiness: 1}\n")
    put(tmp_path, "one.yaml", "extends: base.yaml\nknobs: {vm.swappiness: 2}\n")
    put(tmp_path, "two.yaml", "extends: base.yaml\n")
    top = put(tmp_path, "top.yaml", "extends: [one.yaml, two.yaml]\n")
    assert [file.name for file in load_profile_chain(top)] == ["base", "one", "two", "top"]
    assert wishes(resolve(top)) == {"vm.swappiness": 2}


def test_a_file_extends_a_shipped_profile(tmp_path: Path) -> None:
    path = put(tmp_path, "mine.yaml", "extends: ull\nsettings: {max_batch_size: 7}\nroles: {redis: 1}\n")
    assert [file.name for file in load_profile_chain(path)] == ["prod", "ull", "mine"]
    profile = resolve(path)
    assert profile.settings["max_batch_size"] == 7
    assert profile.settings["batch_interval_ms"] == 10
    assert len(profile.facts.roles["redis"]) == 1


def test_overlays_come_last_in_the_order_of_their_names(tmp_path: Path) -> None:
    put(tmp_path, "20.yaml", "settings: {max_batch_size: 20}\nknobs: {vm.swappiness: 20}\n")
    put(tmp_path, "10.yaml", "settings: {max_batch_size: 10}\nknobs: {vm.swappiness: 10, vm.stat_interval: 7}\n")
    put(tmp_path, "30.yaml", "applies_to: [ull, other]\nknobs: {vm.swappiness: 30}\n")
    put(tmp_path, "40.yaml.off", "knobs: [\n")
    prod, ull = resolve("prod", overlays=tmp_path), resolve("ull", overlays=tmp_path)
    assert (prod.name, prod.settings["max_batch_size"]) == ("prod", 20)
    assert (wishes(prod)["vm.swappiness"], wishes(prod)["vm.stat_interval"]) == (20, 7)
    assert wishes(ull)["vm.swappiness"] == 30
    assert prod.description == resolve("prod").description


def test_dev_is_overlaid_only_by_name(tmp_path: Path) -> None:
    put(tmp_path, "all.yaml", "knobs: {vm.swappiness: 1}\n")
    assert "vm.swappiness" not in wishes(resolve("dev", overlays=tmp_path))
    put(tmp_path, "all.yaml", "applies_to: dev\nknobs: {vm.swappiness: 1}\n")
    assert wishes(resolve("dev", overlays=tmp_path))["vm.swappiness"] == 1
    assert resolve("prod", overlays=tmp_path).wishes == resolve("prod").wishes


def test_overlays_reach_the_settings_of_the_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVOPS_PROFILES_DIR", str(tmp_path))
    path = put(tmp_path, "site.yaml", "settings:\n  max_batch_size: 33\n")
    assert load_settings({"profile": "prod"}, {}).max_batch_size == 33
    assert load_settings({}, {}).max_batch_size == 100
    assert load_settings({"profile": "prod", "max_batch_size": 5}, {}).max_batch_size == 5
    put(tmp_path, "site.yaml", "settings:\n  max_batch_size: 0\n")
    with pytest.raises(SettingsError) as caught:
        load_settings({"profile": "prod"}, {})
    assert str(caught.value).startswith(f"{path}:2: max_batch_size: 0 from the profile site: ")


def test_assignments_have_the_last_word(tmp_path: Path) -> None:
    put(tmp_path, "x.yaml", "knobs: {vm.swappiness: 20}\n")
    profile = resolve(
        "prod", "vm.swappiness=<=5", "redis.hz@market = 50", "net.ipv4.tcp_rmem=- - >=8mb", overlays=tmp_path
    )
    assert wishes(profile)["vm.swappiness"] == "<=5"
    assert wishes(profile)["redis.hz@market"] == "50"
    assert wishes(profile)["net.ipv4.tcp_rmem"] == "- - >=8mb"
    assert profile.wishes[-1].origin == "--set"


@pytest.mark.parametrize(
    "assignment, message",
    [
        ("vm.swappiness", "--set vm.swappiness: must be ID=VALUE or ID@PLACE=VALUE"),
        ("=1", "--set =1: must be ID=VALUE"),
        ("redis.hz@=1", "--set redis.hz@=1: must be ID=VALUE"),
        ("vm.swapiness=1", "--set vm.swapiness=1: vm.swapiness: there is no such knob; do you mean vm.swappiness"),
        ("vm.swappiness=lots", "--set vm.swappiness=lots: vm.swappiness: 'lots' is not a number"),
        ("vm.swappiness=", "--set vm.swappiness=: vm.swappiness: is empty"),
        ("net.ipv4.tcp_low_latency=1", "--set net.ipv4.tcp_low_latency=1: net.ipv4.tcp_low_latency: "),
        ("net.ipv4.tcp_sack=0", "--set net.ipv4.tcp_sack=0: net.ipv4.tcp_sack: breaks the recovery"),
        ("vm.zone_reclaim_mode=>=1", "--set vm.zone_reclaim_mode=>=1: vm.zone_reclaim_mode: stalls"),
        ("irq.smp_affinity=$net", r"irq.smp_affinity: \$net is no CPU role; there are housekeeping, irq"),
    ],
)
def test_a_wrong_assignment_is_named(assignment: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("[", r"\[")) as caught:
        resolve("prod", assignment)
    assert "\n" not in str(caught.value)


ERRORS = [
    # text, line, what follows FILE:LINE:
    ("[]\n", 1, "must be a mapping of description, extends"),
    ("description: a\nknob: {}\n", 2, "knob: is not known here; use description, extends, settings, roles, knobs"),
    ("description: a\napplies_to: [prod]\n", 2, "applies_to: is not known here"),
    ("description: 5\n", 1, "description: must be text; put it in quotes"),
    ("description: a\nextends: nope\n", 2, "extends: there is no profile 'nope'; choose one of dev, prod, ull"),
    ("extends: ../nope.yaml\n", 1, "extends: there is no profile '../nope.yaml'"),
    ("extends: {a: 1}\n", 1, "extends: must be the name of a profile or a list of names"),
    ("extends: [prod, 5]\n", 1, "extends: must be the name of a profile or a list of names"),
    ("extends: x.yaml\n", 1, "extends: a circle: x extends x; take one of them out"),
    ("settings: [a]\n", 1, "settings: must be a mapping of setting: value"),
    ("roles:\n  engine: 1\n  trader: 1\n", 3, "trader: is no role; there are housekeeping, irq, engine, market"),
    ("roles:\n  engine: 0\n", 2, "engine: 0 is neither a number of cores nor auto, all or cpus:2-3"),
    ("roles:\n  engine: true\n", 2, "engine: True is neither a number of cores"),
    ("roles:\n  engine: cpus:x\n", 2, "engine: 'cpus:x' is neither a number of cores"),
    ("roles:\n  engine: cpus:64\n", 2, "engine: none of cpus:64 can be used on this host; there are 0-7"),
    ("roles:\n  engine: cpus:3-1\n", 2, "engine: '3-1' is not a range of CPUs"),
    ("roles:\n  engine: cpus:3-99999\n", 2, "engine: '3-99999' is not a range of CPUs"),
    ("knobs: [vm.swappiness]\n", 1, "knobs: must be a mapping of knob: value"),
    ("knobs:\n  vm.swappiness:\n", 2, "vm.swappiness: is empty; write '-' to leave the knob alone"),
    ("knobs:\n  vm.swappiness: []\n", 2, "vm.swappiness: is empty; write '-' to leave the knob alone"),
    ("knobs:\n  redis.appendonly: yes\n", 2, "redis.appendonly: true is a YAML boolean; put the word in quotes"),
    ("knobs:\n  vm.swappiness: [[1]]\n", 2, "vm.swappiness: must be a value, or a list of values"),
    ("knobs:\n\n  vm.swapiness: 1\n", 3, "vm.swapiness: there is no such knob; do you mean vm.swappiness"),
    ("knobs:\n  zzz: 1\n", 2, "zzz: there is no such knob; see docs/knobs.md"),
    ("knobs:\n  redis.hz@: 1\n", 2, "redis.hz@: must be a knob or knob@place"),
    ("knobs:\n  '@engine': 1\n", 2, "@engine: must be a knob or knob@place"),
    ("knobs:\n  vm.swappiness: '>=a'\n", 2, "vm.swappiness: 'a' is not a number"),
    ("knobs:\n  vm.swappiness: 25%\n", 2, "vm.swappiness: '25%': this knob is not an amount of memory"),
    ("knobs:\n  vm.thp.enabled: sometimes\n", 2, "vm.thp.enabled: 'sometimes' is none of always, madvise, never"),
    ("knobs:\n  vm.thp.enabled: '>=never'\n", 2, "vm.thp.enabled: '>=never': >= compares numbers"),
    ("knobs:\n  irq.smp_affinity: $net\n", 2, "irq.smp_affinity: $net is no CPU role; there are"),
    ("knobs:\n  cpu.pm_qos_resume_latency_us@$net: n/a\n", 2,
     "cpu.pm_qos_resume_latency_us@$net: $net is no CPU role"),
    ("knobs:\n  net.ipv4.tcp_tw_recycle: 1\n", 2, "net.ipv4.tcp_tw_recycle: "),
    ("knobs:\n  boot.intel_idle.max_cstate: 0\n", 2, "boot.intel_idle.max_cstate: does not force C0"),
    ("knobs:\n  vm.swappiness:\n    valu: 1\n", 3, "vm.swappiness: valu: is not known here; use value, required"),
    ("knobs:\n  vm.swappiness:\n    required: true\n", 2, "vm.swappiness: has no value; write value: …"),
    ("knobs:\n  vm.swappiness:\n    value:\n", 3, "vm.swappiness: is empty"),
    ("knobs:\n  vm.swappiness:\n    value: 1\n    required: 1\n", 4,
     "vm.swappiness: required: must be true or false"),
    ("knobs:\n  vm.swappiness:\n    value: 1\n    why: 5\n", 4, "vm.swappiness: why: must be text"),
    ("knobs:\n  vm.swappiness:\n    value: 1\n    when: vm\n", 4,
     "vm.swappiness: when: must be a mapping of fact: what it must be"),
    ("knobs:\n  vm.swappiness:\n    value: 1\n    when:\n      cpu: 4\n", 5,
     "vm.swappiness: when: cpu: is no fact; there are virtual"),
    ("knobs:\n  vm.swappiness:\n    value: 1\n    when:\n      cpus: many\n", 5,
     "vm.swappiness: when: cpus: 'many' is not a number"),
    ("knobs:\n  vm.swappiness:\n    value: 1\n    when:\n      kernel: 6.10\n", 5,
     "vm.swappiness: when: kernel: 6.1 is a number to YAML, which takes 6.10 for 6.1; put it in quotes"),
    ("knobs:\n  vm.swappiness:\n    value: 1\n    when:\n      kernel: '>=new'\n", 5,
     "vm.swappiness: when: kernel: '>=new' is not a kernel version"),
    ("knobs:\n  vm.swappiness:\n    value: 1\n    when: {cpus: true}\n", 4,
     "vm.swappiness: when: cpus: must be a value, not true"),
    ("knobs:\n  vm.swappiness:\n    value: 1\n    when: {smt: 2}\n", 4,
     "vm.swappiness: when: smt: must be true or false"),
    ("knobs:\n  vm.swappiness:\n    value: 1\n    when: {driver: [a]}\n", 4,
     "vm.swappiness: when: driver: must be one value"),
    ("knobs:\n  vm.swappiness:\n    value: 1\n    when: {memory: '>=8 apples'}\n", 4,
     "vm.swappiness: when: memory: '>=8 apples' is not a comparison such as '>=4'"),
    ("knobs:\n  vm.swappiness: 1\n  vm.swappiness: 2\n", 3, "knobs.vm.swappiness stands twice"),
    ("knobs: {\n", 2, ""),
    ("", 1, "says nothing; give it one of extends, settings, roles, knobs"),
    ("description: cut off\n", 1, "says nothing; give it one of"),
    ("settings:\n  host: 127.0.0.1\n  batch_intervall_ms: 5\n", 3, "batch_intervall_ms: no such setting"),
    ("settings:\n  batch_interval_ms: 0\n", 2, "batch_interval_ms: 0 from the profile x"),
]  # fmt: skip


@pytest.mark.parametrize("text, line, message", ERRORS)
def test_an_error_names_file_line_and_key(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = put(tmp_path, "x.yaml", text)
    with pytest.raises(SettingsError) as caught:
        resolve(path)
    assert str(caught.value).startswith(f"{path}:{line}: {message}")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_an_overlay_extends_nothing(tmp_path: Path) -> None:
    path = put(tmp_path, "x.yaml", "extends: dev\n")
    with pytest.raises(SettingsError) as caught:
        resolve("prod", overlays=tmp_path)
    assert str(caught.value).startswith(f"{path}:1: extends: is not known here; an overlay extends nothing; use")


def test_overlays_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    put(tmp_path, ".hidden.yaml", "knobs: [\n")
    assert resolve("prod", overlays=tmp_path).wishes == resolve("prod", overlays=tmp_path / "none").wishes
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(SettingsError, match="loop: overlays of profiles cannot be read: Too many levels"):
        resolve("prod", overlays=loop)
    (tmp_path / "x.yaml").mkdir()
    with pytest.raises(SettingsError, match=r"x\.yaml: is not a regular file"):
        resolve("prod", overlays=tmp_path)


def test_a_longer_circle_is_named(tmp_path: Path) -> None:
    a = put(tmp_path, "a.yaml", "extends: b.yaml\n")
    put(tmp_path, "b.yaml", "extends: c.yaml\n")
    c = put(tmp_path, "c.yaml", "description: c\nextends: a.yaml\n")
    with pytest.raises(SettingsError) as caught:
        load_profile_chain(a)
    assert str(caught.value).startswith(f"{c}:2: extends: a circle: a extends b extends c extends a")


@pytest.mark.parametrize(
    "name", ["nope", "../prod", "prod.yml", "", "/etc", "prod/../prod", "a" * 300, "/" + "a" * 5000, "a\0/b"]
)
def test_an_unknown_profile_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match="profile: there is no profile") as caught:
        load_profile_chain(name)
    assert "choose one of dev, prod, ull" in str(caught.value)


def test_coupled_keys_are_not_both_wanted(tmp_path: Path) -> None:
    path = put(tmp_path, "x.yaml", "knobs:\n  vm.dirty_bytes: 1gb\n  vm.dirty_ratio: 5\n")
    with pytest.raises(SettingsError, match=r"^x.yaml:3: vm.dirty_ratio: contradicts vm.dirty_bytes \(x.yaml:2\)"):
        resolve(path)
    assert wishes(resolve(path, "vm.dirty_bytes=-"))["vm.dirty_ratio"] == 5
    path = put(tmp_path, "x.yaml", "knobs: {vm.dirty_bytes: 1gb, vm.dirty_background_ratio: 5}\n")
    assert len(resolve(path).wishes) == 2


VM = msgspec.structs.replace(FACTS, virtual="kvm", container="docker", nics={"eth0": "virtio_net"}, smt=True)
USER = msgspec.structs.replace(FACTS, privileged=False, numa_nodes=2)


@pytest.mark.parametrize(
    "guard, facts, skip",
    [
        ("virtual: false", VM, "needs a bare-metal host, this is kvm"),
        ("virtual: true", FACTS, "needs a virtual machine, this is bare metal"),
        ("virtual: false", FACTS, ""),
        ("virtual: kvm", VM, ""),
        ("virtual: kvm", msgspec.structs.replace(VM, virtual="firecracker"), ""),
        ("virtual: xen", VM, "needs xen, this is kvm"),
        ("container: false", VM, "needs a host that is no container, this is a container (docker)"),
        ("container: lxc", VM, "needs lxc, this is a container (docker)"),
        ("container: true", FACTS, "needs a container, this is no container"),
        ("kernel: '>=6.11'", FACTS, ""),
        ("kernel: '>6.18'", FACTS, "needs kernel >6.18, this is 6.18.0"),
        ("kernel: '6.18'", FACTS, ""),
        ("kernel: '<6.18.0'", FACTS, "needs kernel <6.18.0, this is 6.18.0"),
        ("cpus: '>=9'", FACTS, "needs >=9 CPUs, there are 8"),
        ("cpus: 8", FACTS, ""),
        ("cpus: '<8'", FACTS, "needs <8 CPUs, there are 8"),
        ("numa_nodes: '>=2'", FACTS, "needs >=2 NUMA nodes, there are 1"),
        ("numa_nodes: '>=2'", USER, ""),
        ("memory: '>=32gb'", FACTS, "needs >=32gb of memory, there are 16384 MiB"),
        ("memory: '<=16gb'", FACTS, ""),
        ("smt: false", VM, "needs SMT to be off, this is on"),
        ("smt: false", FACTS, ""),
        ("driver: virtio_net", VM, ""),
        ("driver: ena", VM, "needs a ena interface, here is virtio_net"),
        ("driver: ena", FACTS, "needs a ena interface, here is none"),
        ("privileged: true", USER, "needs root, this is an ordinary user"),
        ("{virtual: true, cpus: '>=9'}", VM, "needs >=9 CPUs, there are 8"),
    ],
)
def test_guards(tmp_path: Path, guard: str, facts: Facts, skip: str) -> None:
    when = guard if guard.startswith("{") else f"{{{guard}}}"
    path = put(tmp_path, "x.yaml", f"knobs: {{vm.swappiness: {{value: 1, when: {when}}}}}\n")
    (wish,) = resolve(path, facts=facts).wishes
    assert wish.skip == skip


def test_a_wish_that_a_guard_leaves_out_does_not_replace_an_earlier_one(tmp_path: Path) -> None:
    put(tmp_path, "base.yaml", "knobs: {vm.swappiness: {value: 1, when: {cpus: '>=2'}, required: true}}\n")
    text = "extends: base.yaml\nknobs: {vm.swappiness: {value: 2, when: {virtual: true}, why: because}}\n"
    path = put(tmp_path, "x.yaml", text)
    (bare,) = resolve(path).wishes
    assert (bare.value, bare.skip, bare.required, bare.why) == (1, "", True, "")
    (virtual,) = resolve(path, facts=VM).wishes
    assert (virtual.value, virtual.skip, virtual.required, virtual.why) == (2, "", False, "because")
    (small,) = resolve(path, facts=msgspec.structs.replace(FACTS, cpus=(0,))).wishes
    assert small.skip == "needs a virtual machine, this is bare metal"


def test_the_chosen_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVOPS_PROFILE", "ull")
    assert (chosen_profile("prod"), chosen_profile(None)) == ("prod", "ull")
    monkeypatch.delenv("TVOPS_PROFILE")
    with pytest.raises(UsageError, match="--profile: which one"):
        chosen_profile(None)


MACHINES: dict[str, dict[str, Any]] = {
    "1 core": {"cores": 1},
    "2 cores": {"cores": 2},
    "4 cores": {"cores": 4},
    "8 cores with SMT": {"cores": 8, "threads": 2},
    "64 cores on 2 nodes": {"cores": 64, "threads": 2, "nodes": 2, "nic_node": 1},
    "virtual machine": {"cores": 2, "virtual": "QEMU", "driver": "virtio_net"},
    "container": {"cores": 4, "container": "docker", "memory": GIB},
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", ["dev", "prod", "ull"])
def test_shipped_profiles_resolve_everywhere(tmp_path: Path, name: str, machine: str) -> None:
    facts = read_facts(make_machine(tmp_path, **MACHINES[machine]))
    profile = resolve(name, facts=facts)
    assert profile.description
    assert set(profile.facts.roles) == {*ROLES, HOT}
    assert all(profile.facts.roles.values())
    # Required is what the stack cannot do without, wherever it runs.
    assert {w.knob.split(".")[0] for w in profile.wishes if w.required} == {"redis"}
    skipped = {wish.knob for wish in profile.wishes if wish.skip}
    assert ("cpu.scaling_governor" in skipped) == (bool(facts.virtual) and name != "dev")
    assert ("boot.isolcpus" in skipped) == (
        name == "ull" and machine not in ("8 cores with SMT", "64 cores on 2 nodes")
    )


def test_dev_wants_nothing_of_the_host() -> None:
    kinds = {CATALOGUE[wish.knob].kind for wish in resolve("dev").wishes}
    assert kinds <= SERVE_KINDS - {"held"} | {"redis"}


def test_ull_is_prod_and_more() -> None:
    prod, ull = wishes(resolve("prod")), wishes(resolve("ull"))
    assert prod.keys() < ull.keys()
    assert [row.extends for row in list_profiles()] == [(), (), ("prod",)]


@pytest.mark.parametrize("name", ["dev", "prod", "ull"])
def test_shipped_profiles_configure_every_role_of_the_stack(name: str) -> None:
    wanted = wishes(resolve(name))
    for role in SERVER_ROLES.values():
        assert wanted[f"redis.maxmemory-policy@{role.name}"] == role.policy
        assert wanted[f"redis.appendonly@{role.name}"] == ("yes" if role.durable else "no")
    shares = [str(wanted[f"redis.maxmemory@{role}"]) for role in SERVER_ROLES]
    if name == "dev":
        assert shares == ["128mb", "32mb", "24mb"]
    else:
        assert sum(int(share.removesuffix("%")) for share in shares) <= 70


@pytest.mark.parametrize("name", ["dev", "prod", "ull"])
def test_no_shipped_wish_is_a_yaml_accident(name: str) -> None:
    for wish in resolve(name).wishes:
        assert parse_wanted(CATALOGUE[wish.knob], wish.value)
        assert not isinstance(wish.value, bool | float)


@settings(max_examples=40)
@given(
    st.dictionaries(
        st.sampled_from(["vm.swappiness", "vm.stat_interval", "net.core.somaxconn"]),
        st.tuples(st.integers(0, 9), st.integers(0, 9)),
    )
)
def test_any_two_files_merge_knob_by_knob(
    tmp_path_factory: pytest.TempPathFactory, knobs: dict[str, tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("p")
    put(folder, "a.yaml", "knobs: " + json.dumps({knob: first for knob, (first, _) in knobs.items()}))
    later = {knob: second for knob, (first, second) in knobs.items() if second > first}
    path = put(folder, "b.yaml", "extends: a.yaml\nknobs: " + json.dumps(later))
    assert wishes(resolve(path)) == {knob: max(pair) for knob, pair in knobs.items()}


# The command


def lines(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert run(["profiles", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    out = lines(capsys, "list")
    assert [line.split()[0] for line in out] == profile_names()
    assert "(extends prod)" in out[2]
    document = json.loads("\n".join(lines(capsys, "list", "--json")))
    assert document["profiles"][2]["name"] == "ull"


def test_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_machine(tmp_path, cores=2, virtual="QEMU")
    arguments = ("show", "prod", "--root", str(tmp_path), "--set", "vm.swappiness=7")
    text = "\n".join(lines(capsys, *arguments))
    assert "host: kernel 6.18.1, kvm, 2 CPUs, 16.0 GiB, may change the host" in text
    assert "left out: needs a bare-metal host, this is kvm" in text
    document = json.loads("\n".join(lines(capsys, *arguments, "--json")))
    knobs = {(knob["knob"], knob["place"]): knob for knob in document["knobs"]}
    assert knobs["vm.swappiness", ""] == {
        "knob": "vm.swappiness", "place": "", "value": "7", "required": False, "skip": "", "why": "",
        "origin": "--set",
    }  # fmt: skip
    assert knobs["redis.appendonly", "ledger"]["required"]
    assert knobs["redis.appendonly", "ledger"]["origin"].startswith("prod.yaml:")
    assert document["roles"]["engine"] == [1]


def test_diff(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_machine(tmp_path, cores=8)
    root = ("--root", str(tmp_path))
    assert lines(capsys, "diff", "prod", "prod", *root) == ["prod and prod say the same on this host"]
    out = lines(capsys, "diff", "prod", "prod", *root, "--set", "vm.swappiness=7")
    assert out == ["knobs:", "  vm.swappiness  <=10 → 7"]
    document = json.loads("\n".join(lines(capsys, "diff", "dev", "ull", *root, "--json")))
    changes = {(change["kind"], change["name"]): (change["a"], change["b"]) for change in document["changes"]}
    assert changes["settings", "batch_interval_ms"] == ("50", "10")
    assert changes["roles", "engine"] == ("0-7", format_cpus((1,)))
    assert changes["knobs", "vm.swappiness"] == (None, "<=1")


def test_errors_of_the_command_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = put(tmp_path, "x.yaml", "knobs: {vm.swapiness: 1}\n")
    for arguments, message in [
        (["show", "nope"], "tvops: profile: there is no profile 'nope'; choose one of dev, prod, ull, or"),
        (["show", path], f"tvops: {path}:1: vm.swapiness: there is no such knob; do you mean vm.swappiness"),
        (["show", "dev", "--root", "/does/not/exist"], "tvops: --root /does/not/exist: is not a directory"),
    ]:
        assert run(["profiles", *arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(message)
        assert captured.err.count("\n") == 1


def test_the_examples_of_the_page_work(tmp_path: Path) -> None:
    page = (resource("profiles").parent / "docs" / "profiles.md").read_text()
    examples = [block.partition("```")[0] for block in page.split("```yaml\n")[1:]]
    assert len(examples) >= 3
    for number, example in enumerate(examples):
        if "applies_to" in example:
            put(tmp_path / str(number), "x.yaml", example)
            assert len(load_profile_chain("prod", tmp_path / str(number))) == 2
            resolve("prod", overlays=tmp_path / str(number))
        else:
            assert resolve(put(tmp_path, f"{number}.yaml", example)).wishes
