"""The catalogue of knobs: whole, true to its schema, and checked by rules that name file, line, key and fix."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
import yaml
from redis import Redis

from tests.valkey import ValkeyServer
from tvops.engine.collector import WORKER_DEFAULTS
from tvops.engine.process_tuning import ATTRIBUTES
from tvops.engine.socket_tuning import OPTIONS
from tvops.errors import UsageError
from tvops.shipped import resource
from tvops.tuning import catalogue, catalogue_rules
from tvops.tuning.catalogue import dead_key, files_of, load_catalogue
from tvops.tuning.dead_keys import load_dead_keys
from tvops.tuning.kinds.ethtool import GROUPS
from tvops.tuning.model import Knob
from tvops.tuning.values import normalise

KNOBS = load_catalogue()

# Every setting that the research on low-latency tuning vetted, by its place there.
SOCKET = """
    tcp_nodelay quickack rcvbuf sndbuf tcp_user_timeout_ms keepalive_idle keepalive_interval keepalive_count
    tcp_notsent_lowat busy_poll_us prefer_busy_poll thin_linear_timeouts priority tos timestampns congestion
"""
NETWORK = """
    net.core.rmem_max net.core.wmem_max net.core.rmem_default net.ipv4.tcp_rmem net.ipv4.tcp_wmem net.ipv4.tcp_mem
    net.ipv4.udp_mem net.core.somaxconn net.ipv4.tcp_max_syn_backlog net.core.netdev_max_backlog
    net.core.netdev_budget net.core.netdev_budget_usecs net.core.busy_read net.core.busy_poll
    net.core.default_qdisc
    net.core.rps_sock_flow_entries net.ipv4.tcp_slow_start_after_idle net.ipv4.tcp_notsent_lowat
    net.ipv4.tcp_autocorking net.ipv4.tcp_fastopen net.ipv4.tcp_congestion_control net.ipv4.tcp_keepalive_time
    net.ipv4.tcp_keepalive_intvl net.ipv4.tcp_keepalive_probes net.ipv4.tcp_retries2
    net.ipv4.tcp_thin_linear_timeouts net.ipv4.tcp_rto_min_us net.ipv4.tcp_tw_reuse net.ipv4.ip_local_port_range
    net.ipv4.ip_local_reserved_ports net.ipv4.tcp_no_metrics_save net.ipv4.udp_rmem_min net.core.optmem_max
    net.unix.max_dgram_qlen net.netfilter.nf_conntrack_max
"""
INTERFACE = """
    coalesce.adaptive-rx coalesce.rx-usecs ring.rx ring.tx feature.gro feature.lro feature.tso feature.gso
    channels.combined feature.ntuple pause.rx pause.tx rps_cpus rps_flow_cnt xps_cpus napi_defer_hard_irqs
    gro_flush_timeout threaded
"""
CPU = """
    irq.smp_affinity irq.default_smp_affinity cpu.scaling_governor cpu.energy_performance_preference
    cpu.min_perf_pct
    cpu.boost cpu.no_turbo cpu.dma_latency cpu.pm_qos_resume_latency_us cpu.smt.control cpuset.partition
    workqueue.cpumask workqueue.writeback.cpumask kernel.timer_migration kernel.nmi_watchdog kernel.watchdog
    kernel.sched_rt_runtime_us kernel.sched_autogroup_enabled sched.base_slice_ns sched.migration_cost_ns
    sched.nr_migrate kernel.split_lock_mitigate clocksource kernel.numa_balancing block.scheduler
"""
BOOT = """
    isolcpus nohz_full rcu_nocbs rcu_nocb_poll irqaffinity skew_tick max_cstate intel_idle.max_cstate idle nosmt
    tsc nosoftlockup nowatchdog mitigations
"""
PROCESS = """
    affinity fifo_priority nice lock_memory timer_slack_ns nofile oom_score_adj numa_node thp_disable gc_threshold
    gc_freeze gc_interval_ms
