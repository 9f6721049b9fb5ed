// SPDX-License-Identifier: GPL-2.0

//! The grammar of `zones`.

use super::words::{
    bad,
    number,
    size,
    CommandError,
    Pairs,
    Reason,
    Result,
    Words, //
};
use crate::mm::types::{
    BLOCK_ORDERS,
    DEFAULT_BLOCK_ORDER, //
};
use core::fmt;

/// Log2 of the page size that sizes are counted in: 4 KiB.
pub const PAGE_SHIFT: u32 = 12;

/// Ranges that a zone may have.
pub const MAX_RANGES: usize = 64;

/// Size of a zone that asks for none, in bytes.
const DEFAULT_SIZE: u64 = 1 << 30;

/// Largest size of a zone in bytes. Pages are counted in 32 bits.
const MAX_SIZE: u64 = 8 << 40;

/// Highest node number that is asked for.
const MAX_NODE: u64 = 1023;

/// Largest batch and high watermark of a set in pages.
const MAX_WATERMARK: u64 = 1 << 24;

/// Longest name of a zone in bytes.
const MAX_NAME: usize = 32;

/// Names beside the zones in the same folder.
const TAKEN_NAMES: [&str; 2] = ["zones", "last_error"];

/// The policies that a zone can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PolicyName {
    /// The running kernel's own allocator.
    Stock,
    /// Per-CPU lists over a locked zone buddy.
    Pcp,
    /// The per-CPU pageblock buddy.
    Owner,
    /// The same with lock-free remote frees.
    Split,
    /// A zone that trades in whole blocks.
    Economy,
}

impl PolicyName {
    /// All policies.
    pub const ALL: &'static [PolicyName] = &[
        PolicyName::Stock,
        PolicyName::Pcp,
        PolicyName::Owner,
        PolicyName::Split,
        PolicyName::Economy,
    ];

    /// The name in commands and results.
    pub const fn name(self) -> &'static str {
        match self {
            PolicyName::Stock => "stock",
            PolicyName::Pcp => "pcp",
            PolicyName::Owner => "owner",
            PolicyName::Split => "split",
            PolicyName::Economy => "economy",
        }
    }
}

/// A valid name of a zone: 1 to 32 of `[A-Za-z0-9_.-]`, not one that the file system or our own
/// files use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZoneName<'a>(&'a str);

impl<'a> ZoneName<'a> {
    fn new(name: &'a str) -> Result<'a, ZoneName<'a>> {
        let legal = |c: u8| c.is_ascii_alphanumeric() || b"_.-".contains(&c);
        if name.is_empty() || name.len() > MAX_NAME {
            return bad("name", name, Reason::Name("1 to 32 characters"));
        }
        if !name.bytes().all(legal) {
            return bad("name", name, Reason::Name("only A-Z a-z 0-9 _ . -"));
        }
        if matches!(name, "." | "..") || TAKEN_NAMES.contains(&name) {
            return bad("name", name, Reason::Name("reserved"));
        }
        Ok(ZoneName(name))
    }

    /// The name itself.
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

impl fmt::Display for ZoneName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// A zone to be made. `size` is a multiple of `ranges` times the pageblock size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZoneSpec {
    /// How it allocates. `stock` takes all keys and uses `size` only.
    pub policy: PolicyName,
    /// Bytes of all ranges together.
    pub size: u64,
    /// Ranges of equal size, `1..=MAX_RANGES`.
    pub ranges: usize,
    /// Node to take the ranges from; `None` for any.
    pub node: Option<u32>,
    /// Pageblock order, within [`BLOCK_ORDERS`].
    pub block_order: u8,
    /// Fixed batch in pages.
    pub batch: Option<u32>,
    /// Fixed pcp high in pages.
    pub high: Option<u32>,
    /// Percentage of the pageblocks that are of type CMA.
    pub cma_percent: u8,
}

impl ZoneSpec {
    /// Pages of the whole zone.
    pub const fn pages(&self) -> u32 {
        // CAST: `size` is at most `MAX_SIZE`, which is less than 2^32 pages.
        (self.size >> PAGE_SHIFT) as u32
    }

    /// Pages of each range.
    pub fn range_pages(&self) -> u32 {
        // CAST: `ranges` is at most `MAX_RANGES`, and 1 at least.
        self.pages() / (self.ranges as u32).max(1)
    }

    /// Pages of the pageblocks that are of type CMA.
    pub fn cma_pages(&self) -> u64 {
        let blocks = u64::from(self.pages() >> self.block_order);
        (blocks * u64::from(self.cma_percent) / 100) << self.block_order
    }
}

/// A command to `zones`; prints as the line that gives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ZoneCommand<'a> {
    /// Make a zone.
    Add {
        /// Its name.
        name: ZoneName<'a>,
        /// What it shall be.
        spec: ZoneSpec,
    },
    /// Remove a zone.
    Del {
        /// Its name.
        name: ZoneName<'a>,
    },
}

const KEYS: [&str; 9] = [
    "policy",
    "size",
    "ranges",
    "node",
    "block_order",
    "spb",
    "batch",
    "high",
    "cma",
];

