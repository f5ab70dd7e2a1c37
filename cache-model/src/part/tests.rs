//! Tests of part files: the built-in ones load, wrong ones are named to the column, numbering, integer times.

use super::*;

const GENOA: &str = include_str!("../../parts/genoa.toml");

fn broken(from: &str, to: &str) -> PartError {
    assert!(GENOA.contains(from), "the test's pattern is not in the file: {from}");
    Part::from_toml("x.toml", &GENOA.replacen(from, to, 1)).expect_err("must be refused")
}

#[test]
fn builtin_parts_load_and_carry_their_names() {
    for name in Part::builtin_names() {
        let part = Part::builtin(name).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(part.name, name);
        for level in [Level::Low, Level::Typical, Level::High] {
            let t = part.timing(level);
            assert!(
                t.l1_hit < t.l2_hit && t.l2_hit < t.l3_hit && t.l3_hit < t.dram_local,
                "{name} {level:?}"
            );
        }
    }
    assert!(Part::builtin("itanium").is_err());
}

#[test]
fn topologies_are_the_published_ones() {
    let count = |name: &str| {
        let t = *Part::builtin(name).expect("built in").topology();
        (t.sockets(), t.ccxs(), t.cores(), t.pcpus())
    };
    assert_eq!(count("genoa"), (2, 24, 192, 384));
    assert_eq!(count("rome"), (2, 32, 128, 256));
    assert_eq!(count("bars-16"), (1, 1, 16, 16));
}

#[test]
fn smt_siblings_come_last() {
    let t = *Part::builtin("genoa").expect("built in").topology();
    assert_eq!(t.core_of(PcpuId(0)), t.core_of(PcpuId(192)));
    assert_eq!(t.sibling_of(PcpuId(5)), Some(PcpuId(197)));
    assert_eq!(t.ccx_of(CoreId(8)), CcxId(1));
    assert_eq!(t.socket_of(CcxId(12)), 1);
}

#[test]
fn fewer_pcpus_lose_siblings_first() {
    let genoa = Part::builtin("genoa").expect("built in");
    let small = *genoa.with_pcpus(20).expect("fits").topology();
    assert_eq!((small.sockets(), small.ccxs(), small.cores(), small.pcpus()), (1, 3, 20, 20));
    assert_eq!(small.cores_of(CcxId(2)).count(), 4);
    let most = *genoa.with_pcpus(200).expect("fits").topology();
    assert_eq!((most.cores(), most.pcpus()), (192, 200));
    assert_eq!(most.sibling_of(PcpuId(9)), None);
    assert_eq!(*genoa.with_sockets(1).expect("fits").topology(), {
        let t = *genoa.topology();
        Topology { sockets: 1, cores: 96, pcpus: 192, ..t }
    });
    let none = genoa.with_pcpus(0).unwrap_err().to_string();
    assert_eq!(none, "part `genoa` cannot run 0 pCPUs; expected 1 to 384");
    assert!(genoa.with_pcpus(385).is_err());
    assert!(genoa.with_sockets(3).is_err());
}

#[test]
fn times_are_integers_of_the_core_clock() {
    let genoa = Part::builtin("genoa").expect("built in");
    let t = genoa.timing(Level::Typical);
    assert_eq!(t.clock_mhz, 3500);
    assert_eq!((t.l1_hit, t.l2_hit, t.l3_hit), (4, 14, 50));
    assert_eq!((t.same_ccx, t.dram_local, t.dram_remote), (84, 420, 770));
    // 64 B at 26 GB/s are 2.4615 ns, at 3.5 GHz 8.615 cycles, rounded up
    assert_eq!(t.write_back_core_milli, 8616);
    assert_eq!((t.wbinvd_walk_ps, t.wbinvd_walk_milli), (250, 875));
    assert_eq!((t.vm_run_exit, t.vm_run_exit_sev_es), (1370, 3425));
    assert_eq!((t.cycles_of_ns(1000), t.ns_of_cycles(3500)), (3500, 1000));

    let levels = Levels { all: Level::Typical, exceptions: [(Param::L3Hit, Level::High)].into() };
    let one = genoa.timing(levels);
    assert_eq!((one.l3_hit, one.l2_hit), (75, 14));
    assert_eq!(Param::from_name("latency.l3_hit"), Some(Param::L3Hit));
}

