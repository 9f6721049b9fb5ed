// SPDX-License-Identifier: GPL-2.0

//! The files of a zone.
//!
//! One function per file and direction, and [`FILES`] that names them. They only look at the zone,
//! or hand a parsed command on. Where a policy has nothing to say, a line `n/a: ...` says why.

use super::{
    cpu,
    debugfs::{File, Target},
    refusal::{refusal, LastError, Outcome},
    runner,
    text::{put, Text},
    zone::{with_allocator, Zone}, //
};
use crate::{
    command::{parse_run, DrainCommand},
    mm::{
        stats::{counter_name, NR_COUNTERS},
        types::{
            BlockIdx,
            CpuIdx,
            Migratetype,
            Order, //
            PageIdx,
        },
        BlockInfo,
        FreeChunks,
        PageAllocator,
        Place,
        Report, //
    },
    workload::Counters, //
};
use kernel::prelude::*;

/// The files of a zone, in the order of the documentation.
pub(crate) const FILES: &[File<Zone>] = &[
    File {
        name: c"policy",
        read: Some(show_policy),
        write: None,
    },
    File {
        name: c"run",
        read: None,
        write: Some(run),
    },
    File {
        name: c"result",
        read: Some(show_result),
        write: None,
    },
    File {
        name: c"stats",
        read: Some(show_stats),
        write: Some(reset_stats),
    },
    File {
        name: c"buddyinfo",
        read: Some(show_buddyinfo),
        write: None,
    },
    File {
        name: c"pageblocks",
        read: Some(show_pageblocks),
        write: None,
    },
    File {
        name: c"drain",
        read: None,
        write: Some(drain),
    },
    File {
        name: c"check",
        read: Some(show_check),
        write: None,
    },
];

/// What files say that show the insides of a zone.
const KERNELS_OWN: &str = "n/a: pages of a stock zone are managed by the running kernel\n";

/// Rows between two offers to let others run.
const ROWS_AT_A_TIME: u32 = 64;

impl Target for Zone {
    fn last_error(&self) -> &LastError {
        Zone::last_error(self)
    }

    fn prefix(&self, text: &mut Text) {
        put!(text, "{}/", self.name());
    }
}

fn show_policy(zone: &Zone, text: &mut Text) -> Result {
    put!(text, "{}\n", zone.spec().policy.name());
    Ok(())
}

fn run(zone: &Zone, line: &str) -> Outcome {
    let spec = parse_run(line).map_err(|err| refusal!(EINVAL, "{}/run: {err}", zone.name()))?;
    runner::run(zone, &spec)
}

fn show_result(zone: &Zone, text: &mut Text) -> Result {
    zone.with_result(|report| match report {
        // Lack of memory is found by the caller.
        Some(report) => report.write(text).unwrap_or(()),
        None => put!(text, "n/a: no workload has been run in this zone\n"),
    });
    Ok(())
}

fn reset_stats(zone: &Zone, line: &str) -> Outcome {
    if line.trim() != "reset" {
        let name = zone.name();
        return Err(refusal!(
            EINVAL,
            "{name}/stats: the only command is 'reset'"
        ));
    }
    zone.reset_stats();
    Ok(())
}

fn drain(zone: &Zone, line: &str) -> Outcome {
    let command = DrainCommand::parse(line)
        .map_err(|err| refusal!(EINVAL, "{}/drain: {err}", zone.name()))?;
    match command {
        DrainCommand::All => cpu::all().for_each(|cpu| zone.drain(cpu)),
        DrainCommand::Cpus(set) => {
            if let Some(cpu) = set.iter().find(|cpu| !cpu::exists(*cpu)) {
                let name = zone.name();
                return Err(refusal!(EINVAL, "{name}/drain: there is no CPU {}", cpu.0));
            }
            set.iter().for_each(|cpu| zone.drain(cpu));
        }
    }
    Ok(())
}

fn show_check(zone: &Zone, text: &mut Text) -> Result {
    let Some(report) = zone.report() else {
        put!(text, "{KERNELS_OWN}");
        return Ok(());
    };
    match zone.while_quiet(|| report.check()) {
        Some(Ok(())) => put!(text, "ok\n"),
        Some(Err(violation)) => put!(text, "violated: {violation}\n"),
        None => put!(text, "busy: a workload is running in this zone\n"),
    }
    Ok(())
}

