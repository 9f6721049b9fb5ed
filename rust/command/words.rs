// SPDX-License-Identifier: GPL-2.0

//! Words, numbers and CPU lists, and what can be wrong with them.

use crate::{
    mm::types::CpuIdx,
    workload::cpus::{
        CpuSet,
        MAX_CPUS, //
    },
};
use core::fmt::{
    self,
    Write, //
};

/// What is wrong with a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The line holds no command.
    Empty,
    /// No such command.
    UnknownCommand,
    /// No such key.
    UnknownKey,
    /// The key was given before.
    Doubled,
    /// A word that is no `key=value`.
    NoPair,
    /// A key that must be given is not.
    Missing,
    /// A word too many.
    Trailing,
    /// The value is no number.
    NoNumber,
    /// The value is no CPU list.
    NoCpuList,
    /// A CPU number above what a set of CPUs holds.
    NoSuchCpu,
    /// The value is below this bound.
    AtLeast(u64),
    /// The value is above this bound.
    AtMost(u64),
    /// The value must be a multiple of this.
    MultipleOf(u64),
    /// The value is none of these.
    OneOf(&'static str),
    /// The value will mean something in a later version.
    NotOffered,
    /// The zone name is not allowed, for the reason given.
    Name(&'static str),
    /// The key does not go together with what else was given.
    Conflict(&'static str),
}

/// Why a command was refused; prints as words for `last_error`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommandError<'a> {
    /// The key whose value is refused; empty where the word itself is.
    pub key: &'static str,
    /// The offending word.
    pub word: &'a str,
    /// What is wrong with it.
    pub reason: Reason,
}

/// Result of parsing.
pub(super) type Result<'a, T> = core::result::Result<T, CommandError<'a>>;

/// Longest part of an offending word that is repeated to the user, in characters.
const QUOTED_CHARS: usize = 64;

/// A word in quotes, cut where it is long, without control characters.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('\'')?;
        for c in self.0.chars().take(QUOTED_CHARS) {
            let printable = c == ' ' || c.is_ascii_graphic();
            f.write_char(if printable { c } else { '?' })?;
        }
        f.write_str(match self.0.chars().nth(QUOTED_CHARS) {
            Some(_) => "'...",
            None => "'",
        })
    }
}

impl fmt::Display for CommandError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Quoted(self.word);
        match self.reason {
            Reason::Empty => return f.write_str("no command given"),
            Reason::UnknownCommand => return write!(f, "unknown command {word}"),
            Reason::UnknownKey => return write!(f, "unknown key {word}"),
            Reason::Doubled => return write!(f, "key {word} given twice"),
            Reason::NoPair => return write!(f, "{word} is no key=value"),
            Reason::Missing => return write!(f, "{word} is missing"),
            Reason::Trailing => return write!(f, "{word} is one word too many"),
            _ => {}
        }
        if !self.key.is_empty() {
            write!(f, "{} ", self.key)?;
        }
        write!(f, "{word}: ")?;
        match self.reason {
            Reason::NoNumber => f.write_str("no number"),
            Reason::NoCpuList => f.write_str("no CPU list such as 0-3,8"),
            Reason::NoSuchCpu => write!(f, "CPU numbers end at {}", MAX_CPUS - 1),
            Reason::AtLeast(bound) => write!(f, "at least {bound}"),
            Reason::AtMost(bound) => write!(f, "at most {bound}"),
            Reason::MultipleOf(unit) => write!(f, "no multiple of {unit}"),
            Reason::OneOf(names) => write!(f, "none of {names}"),
            Reason::NotOffered => f.write_str("not offered by this version"),
            Reason::Name(why) | Reason::Conflict(why) => f.write_str(why),
            _ => Ok(()),
        }
    }
}

/// Shorthand for an error about a value.
pub(super) fn bad<'a, T>(key: &'static str, word: &'a str, reason: Reason) -> Result<'a, T> {
    Err(CommandError { key, word, reason })
}

/// The words of a line. One newline at its end is no part of it.
pub(super) struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    pub(super) fn new(line: &'a str) -> Words<'a> {
        Words(line.strip_suffix('\n').unwrap_or(line))
    }

    /// Refuses words that are left over.
    pub(super) fn end(&mut self) -> Result<'a, ()> {
        match self.next() {
            None => Ok(()),
            Some(word) => bad("", word, Reason::Trailing),
        }
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let blank = [' ', '\t'];
        let rest = self.0.trim_start_matches(blank);
        if rest.is_empty() {
            return None;
        }
        let end = rest.find(blank).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.0 = rest;
        Some(word)
    }
}