"""
MEMORY = """
    vm.thp.enabled vm.thp.defrag vm.thp.khugepaged_defrag vm.ksm.run vm.swappiness vm.overcommit_memory
    vm.zone_reclaim_mode vm.stat_interval vm.compaction_proactiveness vm.compact_unevictable_allowed
    vm.min_free_kbytes vm.watermark_scale_factor vm.dirty_background_bytes vm.dirty_background_ratio vm.dirty_bytes
    vm.dirty_ratio vm.max_map_count vm.nr_hugepages fs.nr_open
"""
REDIS = """
    maxmemory maxmemory-policy appendonly appendfsync no-appendfsync-on-rewrite save io-threads io-threads-do-reads
    tcp-backlog tcp-keepalive timeout client-output-buffer-limit.pubsub maxmemory-clients latency-monitor-threshold
    slowlog-log-slower-than slowlog-max-len latency-tracking-info-percentiles hz dynamic-hz lazyfree-lazy-eviction
    lazyfree-lazy-expire lazyfree-lazy-server-del lazyfree-lazy-user-del replica-lazy-flush activedefrag
    stream-node-max-bytes stream-node-max-entries maxclients server_cpulist bio_cpulist bgsave_cpulist
    aof_rewrite_cpulist disable-thp unixsocket oom-score-adj
"""
DEMANDED = [
    *NETWORK.split(), *CPU.split(), *MEMORY.split(),
    *(f"socket.{name}" for name in SOCKET.split()), *(f"nic.{name}" for name in INTERFACE.split()),
    *(f"boot.{name}" for name in BOOT.split()), *(f"process.{name}" for name in PROCESS.split()),
    *(f"redis.{name}" for name in REDIS.split()),
]  # fmt: skip

GONE_IN_VALKEY = {"dynamic-hz", "io-threads-do-reads"}

SYSCTL = """\
knobs:
  net.core.rmem_max:
    kind: sysctl
    type: int
    unit: bytes
    why: room
    source: here
