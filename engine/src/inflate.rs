//! Decompression of stored blocks, of segments and of ledgers.
//!
//! Making a zstd context costs more than decompressing a small block with it: each thread keeps
//! one, of about 160 KB.

use std::cell::RefCell;

use bytes::Bytes;
use zstd::bulk::Decompressor;

thread_local! {
    static CONTEXT: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// The `raw_len` bytes that `body` holds compressed; `None` if it does not hold them, or if there
/// is no memory for them: the length comes from the block and is not trusted.
pub(crate) fn inflate(body: &[u8], raw_len: usize) -> Option<Bytes> {
    let mut raw = Vec::new();
    raw.try_reserve_exact(raw_len).ok()?;
    CONTEXT.with_borrow_mut(|context| {
        if context.is_none() {
            *context = Some(Decompressor::new().ok()?);
        }
        context.as_mut()?.decompress_to_buffer(body, &mut raw).ok()
    })?;
    Some(raw.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_block_leaves_nothing_behind_for_the_next() {
        let raw = b"ten of ten of ten of ten of ten".repeat(20);
        let good = zstd::bulk::compress(&raw, 3).expect("compressible");
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 0x55;
        bad.truncate(good.len() - 2);
        assert_eq!(inflate(&bad, raw.len()), None);
        assert_eq!(inflate(&good, raw.len()).as_deref(), Some(raw.as_slice()));
        assert_eq!(inflate(&good, raw.len() - 1), None, "there is more than was said");
        assert_eq!(inflate(&good, raw.len()).as_deref(), Some(raw.as_slice()));
    }
}