fn show_stats(zone: &Zone, text: &mut Text) -> Result {
    put!(text, "policy: {}\n", zone.spec().policy.name());
    put!(text, "free_pages: {}\n", zone.free_pages());
    match zone.report() {
        Some(report) => show_metadata(report, text),
        None => put!(text, "budget_pages: {}\n", zone.spec().pages()),
    }
    let counters = with_allocator!(zone, alloc => Counters::take(alloc)).map_err(|_| ENOMEM)?;
    // Lack of memory is found by the caller.
    counters.write(text).unwrap_or(());
    counters.write_times(text).unwrap_or(());
    if let Some(report) = zone.report() {
        show_tuning(report, text);
    }
    show_counters_by_cpu(zone, text)
}

fn show_metadata(report: &dyn Report, text: &mut Text) {
    let (bytes, pages) = (report.metadata_bytes(), report.managed_pages());
    put!(text, "managed_pages: {pages}\n");
    let uncounted = report.uncounted_free_pages();
    put!(text, "uncounted_free_pages: {uncounted}\n");
    put!(text, "metadata_bytes: {bytes}\n");
    let hundredths = bytes.saturating_mul(100) / pages.max(1);
    put!(
        text,
        "metadata_bytes_per_page: {}.{:02}\n",
        hundredths / 100,
        hundredths % 100
    );
    match report.last_refused_free() {
        Some((page, cpu)) => put!(
            text,
            "last_refused_free: page {} by CPU {}\n",
            page.0,
            cpu.0
        ),
        None => put!(text, "last_refused_free: none\n"),
    }
}

fn show_tuning(report: &dyn Report, text: &mut Text) {
    put!(
        text,
        "\n{:<6} {:>10} {:>10} {:>10} {:>10} {:>10}\n",
        "set",
        "count",
        "batch",
        "high",
        "high_min",
        "high_max"
    );
    for cpu in cpu::all() {
        let tuning = report.tuning(cpu);
        if tuning.count == 0 && !cpu::is_online(cpu) {
            continue;
        }
        put!(
            text,
            "{:<6} {:>10} {:>10} {:>10} {:>10} {:>10}\n",
            Name(cpu),
            tuning.count,
            tuning.batch,
            tuning.high,
            tuning.high_min,
            tuning.high_max
        );
    }
}

/// A table of the counters that are not 0: a column per CPU that counted anything.
fn show_counters_by_cpu(zone: &Zone, text: &mut Text) -> Result {
    let stats = zone.stats();
    let mut used = KVec::new();
    for cpu in cpu::all() {
        if (0..NR_COUNTERS).any(|nr| stats.get(cpu, nr) != 0) {
            used.push(cpu, GFP_KERNEL)?;
        }
    }
    put!(text, "\n{:<30} {:>14}", "counter", "total");
    for cpu in &used {
        put!(text, " {:>14}", Name(*cpu));
    }
    put!(text, "\n");
    for nr in (0..NR_COUNTERS).filter(|nr| stats.total(*nr) != 0) {
        put!(
            text,
            "{:<30} {:>14}",
            Padded(counter_name(nr)),
            stats.total(nr)
        );
        for cpu in &used {
            put!(text, " {:>14}", stats.get(*cpu, nr));
        }
        put!(text, "\n");
    }
    Ok(())
}

fn show_buddyinfo(zone: &Zone, text: &mut Text) -> Result {
    let Some(report) = zone.report() else {
        put!(text, "{KERNELS_OWN}");
        return Ok(());
    };
    let max_order = with_allocator!(zone, alloc => alloc.max_order());
    put!(text, "{:<6} {:<12}", "place", "migratetype");
    for order in 0..=max_order.get() {
        put!(text, " {order:>8}");
    }
    put!(text, "\n");
    let chunks = report.free_chunks(Place::Zone);
    show_chunks(&chunks, "zone", &Migratetype::ALL, max_order, text);
    let chunks = report.free_chunks(Place::Shared);
    if !is_empty(&chunks) {
        show_chunks(&chunks, "shared", &Migratetype::PCP, max_order, text);
    }
    for cpu in cpu::all() {
        let chunks = report.free_chunks(Place::Cpu(cpu));
        if cpu::is_online(cpu) || !is_empty(&chunks) {
            show_chunks(&chunks, Name(cpu), &Migratetype::PCP, max_order, text);
        }
    }
    Ok(())
}

