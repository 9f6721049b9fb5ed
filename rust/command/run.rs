// SPDX-License-Identifier: GPL-2.0

//! The grammar of `NAME/run`.

use super::words::{
    bad,
    count,
    cpu_list,
    number,
    CommandError,
    Pairs,
    Reason,
    Result,
    Words, //
};
use crate::{
    mm::types::{
        Context,
        Migratetype,
        Order,
        TOP_ORDER, //
    },
    workload::spec::{
        Amount,
        FreeOrder,
        How,
        Mobility,
        OrderRange,
        Spec,
        Touch,
        Workload, //
    },
};
use core::fmt;

/// Most operations of a repetition.
const MAX_OPS: u64 = 1_000_000_000_000;

/// Longest repetition in milliseconds: an hour.
const MAX_MS: u64 = 3_600_000;

/// Most repetitions of a run.
const MAX_REPEAT: u64 = 1_000;

/// Largest working set in pages. The zone bounds it further.
const MAX_PAGES: u64 = u32::MAX as u64;

const KEYS: [&str; 18] = [
    "workload",
    "cpus",
    "free_cpus",
    "order",
    "mt",
    "ops",
    "ms",
    "pages",
    "seed",
    "touch",
    "verify",
    "context",
    "repeat",
    "free",
    "how",
    "lock_times",
    "latency",
    "vain",
];

/// Reads `workload=W cpus=LIST [key=value ...]`. A key that would have no effect on the workload
/// is refused.
///
/// # Errors
///
/// The offending word and what is wrong with it.
pub fn parse_run(line: &str) -> core::result::Result<Spec, CommandError<'_>> {
    let pairs = Pairs::read(Words::new(line), &KEYS)?;
    let workload = match pairs.get("workload") {
        None => return bad("", "workload", Reason::Missing),
        Some(word) => read_workload(word)?,
    };
    let cpus = match pairs.get("cpus") {
        None => return bad("", "cpus", Reason::Missing),
        Some(word) => cpu_list("cpus", word)?,
    };
    let default = Spec::new(workload, cpus);
    refuse_useless(&pairs, workload)?;
    let order = pairs.parse("order", default.order, read_orders)?;
    Ok(Spec {
        order,
        free_cpus: pairs.parse("free_cpus", default.free_cpus, cpu_list)?,
        mobility: pairs.parse("mt", default.mobility, read_mobility)?,
        amount: read_amount(&pairs, default.amount)?,
        pages: pairs.parse("pages", default.pages, |key, word| {
            Ok(Some(count(key, word, 1, MAX_PAGES)?))
        })?,
        seed: pairs.parse("seed", default.seed, |key, word| {
            number(key, word, 0, u64::MAX)
        })?,
        touch: pairs.parse("touch", default.touch, |key, word| {
            named(key, word, Touch::from_name(word), "none, first, all")
        })?,
        verify: pairs.parse("verify", default.verify, read_switch)?,
        context: pairs.parse("context", default.context, read_context)?,
        repeat: pairs.parse("repeat", default.repeat, |key, word| {
            Ok(number(key, word, 1, MAX_REPEAT)? as u32)
        })?,
        free: pairs.parse("free", default.free, |key, word| {
            named(
                key,
                word,
                FreeOrder::from_name(word),
                "lifo, fifo, shuffled",
            )
        })?,
        how: pairs.parse("how", default.how, |key, word| {
            read_how(key, word, workload, order)
        })?,
        lock_times: pairs.parse("lock_times", default.lock_times, read_switch)?,
        latency: pairs.parse("latency", default.latency, read_switch)?,
        vain: pairs.parse("vain", default.vain, |key, word| {
            let order = number(key, word, 1, u64::from(TOP_ORDER))?;
            // CAST: checked right above.
            Ok(Some(Order::new(order as u8)))
        })?,
        ..default
    })
}

/// Refuses keys without effect: they would make a result say what was not done.
fn refuse_useless<'a>(pairs: &Pairs<'a, { KEYS.len() }>, workload: Workload) -> Result<'a, ()> {
    let useless = [
        (
            "free_cpus",
            !workload.has_free_cpus(),
            "only with workload=purge or fanout",
        ),
        (
            "pages",
            !workload.has_working_set(),
            "not with workload=pair, hog or frag, which have no working set",
        ),
        (
            "free",
            !workload.has_phases(),
            "only with workload=bulk, exit, hog or contig",
        ),
        (
            "how",
            !workload.has_how(),
            "only with workload=bulk, purge, fanout, exit or contig",
        ),
        (
            "ops",
            workload == Workload::Hog,
            "not with workload=hog, which takes what there is",
        ),
        (
            "ms",
            workload == Workload::Frag,
            "not with workload=frag, which does the same at every fill level",
        ),
        (
            "vain",
            workload != Workload::Stress,
            "only with workload=stress",
        ),
    ];
    for (key, refused, why) in useless {
        if let (true, Some(word)) = (refused, pairs.get(key)) {
            return bad(key, word, Reason::Conflict(why));
        }
    }
    Ok(())
}

