//! The fields segments are made of: little-endian integers, LEB128 varints and strings.
//!
//! [`Take`] is total: whatever the bytes, it yields a value or says where they are wrong.

use std::ops::Range;

use super::format::{Damaged, Section};

/// Appends a varint: seven bits a byte, lowest first, the top bit set on all but the last.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).expect("seven bits") | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).expect("seven bits"));
}

/// Appends a length or a count as a varint.
pub(super) fn put_len(out: &mut Vec<u8>, len: usize) {
    put_varint(out, u64::try_from(len).expect("usize fits u64"));
}

/// How many bytes `value` takes as a varint.
pub(super) fn varint_len(value: usize) -> usize {
    let bits = usize::BITS - (value | 1).leading_zeros();
    usize::try_from(bits.div_ceil(7)).expect("at most ten")
}

/// Reads fields one after the other.
pub(super) struct Take<'a> {
    bytes: &'a [u8],
    at: usize,
    section: Section,
    /// Where `bytes` start in their section's count of positions.
    base: u64,
}

impl<'a> Take<'a> {
    pub(super) const fn new(bytes: &'a [u8], section: Section, base: u64) -> Self {
        Self { bytes, at: 0, section, base }
    }

    pub(super) const fn at(&self) -> usize {
        self.at
    }

    pub(super) fn damaged(&self, reason: &'static str) -> Damaged {
        let at = u64::try_from(self.at).expect("usize fits u64");
        Damaged { section: self.section, at: self.base.saturating_add(at), reason }
    }

    /// Refuses what was just read unless it is as it must be.
    pub(super) fn check(&self, holds: bool, reason: &'static str) -> Result<(), Damaged> {
        if holds { Ok(()) } else { Err(self.damaged(reason)) }
    }

    /// Refuses bytes after the last field.
    pub(super) fn end(&self) -> Result<(), Damaged> {
        self.check(self.at == self.bytes.len(), "bytes after the last field")
    }

    /// Passes `len` bytes and says where they are.
    pub(super) fn range(&mut self, len: usize) -> Result<Range<usize>, Damaged> {
        match self.at.checked_add(len).filter(|&end| end <= self.bytes.len()) {
            None => Err(self.damaged("cut short")),
            Some(end) => {
                let range = self.at..end;
                self.at = end;
                Ok(range)
            }
        }
    }

    pub(super) fn slice(&mut self, len: usize) -> Result<&'a [u8], Damaged> {
        self.range(len).map(|range| &self.bytes[range])
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        Ok(self.slice(N)?.try_into().expect("sliced to this length"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, Damaged> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Damaged> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Damaged> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Damaged> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn varint(&mut self) -> Result<u64, Damaged> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            self.check(shift < 63 || bits <= 1, "number over 64 bits")?;
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.damaged("number over 64 bits"))
    }

    /// A varint that counts bytes or things in memory.
    pub(super) fn len(&mut self) -> Result<usize, Damaged> {
        let value = self.varint()?;
        usize::try_from(value).map_err(|_| self.damaged("length over the address space"))
    }

    /// A count of things that take at least one byte each, so that room for them may be
    /// reserved without trusting the number.
    pub(super) fn count(&mut self) -> Result<usize, Damaged> {
        let count = self.len()?;
        self.check(count <= self.bytes.len() - self.at, "count exceeds the bytes left")?;
        Ok(count)
    }
}