"""


def write(folder: Path, name: str, *parts: str) -> Path:
    (folder / name).write_text("".join(parts))
    return folder


def knob_text(**fields: object) -> str:
    """A file with one good knob, but for ``fields`` (None: left out)."""
    good = {"kind": "sysctl", "type": "int", "why": "room", "source": "here"}
    name = str(fields.pop("id", "net.core.rmem_max"))
    body = {key: value for key, value in (good | fields).items() if value is not None}
    return yaml.safe_dump({"knobs": {name: body}}, sort_keys=False)


# What ships


def test_every_vetted_setting_is_in_the_catalogue() -> None:
    assert [name for name in DEMANDED if name not in KNOBS] == []


def test_files_are_read_in_the_order_in_which_they_are_applied() -> None:
    files = files_of()
    assert tuple(files) == catalogue.FILES
    assert list(KNOBS) == [name for names in files.values() for name in names]
    order = list(KNOBS)
    assert order.index("nic.channels.combined") < order.index("irq.smp_affinity")
    assert order.index("cpuset.cpus") < order.index("cpuset.partition")


def test_every_file_begins_with_a_comment_on_what_it_holds() -> None:
    for path in resource("kernel-tuning").glob("*.yaml"):
        assert path.read_text().startswith("# "), path.name


SYSCTLS = [knob for knob in KNOBS.values() if knob.kind == "sysctl"]


@pytest.mark.parametrize("knob", SYSCTLS, ids=lambda knob: knob.id)
def test_a_sysctl_reads_as_its_type(knob: Knob) -> None:
    path = Path("/proc/sys") / knob.where.replace(".", "/")
    if not path.exists():
        pytest.skip(f"{knob.id} is not on this host")
    value = normalise(knob.type, path.read_text())
    fits = {"int": r"-?\d+", "ints": r"-?\d+( -?\d+)+", "word": r"[\w-]+", "text": r".*"}
    assert re.fullmatch(fits[knob.type], value)
    assert not knob.choices or value in knob.choices


FILES = [knob for knob in KNOBS.values() if knob.kind == "file"]


@pytest.mark.parametrize("knob", FILES, ids=lambda knob: knob.id)
def test_a_file_reads_as_its_type(knob: Knob) -> None:
    pattern = re.sub(r"\{\w+\}", "*", knob.where)
    texts = []
    for path in sorted(Path("/").glob(pattern[1:])):
        try:
            texts.append(path.read_text())
        except OSError:
            continue  # the device does not have it
    if not texts:
        pytest.skip(f"{knob.id} is not on this host")
    fits = {
        "int": r"-?\d+",
        "word": r"[\w/-]+",
        "choice": r"[\w+-]+",
        "cpulist": r"[\d,-]*",
        "cpumask": r"[\d,-]*",
    }
    for text in texts:
        assert re.fullmatch(fits[knob.type], normalise(knob.type, text))


def test_processes_and_sockets_have_what_the_catalogue_names() -> None:
    attributes = {knob.where for knob in KNOBS.values() if knob.kind == "process"}
    options = {knob.where for knob in KNOBS.values() if knob.kind == "socket"}
    assert attributes == {*ATTRIBUTES, *WORKER_DEFAULTS, "gc_interval"}
    assert options == set(OPTIONS)


def test_interfaces_have_what_the_catalogue_names() -> None:
    for knob in KNOBS.values():
        if knob.kind == "nic" and not knob.where.startswith("feature "):
            group, setting = knob.where.split(" ")
            assert setting in GROUPS[group].fields, knob.id
            assert (knob.type == "word") == (group == "pause" or setting.startswith("adaptive")), knob.id


def test_servers_know_the_keys_of_the_catalogue_and_show_them_in_its_types(tmp_path: Path) -> None:
    fits = {"int": r"-?\d+", "word": r"[\w%-]+", "cpulist": r"[\d,-]*", "text": r".*"}
    server = ValkeyServer(tmp_path / "server")
    server.start()
    try:
        with Redis(unix_socket_path=server.socket, decode_responses=True) as client:
            config = client.config_get("*")
    finally:
        server.stop()
    for knob in KNOBS.values():
        key = knob.where.split(" ")[0]
        if knob.kind != "redis" or key in GONE_IN_VALKEY:
            continue
        assert key in config, knob.id
        if knob.where == key:
            assert re.fullmatch(fits[knob.type], normalise(knob.type, config[key])), knob.id
            assert not knob.choices or config[key] in knob.choices, knob.id


def test_what_is_flipped_on_a_running_host_is_safe() -> None:
    live = [knob for knob in KNOBS.values() if knob.live]
    assert len(live) > 30
    assert {knob.risk for knob in live} == {"safe"}
    never = ("vm.nr_hugepages", "nic.ring.rx", "redis.maxmemory", "irq.smp_affinity", "vm.dirty_bytes")
    assert not any(KNOBS[name].live for name in never)


def test_what_may_lose_data_or_the_machine_says_so() -> None:
    dangerous = {"vm.nr_hugepages", "kernel.sched_rt_runtime_us", "boot.mitigations"}
    assert {name for name in dangerous if KNOBS[name].risk != "dangerous"} == set()
    # Of a server's memory only what loses nothing is written: the driver refuses the rest.
    disruptive = (
        "nic.ring.rx",
        "nic.channels.combined",
        "cpu.smt.control",
        "redis.maxmemory",
        "redis.maxmemory-policy",
    )
    assert {KNOBS[name].risk for name in disruptive} == {"disruptive"}


def test_the_lists_of_the_caller_do_not_change_the_catalogue() -> None:
    mine = load_catalogue()
    mine.clear()
    assert "net.core.rmem_max" in load_catalogue()


# Dead keys


@pytest.mark.parametrize(
    "key",
    [
        "net.ipv4.tcp_tw_recycle", "net.ipv4.tcp_low_latency", "net.ipv4.tcp_adv_win_scale",
        "kernel.sched_min_granularity_ns", "kernel.sched_latency_ns", "kernel.sched_wakeup_granularity_ns",
        "kernel.sched_migration_cost_ns", "kernel.sched_nr_migrate", "kernel.sched_child_runs_first",
        "vm.numa_zonelist_order", "vm.laptop_mode", "vm.ksm_run", "boot.kthread_cpus", "net.ipv4.tcp_user_timeout",
        "net/ipv4/tcp_tw_recycle",
        "vm.zone_reclaim_mode=1", "vm.zone_reclaim_mode=>=1", "boot.intel_idle.max_cstate=0",
        "net.ipv4.tcp_timestamps=0", "net.ipv4.tcp_sack=0", "net.ipv4.tcp_sack==0", "net.ipv4.tcp_sack= <=0",
        "net.ipv4.tcp_sack=00", "net.ipv4.tcp_sack=0|1", "net.ipv4.tcp_window_scaling=0",
        "net.ipv4.tcp_abort_on_overflow=1", "net.ipv4.tcp_syncookies=0",
    ],
)  # fmt: skip
def test_dead_keys_and_harmful_values_have_a_reason(key: str) -> None:
    reason = dead_key(key)
    assert reason
    assert len(reason) > 20


@pytest.mark.parametrize(
    "key",
    [
        "net.ipv4.tcp_sack=1", "net.ipv4.tcp_sack", "vm.zone_reclaim_mode=0", "vm.zone_reclaim_mode",
        "kernel.sched_rt_runtime_us", "boot.intel_idle.max_cstate=1", "boot.intel_idle.max_cstate", "", "=",
    ],
)  # fmt: skip
def test_what_is_not_dead(key: str) -> None:
    assert dead_key(key) is None


def test_no_knob_of_the_catalogue_is_dead() -> None:
    assert [name for name in KNOBS if dead_key(name)] == []


def test_every_dead_key_has_a_source() -> None:
    assert [dead.key for dead in load_dead_keys() if not (dead.reason and dead.source)] == []


# The linter


@pytest.mark.parametrize(
    ("fields", "line", "message"),
    [
        ({"tpye": "int"}, 7, "tpye is not a field of a knob; did you mean type?"),
        ({"id": None, "xyzzy": 1}, 7, "xyzzy is not a field of a knob; there are kind, where, type"),
        ({"why": None}, 2, "the field why is missing"),
        ({"type": None}, 2, "the field type is missing"),
        ({"kind": "sysctls"}, 3, "kind is 'sysctls', not one of sysctl, file, nic"),
        ({"kind": 5}, 3, "kind is 5: expected str, got int"),
        ({"type": "integer"}, 4, "type is 'integer', not one of int, ints, choice"),
        ({"risk": "low"}, 7, "risk is 'low', not one of safe, disruptive, dangerous"),
        ({"scope": "socket"}, 7, "scope is socket; a sysctl knob has host or netns"),
        ({"kernel_min": 6.1}, 7, "kernel_min is 6.1: expected str, got float; put it in quotes"),
        ({"kernel_min": "six"}, 7, "kernel_min is 'six', not a version such as '6.11'"),
        ({"kernel_max": "6"}, 7, "kernel_max is '6', not a version"),
        ({"kernel_min": "6.2", "kernel_max": "6.2"}, 8, "kernel_max has to be later than kernel_min"),
        ({"kernel_min": "6.11", "kernel_max": "6.2"}, 8, "kernel_max has to be later than kernel_min"),
        ({"unit": "MiB"}, 7, "unit is 'MiB', not one of bytes, kbytes"),
        ({"type": "word", "unit": "bytes"}, 7, "unit is for numbers, and the type is word"),
        ({"type": "word", "unlimited": 0}, 7, "unlimited is for numbers, and the type is word"),
        ({"choices": ["a"]}, 7, "choices are for the types choice and word, and the type is int"),
        ({"type": "word", "choices": ["a", "a"]}, 7, "choices name a value twice"),
        ({"type": "word", "choices": [True]}, 7, "choices is [True]: expected str, got bool; put it in quotes"),
        ({"type": "word", "choices": "a"}, 7, "choices is 'a': expected array, got str"),
        ({"root": "yes"}, 7, "root is 'yes': expected bool, got str"),
        ({"capability": "root"}, 7, "capability is 'root', not a name such as CAP_NET_ADMIN"),
        ({"capability": "CAP_NET_ADMIN", "root": False}, 7, "capability contradicts root: false"),
        ({"live": True, "risk": "disruptive"}, 7, "live needs risk: safe"),
        ({"live": True, "reboot": True}, 7, "live needs risk: safe"),
        ({"live": True, "restart": "the server"}, 7, "live needs risk: safe"),
        ({"why": ""}, 5, "why is empty"),
        ({"source": ""}, 6, "source is empty"),
        ({"why": "room."}, 5, "why is one clause: leave the full stop out"),
        ({"why": "a\nb"}, 5, "why has to be one line"),
        ({"truth": " a"}, 7, "truth has to be one line without blanks around it"),
        ({"id": "Net.core"}, 2, "id may have a-z"),
        ({"id": "net..core"}, 2, "id may have a-z"),
        ({"id": "swappiness"}, 2, "where is not a sysctl key such as net.core.rmem_max"),
        ({"where": "net.core.wmem_max"}, 7, "where of a sysctl is its id: leave it out"),
        ({"id": "net.ipv4.tcp_tw_recycle"}, 2, "where is a dead key: removed in Linux 4.12"),
        ({"id": "vm.ksm_run"}, 2, "where is a dead key: never existed; the switch is /sys/kernel/mm/ksm/run"),
        (
            {"id": "boot.x", "kind": "boot", "where": "kthread_cpus", "scope": "boot", "reboot": True},
            7,
            "a dead key",
        ),
        ({"kind": "file", "id": "a.b"}, 2, "the field where is missing"),
        ({"kind": "file", "id": "a.b", "where": "/etc/passwd"}, 7, "below /proc, /sys or /dev"),
        ({"kind": "file", "id": "a.b", "where": "sys/x"}, 7, "below /proc, /sys or /dev"),
        ({"kind": "file", "id": "a.b", "where": "/sys/../etc/passwd"}, 7, "below /proc, /sys or /dev"),
        ({"kind": "file", "id": "a.b", "where": "/sys/x/.."}, 7, "below /proc, /sys or /dev"),
        (
            {"kind": "file", "id": "a.b", "where": "/proc/sys/vm/swappiness"},
            7,
            "is a sysctl: kind sysctl, id vm.swappi",
        ),
        ({"kind": "file", "id": "a.b", "where": "/sys/{host}/x"}, 7, "where has {host}; there are {cpu}, {irq}"),
        (
            {"kind": "nic", "id": "nic.x.rx", "where": "x rx", "scope": "nic"},
            7,
            "not a parameter of one of coalesce",
        ),
        (
            {"kind": "nic", "id": "nic.ring", "where": "ring", "scope": "nic"},
            7,
            "not a parameter of one of coalesce",
        ),
        ({"kind": "nic", "id": "ring.rx", "where": "ring rx", "scope": "nic"}, 7, "belongs to the id nic.ring.rx"),
        ({"kind": "redis", "id": "redis.a", "where": "hz", "scope": "server"}, 7, "belongs to the id redis.hz"),
        (
            {"kind": "process", "id": "nice", "where": "nice", "scope": "process"},
            2,
            "id has to begin with process.",
        ),
        (
            {"kind": "socket", "id": "socket.a", "where": "a b", "scope": "socket"},
            7,
            "not the name of an attribute",
        ),
        ({"kind": "held", "id": "a.b", "where": "/sys/x", "scope": "process"}, 7, "a file below /dev"),
        (
            {"kind": "boot", "id": "isolcpus", "where": "isolcpus", "scope": "boot", "reboot": True},
            2,
            "begin with boot.",
        ),
        ({"kind": "boot", "id": "boot.a", "where": "a", "scope": "boot"}, 2, "reboot has to be true"),
        ({"coupled": ["net.core.nothing"]}, 7, "coupled names net.core.nothing, which no file defines"),
        ({"coupled": ["net.core.rmem_max"]}, 7, "coupled names the knob itself"),
    ],
)
def test_a_mistake_is_told_by_file_line_key_and_fix(
    tmp_path: Path, fields: dict[str, object], line: int, message: str
) -> None:
    if "id" in fields and fields["id"] is None:
        del fields["id"]
    folder = write(tmp_path, "mine.yaml", knob_text(**fields))
    with pytest.raises(UsageError) as caught:
        load_catalogue(folder)
    text = str(caught.value)
    assert text.startswith(f"{folder}/mine.yaml:{line}: {fields.get('id', 'net.core.rmem_max')}: ")
    assert message in text
    assert "\n" not in text


def test_the_knob_that_the_mistakes_are_made_in_is_a_good_one(tmp_path: Path) -> None:
    assert list(load_catalogue(write(tmp_path, "mine.yaml", knob_text()))) == ["net.core.rmem_max"]
    (tmp_path / "more").mkdir()
    more = write(
        tmp_path / "more", "mine.yaml", SYSCTL, "  vm.swappiness: {kind: sysctl, type: int, why: w, source: s}\n"
    )
    assert list(load_catalogue(more)) == ["net.core.rmem_max", "vm.swappiness"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.yaml:1: a catalogue file is a mapping 'knobs:'"),
        ("- a\n", "mine.yaml:1: a catalogue file is a mapping 'knobs:'"),
        ("\nknobs: 5\n", "mine.yaml:2: a catalogue file is a mapping 'knobs:'"),
        ("knobs: {}\nextra: 1\n", "mine.yaml:2: extra is unknown; a catalogue file has 'knobs:' only"),
        ("knobs:\n  a.b: 5\n", "mine.yaml:2: a.b has to be a mapping of fields"),
        (
            SYSCTL + SYSCTL.partition("knobs:\n")[2],
            "mine.yaml:8: knobs.net.core.rmem_max stands twice, first on line 2",
        ),
        ("knobs: [\n", "mine.yaml:2: "),
    ],
)
def test_a_file_that_is_no_catalogue(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_catalogue(write(tmp_path, "mine.yaml", text))
    assert str(caught.value).startswith(f"{tmp_path}/{message}")


def test_an_id_in_two_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "net.yaml", SYSCTL)
    write(tmp_path, "vm.yaml", SYSCTL)
    with pytest.raises(UsageError) as caught:
        load_catalogue(tmp_path)
    first = f"net.core.rmem_max is defined twice, first at {tmp_path}/net.yaml:2"
    assert str(caught.value) == f"{tmp_path}/vm.yaml:2: {first}"


def test_a_coupling_has_to_be_mutual(tmp_path: Path) -> None:
    other = "  vm.swappiness: {kind: sysctl, type: int, why: w, source: s, coupled: [net.core.rmem_max]}\n"
    with pytest.raises(
        UsageError, match=r"mine.yaml:8: vm.swappiness: coupled names net.core.rmem_max, which does not"
    ):
        load_catalogue(write(tmp_path, "mine.yaml", SYSCTL, other))


def test_a_folder_without_a_catalogue(tmp_path: Path) -> None:
    write(tmp_path, "dead.yaml", "dead: []\n")
    with pytest.raises(UsageError, match="there is no catalogue"):
        load_catalogue(tmp_path)


def test_the_rules_know_every_kind_and_scope() -> None:
    hints = msgspec.inspect.type_info(Knob)
    assert isinstance(hints, msgspec.inspect.StructType)
    kinds = next(field.type for field in hints.fields if field.name == "kind")
    assert isinstance(kinds, msgspec.inspect.LiteralType)
    assert set(kinds.values) == set(catalogue_rules.SCOPES)