fn named<'a, T>(
    key: &'static str,
    word: &'a str,
    value: Option<T>,
    names: &'static str,
) -> Result<'a, T> {
    match value {
        Some(value) => Ok(value),
        None => bad(key, word, Reason::OneOf(names)),
    }
}

fn read_switch<'a>(key: &'static str, word: &'a str) -> Result<'a, bool> {
    Ok(number(key, word, 0, 1)? == 1)
}

fn read_workload(word: &str) -> Result<'_, Workload> {
    // Named by the interface, to come.
    if matches!(word, "replay" | "mirror") {
        return bad("workload", word, Reason::NotOffered);
    }
    let names = "pair, bulk, rand, purge, fanout, exit, hog, frag, contig, stress";
    named("workload", word, Workload::from_name(word), names)
}

fn read_orders<'a>(key: &'static str, word: &'a str) -> Result<'a, OrderRange> {
    let (lo, hi) = word.split_once('-').unwrap_or((word, word));
    let order = |digits| match number(key, digits, 0, u64::from(TOP_ORDER)) {
        Ok(order) => Ok(Order::new(order as u8)),
        Err(err) => bad(key, word, err.reason),
    };
    let (lo, hi) = (order(lo)?, order(hi)?);
    if lo > hi {
        return bad(key, word, Reason::Conflict("the smaller order comes first"));
    }
    Ok(OrderRange { lo, hi })
}

fn read_how<'a>(
    key: &'static str,
    word: &'a str,
    workload: Workload,
    order: OrderRange,
) -> Result<'a, How> {
    let how = named(key, word, How::from_name(word), "single, array, range")?;
    let why = match how {
        _ if workload == Workload::Contig => return Ok(how),
        How::Range => "only with workload=contig",
        How::Array if order.hi != Order::ZERO => "arrays are of single pages: order=0",
        _ => return Ok(how),
    };
    bad(key, word, Reason::Conflict(why))
}

fn read_mobility<'a>(key: &'static str, word: &'a str) -> Result<'a, Mobility> {
    if word == "mixed" {
        return Ok(Mobility::Mixed);
    }
    let names = "movable, unmovable, reclaimable, mixed";
    let one = Migratetype::PCP.iter().find(|mt| mt.name() == word);
    named(key, word, one.copied().map(Mobility::One), names)
}

fn read_amount<'a>(pairs: &Pairs<'a, { KEYS.len() }>, default: Amount) -> Result<'a, Amount> {
    let ops = pairs.get("ops");
    match (ops, pairs.get("ms")) {
        (None, None) => Ok(default),
        (Some(word), None) => Ok(Amount::Ops(count("ops", word, 1, MAX_OPS)?)),
        (None, Some(word)) => Ok(Amount::Ms(number("ms", word, 1, MAX_MS)?)),
        (Some(_), Some(word)) => bad("ms", word, Reason::Conflict("not together with ops")),
    }
}

fn read_context<'a>(key: &'static str, word: &'a str) -> Result<'a, Context> {
    match word {
        "task" => Ok(Context::Task),
        "softirq" => Ok(Context::Softirq),
        "hardirq" => Ok(Context::Hardirq),
        _ => bad(key, word, Reason::OneOf("task, softirq, hardirq")),
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "workload={} cpus={}", self.workload.name(), self.cpus)?;
        if !self.free_cpus.is_empty() {
            write!(f, " free_cpus={}", self.free_cpus)?;
        }
        write!(f, " order={} mt={}", self.order, self.mobility.name())?;
        match self.amount {
            Amount::Ops(ops) => write!(f, " ops={ops}")?,
            Amount::Ms(ms) => write!(f, " ms={ms}")?,
            Amount::Round => {}
        }
        if let Some(pages) = self.pages {
            write!(f, " pages={pages}")?;
        }
        let (touch, verify) = (self.touch.name(), u32::from(self.verify));
        write!(f, " seed={} touch={touch} verify={verify}", self.seed)?;
        let context = self.context.name();
        write!(f, " context={context} repeat={}", self.repeat)?;
        if self.workload.has_phases() {
            write!(f, " free={}", self.free.name())?;
        }
        if self.workload.has_how() {
            write!(f, " how={}", self.how.name())?;
        }
        for (name, on) in [("lock_times", self.lock_times), ("latency", self.latency)] {
            if on {
                write!(f, " {name}=1")?;
            }
        }
        if let Some(order) = self.vain {
            write!(f, " vain={order}")?;
        }
        Ok(())
    }
}

impl fmt::Display for OrderRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lo == self.hi {
            self.lo.fmt(f)
        } else {
            write!(f, "{}-{}", self.lo, self.hi)
        }
    }
}

impl Mobility {
    /// The name in commands and results.
    pub const fn name(self) -> &'static str {
        match self {
            Mobility::One(mt) => mt.name(),
            Mobility::Mixed => "mixed",
        }
    }
}