#[test]
fn a_number_without_unit_is_refused_at_its_place() {
    let e = broken(
        "l2_hit = { low = 12, typical = 14, high = 17, unit = \"cycles\",",
        "l2_hit = { low = 12, typical = 14, high = 17,",
    );
    let line = GENOA.lines().position(|l| l.starts_with("l2_hit")).expect("there") + 1;
    assert_eq!((e.file.as_str(), e.line, e.column), ("x.toml", line, 10));
    assert_eq!(e.message, "`latency.l2_hit.unit` is missing");
    assert!(e.help.contains("\"cycles\", \"ps\", \"ns\""), "{e}");
    let e = broken("sev_extra = {", "sev_extra = 5 #");
    assert_eq!(e.message, "`latency.sev_extra` is a number without unit and source");
}

#[test]
fn the_wrong_kind_of_unit_is_refused() {
    let e = broken("typical = 28.8, high = 36, unit = \"GB/s\"", "typical = 28.8, high = 36, unit = \"ns\"");
    assert_eq!(e.message, "`write_back.ccd.unit` is \"ns\"");
    assert_eq!(e.help, "expected a bandwidth: \"GB/s\"");
    assert!(e.column > 40);
}

#[test]
fn unknown_keys_are_refused_and_the_known_ones_listed() {
    let e = broken("ways = 16, repl", "wayz = 4, ways = 16, repl");
    assert_eq!(e.message, "`caches.l3.wayz` is not a key of a part file");
    assert_eq!(e.help, "known here: size, ways, replacement, kind");
    assert_eq!(
        broken("[features]", "[colours]\nred = 1\n[features]").message,
        "`colours` is not a key of a part file"
    );
}

#[test]
fn absurd_values_are_refused() {
    let of = |from: &str, to: &str| broken(from, to).message;
    assert_eq!(of("sockets = 2", "sockets = 0"), "`topology.sockets` is 0");
    assert_eq!(of("sockets = 2", "sockets = \"two\""), "`topology.sockets` is a string");
    assert_eq!(of("ccx_per_socket = 12", "ccx_per_socket = 32"), "`topology` makes 64 CCXs");
    assert_eq!(of("\"1 MiB\"", "\"1 Mib\""), "`caches.l2.size` is \"1 Mib\"");
    assert!(of("\"1 MiB\"", "\"0 MiB\"").starts_with("`caches.l2.size` is \"0 MiB\", which 8 ways"));
    assert!(of("\"1 MiB\"", "\"3 MiB\"").starts_with("`caches.l2.size`"));
    assert_eq!(of("\"1 MiB\"", "\"16 KiB\""), "`caches.l2` cannot include `caches.l1d`");
    assert_eq!(of("\"victim\"", "\"inclusive\""), "`caches.l3.kind` is \"inclusive\" on a part of 24 CCXs");
    assert_eq!(of("low = 34, typical = 50", "low = 50, typical = 34"), "`latency.l3_hit` is out of order");
    assert_eq!(of("typical = 28.8", "typical = -28.8"), "`write_back.ccd.typical` is -28.8");
    assert_eq!(of("typical = 28.8", "typical = 28.8001"), "`write_back.ccd.typical` is 28.8001");
    assert_eq!(of("low = 4, typical = 10", "low = 0, typical = 10"), "`core.outstanding_misses` is zero");
    assert_eq!(of("high = 40, unit", "high = 40000, unit"), "`core.outstanding_misses.high` is 40000");
    assert_eq!(of("line_bytes = 64", "line_bytes = 128"), "`caches.line_bytes` is 128");
    assert!(of("[topology]", "[topology").starts_with("not TOML: "));
    assert!(of("wbnoinvd = true", "").starts_with("`features.wbnoinvd` is missing"));
}
