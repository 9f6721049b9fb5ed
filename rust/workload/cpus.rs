// SPDX-License-Identifier: GPL-2.0

//! Sets of CPUs.

use crate::mm::types::CpuIdx;
use core::fmt;

/// CPU numbers that a [`CpuSet`] can hold, `0..MAX_CPUS`.
pub const MAX_CPUS: u32 = 1024;

const WORD_BITS: u32 = u64::BITS;
const WORDS: usize = (MAX_CPUS / WORD_BITS) as usize;

/// A set of CPUs; prints as a kernel CPU list, such as `0-3,8`.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuSet([u64; WORDS]);

impl CpuSet {
    /// The empty set.
    pub const EMPTY: CpuSet = CpuSet([0; WORDS]);

    /// The set of one CPU below [`MAX_CPUS`].
    pub fn of(cpu: CpuIdx) -> CpuSet {
        let mut set = CpuSet::EMPTY;
        set.insert(cpu);
        set
    }

    /// Adds a CPU; says whether it is below [`MAX_CPUS`].
    pub fn insert(&mut self, cpu: CpuIdx) -> bool {
        let Some(word) = self.0.get_mut((cpu.0 / WORD_BITS) as usize) else {
            return false;
        };
        *word |= 1 << (cpu.0 % WORD_BITS);
        true
    }

    /// Removes a CPU if it is there.
    pub fn remove(&mut self, cpu: CpuIdx) {
        if let Some(word) = self.0.get_mut((cpu.0 / WORD_BITS) as usize) {
            *word &= !(1 << (cpu.0 % WORD_BITS));
        }
    }

    /// Whether a CPU is in the set.
    pub fn contains(&self, cpu: CpuIdx) -> bool {
        match self.0.get((cpu.0 / WORD_BITS) as usize) {
            Some(word) => (word >> (cpu.0 % WORD_BITS)) & 1 == 1,
            None => false,
        }
    }

    /// The CPUs of both sets.
    pub fn union(&self, other: &CpuSet) -> CpuSet {
        CpuSet(core::array::from_fn(|i| self.0[i] | other.0[i]))
    }

    /// Number of CPUs in the set.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// The CPU with the lowest number.
    pub fn first(&self) -> Option<CpuIdx> {
        self.iter().next()
    }

    /// The CPU with the highest number.
    pub fn last(&self) -> Option<CpuIdx> {
        (0..MAX_CPUS)
            .rev()
            .map(CpuIdx)
            .find(|cpu| self.contains(*cpu))
    }

    /// The CPUs by number.
    pub fn iter(&self) -> impl Iterator<Item = CpuIdx> + '_ {
        (0..MAX_CPUS).map(CpuIdx).filter(|cpu| self.contains(*cpu))
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let mut next = 0;
        while let Some(first) = (next..MAX_CPUS).find(|cpu| self.contains(CpuIdx(*cpu))) {
            next = (first..MAX_CPUS)
                .find(|cpu| !self.contains(CpuIdx(*cpu)))
                .unwrap_or(MAX_CPUS);
            write!(f, "{separator}{first}")?;
            if next - 1 > first {
                write!(f, "-{}", next - 1)?;
            }
            separator = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}
