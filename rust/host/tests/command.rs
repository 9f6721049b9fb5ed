// SPDX-License-Identifier: GPL-2.0

//! The grammar of the debugfs files: tables of what is taken and what is refused, and random text.

#![cfg(not(loom))]

use pcp_buddy::{
    command::{parse_run, DrainCommand, PolicyName, Reason, ZoneCommand, ZoneSpec},
    mm::types::{Context, CpuIdx, Migratetype, Order},
    workload::{
        cpus::CpuSet,
        spec::{Amount, FreeOrder, How, Mobility, OrderRange, Spec, Touch, Workload},
    },
};
use proptest::prelude::*;

fn cpus(list: &[u32]) -> CpuSet {
    let mut set = CpuSet::EMPTY;
    assert!(list.iter().all(|cpu| set.insert(CpuIdx(*cpu))));
    set
}

fn zone_spec(line: &str) -> ZoneSpec {
    match ZoneCommand::parse(line) {
        Ok(ZoneCommand::Add { spec, .. }) => spec,
        other => panic!("{line}: {other:?}"),
    }
}

fn run_spec(line: &str) -> Spec {
    parse_run(line).unwrap_or_else(|err| panic!("{line}: {err}"))
}

/// Each line is refused with these words.
fn assert_refused<T: core::fmt::Debug>(
    parse: impl Fn(&'static str) -> Result<T, String>,
    table: &[(&'static str, &str)],
) {
    for (line, words) in table {
        let refusal = parse(line).expect_err(line);
        assert_eq!(&refusal, words, "for '{line}'");
    }
}

#[test]
fn zone_by_default() {
    let spec = zone_spec("add z policy=owner\n");
    assert_eq!(
        spec,
        ZoneSpec {
            policy: PolicyName::Owner,
            size: 1 << 30,
            ranges: 1,
            node: None,
            block_order: 9,
            batch: None,
            high: None,
            cma_percent: 0,
        }
    );
    assert_eq!(spec.pages(), 262_144);
}

#[test]
fn zone_with_everything() {
    let spec = zone_spec(
        "  add\tA-b_c.9   policy=pcp size=512M ranges=4 node=1 block_order=8 spb=off batch=63 \
         high=512 cma=25  \n",
    );
    assert_eq!(
        spec,
        ZoneSpec {
            policy: PolicyName::Pcp,
            size: 512 << 20,
            ranges: 4,
            node: Some(1),
            block_order: 8,
            batch: Some(63),
            high: Some(512),
            cma_percent: 25,
        }
    );
    assert_eq!((spec.pages(), spec.range_pages()), (131_072, 32_768));
}

#[test]
fn sizes_have_suffixes() {
    for (text, size) in [
        ("4194304", 4 << 20),
        ("4096K", 4 << 20),
        ("4M", 4 << 20),
        ("8192G", 8 << 40),
    ] {
        assert_eq!(zone_spec(&format!("add z size={text}")).size, size);
    }
}

#[test]
fn policies_by_name() {
    for policy in PolicyName::ALL {
        let line = format!("add z policy={}", policy.name());
        assert_eq!(zone_spec(&line).policy, *policy);
    }
}

#[test]
fn zone_removal() {
    let Ok(ZoneCommand::Del { name }) = ZoneCommand::parse("del old.one\n") else {
        panic!("no removal");
    };
    assert_eq!(name.as_str(), "old.one");
}

#[test]
fn zone_names() {
    let longest = "x".repeat(32);
    for name in ["z", "a.b", "...", "Zones", "-", "0", longest.as_str()] {
        let line = format!("add {name}");
        assert!(ZoneCommand::parse(&line).is_ok(), "{name}");
    }
    let too_long = "x".repeat(33);
    for name in [
        ".",
        "..",
        "zones",
        "last_error",
        "a/b",
        "a=b",
        "é",
        "a\u{7f}",
        "x\ny",
        &too_long,
    ] {
        for verb in ["add", "del"] {
            let line = format!("{verb} {name}");
            let err = ZoneCommand::parse(&line).expect_err(name);
            assert!(matches!(err.reason, Reason::Name(_)), "{line}: {err}");
        }
    }
}

#[test]
fn bad_zone_commands_are_refused_in_words() {
    let parse = |line| {
        ZoneCommand::parse(line)
            .map(drop)
            .map_err(|err| err.to_string())
    };
    assert_refused(
        parse,
        &[
            ("", "no command given"),
            ("\n", "no command given"),
            (" \t ", "no command given"),
            ("make z", "unknown command 'make'"),
            ("add", "'name' is missing"),
            ("del", "'name' is missing"),
            ("del z now", "'now' is one word too many"),
            ("del z\ndel y", "name 'z?del': only A-Z a-z 0-9 _ . -"),
            ("add z size", "'size' is no key=value"),
            ("add z colour=red", "unknown key 'colour'"),
            ("add z =1", "unknown key ''"),
            ("add z Size=1G", "unknown key 'Size'"),
            ("add z size=2M size=2M", "key 'size' given twice"),
            ("add z size=", "size '': no number"),
            ("add z size=1T", "size '1T': no number"),
            ("add z size=1MM", "size '1MM': no number"),
            ("add z size=M", "size 'M': no number"),
            ("add z size=-1", "size '-1': no number"),
            ("add z size=+1G", "size '+1G': no number"),
            ("add z size=1.5G", "size '1.5G': no number"),
            ("add z size=0", "size '0': at least 2097152"),
            ("add z size=1M", "size '1M': at least 2097152"),
            ("add z size=2M ranges=2", "size '2M': at least 4194304"),
            ("add z size=3M", "size '3M': no multiple of 2097152"),
            (
                "add z size=6M ranges=2",
                "size '6M': no multiple of 4194304",
            ),
            (
                "add z ranges=3",
                "ranges '3': do not divide the default size of 1G into whole pageblocks",
            ),
            ("add z size=8193G", "size '8193G': at most 8796093022208"),
            (
                "add z size=99999999999999999999",
                "size '99999999999999999999': at most 8796093022208",
            ),
            (
                "add z size=18446744073709551615G",
                "size '18446744073709551615G': at most 8796093022208",
            ),
            ("add z ranges=0", "ranges '0': at least 1"),
            ("add z ranges=65", "ranges '65': at most 64"),
            ("add z block_order=5", "block_order '5': at least 6"),
            ("add z block_order=11", "block_order '11': at most 10"),
            ("add z node=1024", "node '1024': at most 1023"),
            ("add z batch=0", "batch '0': at least 1"),
            ("add z batch=64 high=63", "high '63': at least 64"),
            ("add z cma=101", "cma '101': at most 100"),
            ("add z spb=on", "spb 'on': not offered by this version"),
            ("add z spb=maybe", "spb 'maybe': none of off, on"),
        ],
    );
    let err = ZoneCommand::parse("add z policy=best").unwrap_err();
    let words = err.to_string();
    assert!(
        words.starts_with("policy 'best': none of stock, pcp, owner"),
        "{words}"
    );
}

#[test]
fn words_are_repeated_readably() {
    let long = format!("add z {}=1", "k".repeat(1000));
    let words = ZoneCommand::parse(&long).unwrap_err().to_string();
    assert_eq!(words, format!("unknown key '{}'...", "k".repeat(64)));
    let words = ZoneCommand::parse("\u{1b}[31m").unwrap_err().to_string();
    assert_eq!(words, "unknown command '?[31m'");
}

#[test]
fn run_by_default() {
    let spec = run_spec("workload=pair cpus=0\n");
    assert_eq!(
        spec,
        Spec {
            workload: Workload::Pair,
            cpus: cpus(&[0]),
            free_cpus: CpuSet::EMPTY,
            order: OrderRange::one(Order::ZERO),
            mobility: Mobility::One(Migratetype::Movable),
            amount: Amount::Ops(1_000_000),
            pages: None,
            seed: 1,
            touch: Touch::None,
            verify: false,
            context: Context::Task,
            repeat: 1,
            free: FreeOrder::Lifo,
            how: How::Single,
            lock_times: false,
            latency: false,
            vain: None,
        }
    );
    assert_eq!(run_spec("workload=bulk cpus=0").amount, Amount::Round);
    let contig = run_spec("workload=contig cpus=0");
    assert_eq!(
        (contig.order, contig.how),
        (OrderRange::one(Order::new(9)), How::Range)
    );
    let stress = run_spec("workload=stress cpus=0");
    assert!(stress.verify && stress.mobility == Mobility::Mixed);
    assert!(!run_spec("workload=stress cpus=0 verify=0").verify);
    let vain = run_spec("workload=stress cpus=0 vain=18").vain;
    assert_eq!(vain, Some(Order::new(18)));
}

#[test]
fn run_with_everything() {
    let spec = run_spec(
        "repeat=5 touch=all verify=1 context=hardirq seed=18446744073709551615 pages=4k mt=mixed \
         order=1-9 free_cpus=7,9-10 cpus=0-3 ops=2m workload=purge latency=1 lock_times=1",
    );
    assert_eq!(
        spec,
        Spec {
            workload: Workload::Purge,
            cpus: cpus(&[0, 1, 2, 3]),
            free_cpus: cpus(&[7, 9, 10]),
            order: OrderRange {
                lo: Order::new(1),
                hi: Order::new(9)
            },
            mobility: Mobility::Mixed,
            amount: Amount::Ops(2_000_000),
            pages: Some(4000),
            seed: u64::MAX,
            touch: Touch::All,
            verify: true,
            context: Context::Hardirq,
            repeat: 5,
            free: FreeOrder::Lifo,
            how: How::Single,
            lock_times: true,
            latency: true,
            vain: None,
        }
    );
    let spec = run_spec("workload=exit cpus=1 ms=250 free=shuffled mt=reclaimable order=10");
    assert_eq!(spec.amount, Amount::Ms(250));
    assert_eq!(spec.free, FreeOrder::Shuffled);
    assert_eq!(spec.mobility, Mobility::One(Migratetype::Reclaimable));
    assert_eq!(spec.order, OrderRange::one(Order::new(10)));
}

#[test]
fn who_allocates_and_who_frees() {
    for (line, allocating, freeing) in [
        ("workload=bulk cpus=1-2", "1-2", "1-2"),
        ("workload=purge cpus=1-3", "1-3", "1"),
        ("workload=purge cpus=1-3 free_cpus=0,3", "1-3", "0,3"),
        ("workload=fanout cpus=1-3", "1", "2-3"),
        ("workload=fanout cpus=1", "1", "1"),
        ("workload=fanout cpus=1-2 free_cpus=4", "1", "2,4"),
        ("workload=fanout cpus=1 free_cpus=1-2", "1", "1-2"),
    ] {
        let spec = run_spec(line);
        assert_eq!(spec.alloc_cpus().to_string(), allocating, "{line}");
        assert_eq!(spec.freeing_cpus().to_string(), freeing, "{line}");
    }
}

#[test]
fn bad_runs_are_refused_in_words() {
    let parse = |line| parse_run(line).map(drop).map_err(|err| err.to_string());
    assert_refused(
        parse,
        &[
            ("", "'workload' is missing"),
            ("cpus=0", "'workload' is missing"),
            ("workload=pair", "'cpus' is missing"),
            ("workload=pair cpuz=0", "unknown key 'cpuz'"),
            ("pair cpus=0", "'pair' is no key=value"),
            ("workload=pair cpus=0 cpus=1", "key 'cpus' given twice"),
            (
                "workload=peer cpus=0",
                "workload 'peer': none of pair, bulk, rand, purge, fanout, exit, hog, frag, contig, stress",
            ),
            (
                "workload=replay cpus=0",
                "workload 'replay': not offered by this version",
            ),
            ("workload=pair cpus=", "cpus '': no CPU list such as 0-3,8"),
            (
                "workload=pair cpus=1-",
                "cpus '1-': no CPU list such as 0-3,8",
            ),
            (
                "workload=pair cpus=3-1",
                "cpus '3-1': no CPU list such as 0-3,8",
            ),
            (
                "workload=pair cpus=0,,1",
                "cpus '0,,1': no CPU list such as 0-3,8",
            ),
            (
                "workload=pair cpus=0-7:2/4",
                "cpus '0-7:2/4': no CPU list such as 0-3,8",
            ),
            (
                "workload=pair cpus=all",
                "cpus 'all': no CPU list such as 0-3,8",
            ),
            (
                "workload=pair cpus=1024",
                "cpus '1024': CPU numbers end at 1023",
            ),
            (
                "workload=pair cpus=0-99999999999",
                "cpus '0-99999999999': CPU numbers end at 1023",
            ),
            ("workload=pair cpus=0 order=19", "order '19': at most 18"),
            ("workload=pair cpus=0 order=2-", "order '2-': no number"),
            (
                "workload=pair cpus=0 order=0-22",
                "order '0-22': at most 18",
            ),
            (
                "workload=pair cpus=0 order=3-2",
                "order '3-2': the smaller order comes first",
            ),
            (
                "workload=pair cpus=0 mt=cma",
                "mt 'cma': none of movable, unmovable, reclaimable, mixed",
            ),
            ("workload=pair cpus=0 ops=0", "ops '0': at least 1"),
            ("workload=pair cpus=0 ops=1K", "ops '1K': no number"),
            ("workload=pair cpus=0 ops=1kk", "ops '1kk': no number"),
            (
                "workload=pair cpus=0 ops=1 ms=1",
                "ms '1': not together with ops",
            ),
            (
                "workload=pair cpus=0 ms=3600001",
                "ms '3600001': at most 3600000",
            ),
            ("workload=pair cpus=0 verify=2", "verify '2': at most 1"),
            ("workload=pair cpus=0 verify=yes", "verify 'yes': no number"),
            ("workload=pair cpus=0 repeat=0", "repeat '0': at least 1"),
            (
                "workload=pair cpus=0 repeat=1001",
                "repeat '1001': at most 1000",
            ),
            ("workload=pair cpus=0 seed=-1", "seed '-1': no number"),
            (
                "workload=pair cpus=0 touch=some",
                "touch 'some': none of none, first, all",
            ),
            (
                "workload=bulk cpus=0 free=random",
                "free 'random': none of lifo, fifo, shuffled",
            ),
            (
                "workload=pair cpus=0 context=nmi",
                "context 'nmi': none of task, softirq, hardirq",
            ),
            (
                "workload=bulk cpus=0 free_cpus=1",
                "free_cpus '1': only with workload=purge or fanout",
            ),
            (
                "workload=hog cpus=0 ops=5",
                "ops '5': not with workload=hog, which takes what there is",
            ),
            (
                "workload=pair cpus=0 pages=5",
                "pages '5': not with workload=pair, hog or frag, which have no working set",
            ),
            (
                "workload=purge cpus=0 free=lifo",
                "free 'lifo': only with workload=bulk, exit, hog or contig",
            ),
            (
                "workload=pair cpus=0 how=array",
                "how 'array': only with workload=bulk, purge, fanout, exit or contig",
            ),
            (
                "workload=bulk cpus=0 how=range",
                "how 'range': only with workload=contig",
            ),
            (
                "workload=bulk cpus=0 how=array order=0-1",
                "how 'array': arrays are of single pages: order=0",
            ),
            (
                "workload=contig cpus=0 how=all",
                "how 'all': none of single, array, range",
            ),
            ("workload=bulk cpus=0 pages=0", "pages '0': at least 1"),
            (
                "workload=bulk cpus=0 pages=4295m",
                "pages '4295m': at most 4294967295",
            ),
        ],
    );
}

#[test]
fn drains() {
    let parse = |line| DrainCommand::parse(line).map_err(|err| err.to_string());
    assert_eq!(parse("all\n"), Ok(DrainCommand::All));
    assert_eq!(parse(" 0-1,3 "), Ok(DrainCommand::Cpus(cpus(&[0, 1, 3]))));
    assert_refused(
        parse,
        &[
            ("", "no command given"),
            ("al", "cpus 'al': no CPU list such as 0-3,8"),
            ("all 1", "'1' is one word too many"),
            ("0 1", "'1' is one word too many"),
            ("1024", "cpus '1024': CPU numbers end at 1023"),
        ],
    );
}

#[test]
fn cpu_sets_are_sets() {
    let mut set = cpus(&[0, 63, 64, 1023]);
    assert_eq!(set.to_string(), "0,63-64,1023");
    assert_eq!(
        (set.len(), set.first(), set.last()),
        (4, Some(CpuIdx(0)), Some(CpuIdx(1023)))
    );
    assert!(set.contains(CpuIdx(64)) && !set.contains(CpuIdx(65)));
    assert!(!set.contains(CpuIdx(1024)) && !set.insert(CpuIdx(1024)));
    set.remove(CpuIdx(0));
    set.remove(CpuIdx(5000));
    assert!(set.iter().eq([63, 64, 1023].map(CpuIdx)));
    assert_eq!(set.union(&cpus(&[1])), cpus(&[1, 63, 64, 1023]));
    let empty = CpuSet::EMPTY;
    assert!(empty.is_empty() && !set.is_empty());
    assert_eq!((empty.first(), empty.last(), empty.len()), (None, None, 0));
    assert_eq!(empty.to_string(), "");
}

/// Text in the neighbourhood of commands: words that mean something, in senseless order.
fn near_command() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("add ".to_string()),
        Just("del ".to_string()),
        Just("all".to_string()),
        Just("=".to_string()),
        "(policy|size|ranges|node|block_order|spb|batch|high|cma|workload|cpus|free_cpus|order|mt|\
         ops|ms|pages|seed|touch|verify|context|repeat|free|vain)=",
        "(stock|pcp|owner|on|off|pair|bulk|purge|hog|stress|mixed|lifo|none|task) ",
        "[0-9]{1,21}[KMGkm,-]? ?",
        "[ \t\n]",
        "\\PC{0,3}",
    ];
    prop::collection::vec(word, 0..12).prop_map(|words| words.concat())
}

fn cpu_set() -> impl Strategy<Value = CpuSet> {
    prop::collection::btree_set(0..1024u32, 1..20).prop_map(|set| {
        let list: Vec<u32> = set.into_iter().collect();
        cpus(&list)
    })
}

fn any_spec() -> impl Strategy<Value = Spec> {
    let what = (
        prop::sample::select(Workload::ALL),
        cpu_set(),
        prop::option::of(cpu_set()),
        (0..=10u8, 0..=10u8),
        prop::sample::select(vec![
            Mobility::Mixed,
            Mobility::One(Migratetype::Movable),
            Mobility::One(Migratetype::Unmovable),
            Mobility::One(Migratetype::Reclaimable),
        ]),
    );
    let how = (
        prop_oneof![
            Just(None),
            (1..=1_000_000_000_000u64).prop_map(|n| Some(Amount::Ops(n))),
            (1..=3_600_000u64).prop_map(|n| Some(Amount::Ms(n))),
        ],
        prop::option::of(1..=u64::from(u32::MAX)),
        any::<u64>(),
        prop::sample::select(Touch::ALL),
        any::<[bool; 3]>(),
        1..=1000u32,
        prop::sample::select(FreeOrder::ALL),
        prop::option::of(1..=18u8),
    );
    (what, how).prop_map(|(what, how)| {
        let (workload, cpus, free_cpus, (a, b), mobility) = what;
        let (amount, pages, seed, touch, [verify, lock_times, latency], repeat, free, vain) = how;
        let default = Spec::new(workload, cpus);
        let amount = match amount {
            Some(Amount::Ops(_)) if workload == Workload::Hog => default.amount,
            Some(Amount::Ms(_)) if workload == Workload::Frag => default.amount,
            Some(amount) => amount,
            None => default.amount,
        };
        Spec {
            free_cpus: free_cpus
                .filter(|_| workload.has_free_cpus())
                .unwrap_or(CpuSet::EMPTY),
            order: OrderRange {
                lo: Order::new(a.min(b)),
                hi: Order::new(a.max(b)),
            },
            mobility,
            amount,
            pages: pages.filter(|_| workload.has_working_set()),
            seed,
            touch,
            verify,
            repeat,
            lock_times,
            latency,
            vain: vain
                .filter(|_| workload == Workload::Stress)
                .map(Order::new),
            free: if workload.has_phases() {
                free
            } else {
                default.free
            },
            ..default
        }
    })
}

fn any_zone() -> impl Strategy<Value = (String, ZoneSpec)> {
    let watermarks = prop::option::of(1..=1000u32);
    (
        "[A-Za-z0-9_-]{1,32}",
        prop::sample::select(PolicyName::ALL),
        (1..=64usize, 6..=10u8, 1..=1000u64),
        prop::option::of(0..=1023u32),
        (watermarks, prop::option::of(1000..=100_000u32)),
        0..=100u8,
    )
        .prop_filter("reserved", |(name, ..)| {
            name != "zones" && name != "last_error"
        })
        .prop_map(
            |(name, policy, (ranges, block_order, blocks), node, marks, cma)| {
                let spec = ZoneSpec {
                    policy,
                    size: blocks * ranges as u64 * (4096 << block_order),
                    ranges,
                    node,
                    block_order,
                    batch: marks.0,
                    high: marks.1,
                    cma_percent: cma,
                };
                (name, spec)
            },
        )
}

proptest! {
    #[test]
    fn no_text_panics(text in prop_oneof![near_command(), "\\PC{0,80}"]) {
        if let Err(err) = ZoneCommand::parse(&text) {
            prop_assert!(!err.to_string().is_empty());
        }
        if let Err(err) = parse_run(&text) {
            prop_assert!(!err.to_string().is_empty());
        }
        if let Err(err) = DrainCommand::parse(&text) {
            prop_assert!(!err.to_string().is_empty());
        }
    }

    /// What was understood of some text is what its own words give.
    #[test]
    fn what_is_understood_can_be_said_again(text in near_command()) {
        if let Ok(command) = ZoneCommand::parse(&text) {
            let line = command.to_string();
            prop_assert_eq!(ZoneCommand::parse(&line), Ok(command));
        }
        if let Ok(command) = DrainCommand::parse(&text) {
            let line = command.to_string();
            prop_assert_eq!(DrainCommand::parse(&line), Ok(command));
        }
    }

    #[test]
    fn runs_round_trip(spec in any_spec()) {
        let line = spec.to_string();
        prop_assert_eq!(parse_run(&line), Ok(spec), "{}", line);
    }

    #[test]
    fn zones_round_trip((name, spec) in any_zone()) {
        let line = format!("add {name} {spec}\n");
        let Ok(ZoneCommand::Add { name: parsed, spec: again }) = ZoneCommand::parse(&line) else {
            return Err(TestCaseError::fail(line));
        };
        prop_assert_eq!(parsed.as_str(), name);
        prop_assert_eq!(again, spec);
    }

    #[test]
    fn cpu_lists_round_trip(set in cpu_set()) {
        let text = set.to_string();
        prop_assert_eq!(DrainCommand::parse(&text), Ok(DrainCommand::Cpus(set)));
    }
}