/// The `key=value` words of a command that knows `KEYS`, each given at most once.
pub(super) struct Pairs<'a, const KEYS: usize> {
    keys: &'static [&'static str; KEYS],
    values: [Option<&'a str>; KEYS],
}

impl<'a, const KEYS: usize> Pairs<'a, KEYS> {
    /// Reads all words that are left.
    pub(super) fn read(
        words: Words<'a>,
        keys: &'static [&'static str; KEYS],
    ) -> Result<'a, Pairs<'a, KEYS>> {
        let mut values = [None; KEYS];
        for word in words {
            let Some((key, value)) = word.split_once('=') else {
                return bad("", word, Reason::NoPair);
            };
            let Some(nr) = keys.iter().position(|known| *known == key) else {
                return bad("", key, Reason::UnknownKey);
            };
            if values[nr].replace(value).is_some() {
                return bad("", key, Reason::Doubled);
            }
        }
        Ok(Pairs { keys, values })
    }

    /// The value of a key, if given.
    pub(super) fn get(&self, key: &str) -> Option<&'a str> {
        let nr = self.keys.iter().position(|known| *known == key)?;
        self.values[nr]
    }

    /// The value of a key read by `read`, or `default` if the key is not given.
    pub(super) fn parse<T>(
        &self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&'static str, &'a str) -> Result<'a, T>,
    ) -> Result<'a, T> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => read(key, value),
        }
    }
}

/// Reads a number with an optional suffix out of `suffixes`, within `min..=max`.
fn scaled<'a>(
    key: &'static str,
    word: &'a str,
    (min, max): (u64, u64),
    suffixes: &[(char, u64)],
) -> Result<'a, u64> {
    let suffix = suffixes.iter().find(|(c, _)| word.ends_with(*c));
    let (digits, unit) = match suffix {
        Some((c, unit)) => (word.trim_end_matches(*c), *unit),
        None => (word, 1),
    };
    let one_suffix = word.len() - digits.len() <= 1;
    if !one_suffix || digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
        return bad(key, word, Reason::NoNumber);
    }
    // All digits, so what cannot be read is too large.
    let value = digits.parse().ok().and_then(|n: u64| n.checked_mul(unit));
    match value {
        Some(value) if value < min => bad(key, word, Reason::AtLeast(min)),
        Some(value) if value <= max => Ok(value),
        _ => bad(key, word, Reason::AtMost(max)),
    }
}

/// Reads a plain number within `min..=max`.
pub(super) fn number<'a>(key: &'static str, word: &'a str, min: u64, max: u64) -> Result<'a, u64> {
    scaled(key, word, (min, max), &[])
}

/// Reads a count, where `k` and `m` mean thousand and million.
pub(super) fn count<'a>(key: &'static str, word: &'a str, min: u64, max: u64) -> Result<'a, u64> {
    scaled(key, word, (min, max), &[('k', 1_000), ('m', 1_000_000)])
}

/// Reads a size in bytes, where `K`, `M` and `G` are powers of 1024.
pub(super) fn size<'a>(key: &'static str, word: &'a str, min: u64, max: u64) -> Result<'a, u64> {
    let suffixes = [('K', 1 << 10), ('M', 1 << 20), ('G', 1 << 30)];
    scaled(key, word, (min, max), &suffixes)
}

/// Reads a CPU list as the kernel prints them: numbers and ranges separated by commas.
pub(super) fn cpu_list<'a>(key: &'static str, word: &'a str) -> Result<'a, CpuSet> {
    let malformed = CommandError {
        key,
        word,
        reason: Reason::NoCpuList,
    };
    let cpu = |digits: &str| {
        if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
            return Err(malformed);
        }
        match digits.parse() {
            Ok(nr) if nr < MAX_CPUS => Ok(nr),
            _ => bad(key, word, Reason::NoSuchCpu),
        }
    };
    let mut set = CpuSet::EMPTY;
    for part in word.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (cpu(first)?, cpu(last)?);
        if first > last {
            return Err(malformed);
        }
        for nr in first..=last {
            set.insert(CpuIdx(nr));
        }
    }
    Ok(set)
}