impl<'a> ZoneCommand<'a> {
    /// Reads `add NAME [key=value ...]` or `del NAME`.
    ///
    /// # Errors
    ///
    /// The offending word and what is wrong with it.
    pub fn parse(line: &'a str) -> core::result::Result<ZoneCommand<'a>, CommandError<'a>> {
        let mut words = Words::new(line);
        match words.next() {
            None => bad("", line, Reason::Empty),
            Some("add") => {
                let name = read_name(&mut words)?;
                let spec = read_spec(&Pairs::read(words, &KEYS)?)?;
                Ok(ZoneCommand::Add { name, spec })
            }
            Some("del") => {
                let name = read_name(&mut words)?;
                words.end()?;
                Ok(ZoneCommand::Del { name })
            }
            Some(word) => bad("", word, Reason::UnknownCommand),
        }
    }
}

fn read_name<'a>(words: &mut Words<'a>) -> Result<'a, ZoneName<'a>> {
    match words.next() {
        None => bad("", "name", Reason::Missing),
        Some(name) => ZoneName::new(name),
    }
}

fn read_spec<'a>(pairs: &Pairs<'a, { KEYS.len() }>) -> Result<'a, ZoneSpec> {
    let blocks = (
        u64::from(*BLOCK_ORDERS.start()),
        u64::from(*BLOCK_ORDERS.end()),
    );
    let block_order = pairs.parse(
        "block_order",
        u64::from(DEFAULT_BLOCK_ORDER),
        |key, word| number(key, word, blocks.0, blocks.1),
    )?;
    let ranges = pairs.parse("ranges", 1, |key, word| {
        number(key, word, 1, MAX_RANGES as u64)
    })?;
    let unit = ranges << (block_order as u32 + PAGE_SHIFT);
    let size = pairs.parse("size", DEFAULT_SIZE, |key, word| {
        size(key, word, unit, MAX_SIZE)
    })?;
    if size % unit != 0 {
        // A size by default can only miss the unit because of the ranges.
        let (key, word) = match (pairs.get("size"), pairs.get("ranges")) {
            (Some(word), _) => ("size", word),
            (None, word) => ("ranges", word.unwrap_or("1")),
        };
        return match key {
            "size" => bad(key, word, Reason::MultipleOf(unit)),
            _ => bad(
                key,
                word,
                Reason::Conflict("do not divide the default size of 1G into whole pageblocks"),
            ),
        };
    }
    pairs.parse("spb", (), read_spb)?;
    let watermark = |key, word| Ok(Some(number(key, word, 1, MAX_WATERMARK)? as u32));
    let batch = pairs.parse("batch", None, watermark)?;
    let high = pairs.parse("high", None, watermark)?;
    if let (Some(batch), Some(high), Some(word)) = (batch, high, pairs.get("high")) {
        if high < batch {
            return bad("high", word, Reason::AtLeast(u64::from(batch)));
        }
    }
    Ok(ZoneSpec {
        policy: pairs.parse("policy", DEFAULT_POLICY, read_policy)?,
        size,
        ranges: ranges as usize,
        node: pairs.parse("node", None, |key, word| {
            Ok(Some(number(key, word, 0, MAX_NODE)? as u32))
        })?,
        block_order: block_order as u8,
        batch,
        high,
        cma_percent: pairs.parse("cma", 0, |key, word| number(key, word, 0, 100))? as u8,
    })
}

/// Policy of a zone that asks for none.
const DEFAULT_POLICY: PolicyName = PolicyName::Economy;

fn read_policy<'a>(key: &'static str, word: &'a str) -> Result<'a, PolicyName> {
    match PolicyName::ALL.iter().find(|policy| policy.name() == word) {
        Some(policy) => Ok(*policy),
        None => bad(
            key,
            word,
            Reason::OneOf("stock, pcp, owner, split, economy"),
        ),
    }
}

/// Superpageblocks can only be left off.
fn read_spb<'a>(key: &'static str, word: &'a str) -> Result<'a, ()> {
    match word {
        "off" => Ok(()),
        "on" => bad(key, word, Reason::NotOffered),
        _ => bad(key, word, Reason::OneOf("off, on")),
    }
}

impl fmt::Display for ZoneCommand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ZoneCommand::Add { name, spec } => write!(f, "add {name} {spec}"),
            ZoneCommand::Del { name } => write!(f, "del {name}"),
        }
    }
}

impl fmt::Display for ZoneSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (policy, size, ranges) = (self.policy.name(), self.size, self.ranges);
        write!(f, "policy={policy} size={size} ranges={ranges}")?;
        if let Some(node) = self.node {
            write!(f, " node={node}")?;
        }
        write!(f, " block_order={} spb=off", self.block_order)?;
        if let Some(batch) = self.batch {
            write!(f, " batch={batch}")?;
        }
        if let Some(high) = self.high {
            write!(f, " high={high}")?;
        }
        write!(f, " cma={}", self.cma_percent)
    }
}
