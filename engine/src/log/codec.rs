//! Bytes of log entries and catalogue rows: little-endian integers, LEB128 varints and
//! length-prefixed byte strings. The reader is total: any input yields a value or
//! [`Malformed`].

use bytes::{BufMut, Bytes, BytesMut};

/// Stored bytes that do not follow the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what} at byte {at}")]
pub(crate) struct Malformed {
    /// What was being read.
    pub(crate) what: &'static str,
    /// Where, counted from the start of the entry or row.
    pub(crate) at: usize,
}

/// Writes the fields of the formats.
pub(crate) trait Put {
    fn put_varint(&mut self, value: u64);
    fn put_string(&mut self, bytes: &[u8]);
    fn put_option(&mut self, bytes: Option<&[u8]>);
}

impl Put for BytesMut {
    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put_u8(u8::try_from(value & 0x7f).expect("seven bits") | 0x80);
            value >>= 7;
        }
        self.put_u8(u8::try_from(value).expect("seven bits"));
    }

    fn put_string(&mut self, bytes: &[u8]) {
        self.put_varint(u64::try_from(bytes.len()).expect("usize fits u64"));
        self.put_slice(bytes);
    }

    fn put_option(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            None => self.put_u8(0),
            Some(bytes) => {
                self.put_u8(1);
                self.put_string(bytes);
            }
        }
    }
}

/// Reads fields from shared bytes; strings are slices of them, not copies.
pub(crate) struct Take {
    bytes: Bytes,
    at: usize,
}

impl Take {
    pub(crate) const fn new(bytes: Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Bytes not yet taken.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(crate) const fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { what, at: self.at }
    }

    pub(crate) fn slice(&mut self, len: usize, what: &'static str) -> Result<Bytes, Malformed> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or(self.malformed(what))?;
        let taken = self.bytes.slice(self.at..end);
        self.at = end;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], Malformed> {
        let taken = self.slice(N, what)?;
        Ok(taken.as_ref().try_into().expect("sliced to this length"))
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        Ok(self.array::<1>(what)?[0])
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        self.array(what).map(u64::from_le_bytes)
    }

    pub(crate) fn varint(&mut self, what: &'static str) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.malformed(what))
    }

    pub(crate) fn count(&mut self, what: &'static str) -> Result<usize, Malformed> {
        let value = self.varint(what)?;
        usize::try_from(value).map_err(|_| self.malformed(what))
    }

    pub(crate) fn string(&mut self, what: &'static str) -> Result<Bytes, Malformed> {
        let len = self.count(what)?;
        self.slice(len, what)
    }

    pub(crate) fn text(&mut self, what: &'static str) -> Result<String, Malformed> {
        let bytes = self.string(what)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.malformed(what))
    }

    pub(crate) fn option(&mut self, what: &'static str) -> Result<Option<Bytes>, Malformed> {
        match self.u8(what)? {
            0 => Ok(None),
            1 => self.string(what).map(Some),
            _ => Err(self.malformed(what)),
        }
    }
}