fn is_empty(chunks: &FreeChunks) -> bool {
    chunks.iter().flatten().all(|nr| *nr == 0)
}

/// A row for each of `types`.
fn show_chunks(
    chunks: &FreeChunks,
    place: impl core::fmt::Display,
    types: &[Migratetype],
    max_order: Order,
    text: &mut Text,
) {
    for mt in types {
        put!(text, "{place:<6} {:<12}", mt.name());
        for nr in &chunks[mt.idx()][..=max_order.idx()] {
            put!(text, " {nr:>8}");
        }
        put!(text, "\n");
    }
}

fn show_pageblocks(zone: &Zone, text: &mut Text) -> Result {
    let Some(report) = zone.report() else {
        put!(text, "{KERNELS_OWN}");
        return Ok(());
    };
    put!(
        text,
        "{:>8} {:<12} {:<6} {:>10} {:>10} {:<8} {:<8} {}\n",
        "block",
        "migratetype",
        "owner",
        "free_zone",
        "free_pcp",
        "where",
        "recovery",
        "pfn"
    );
    let block_pages = 1 << zone.spec().block_order;
    for block in 0..report.nr_blocks() {
        // A hole between ranges has no row.
        if let Some(info) = report.block_info(BlockIdx(block)) {
            let first = PageIdx(block * block_pages);
            show_block(
                block,
                &info,
                zone.pfn(first).unwrap_or(0),
                block_pages,
                text,
            );
        }
        if block % ROWS_AT_A_TIME == 0 {
            cpu::give_way();
        }
    }
    Ok(())
}

fn show_block(block: u32, info: &BlockInfo, pfn: u64, block_pages: u32, text: &mut Text) {
    let place = match (info.free_zone_pages, info.free_pcp_pages) {
        (0, 0) => "used",
        (pages, 0) if pages == block_pages => "zone",
        (0, pages) if pages == block_pages => "pcp",
        _ => "partial",
    };
    put!(
        text,
        "{block:>8} {:<12} {:<6} {:>10} {:>10} {place:<8} {:<8} {pfn}\n",
        info.migratetype.name(),
        Owner(info.owner),
        info.free_zone_pages,
        info.free_pcp_pages,
        if info.recoverable { "yes" } else { "no" }
    );
}

/// A CPU as it is called in tables.
struct Name(CpuIdx);

impl core::fmt::Display for Name {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        pad(f, format_args!("cpu{}", self.0 .0))
    }
}

/// An owner as it is called in tables.
struct Owner(Option<CpuIdx>);

impl core::fmt::Display for Owner {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(cpu) => core::fmt::Display::fmt(&Name(cpu), f),
            None => f.pad("-"),
        }
    }
}

/// Something short whose `Display` knows no width.
struct Padded<T>(T);

impl<T: core::fmt::Display> core::fmt::Display for Padded<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        pad(f, format_args!("{}", self.0))
    }
}

/// Formats with the width that `f` asks for.
fn pad(f: &mut core::fmt::Formatter<'_>, what: core::fmt::Arguments<'_>) -> core::fmt::Result {
    let mut short = Short::default();
    core::fmt::write(&mut short, what)?;
    f.pad(core::str::from_utf8(&short.bytes[..short.len]).unwrap_or("?"))
}

/// Text that fits a column.
#[derive(Default)]
struct Short {
    bytes: [u8; 32],
    len: usize,
}

impl core::fmt::Write for Short {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        let end = self.len + s.len();
        let room = self.bytes.get_mut(self.len..end).ok_or(core::fmt::Error)?;
        room.copy_from_slice(s.as_bytes());
        self.len = end;
        Ok(())
    }
}
