//! Bytes in memory as a file that nobody writes.

use std::io;

use bytes::Bytes;
use weir_io::File;

/// A whole file, or an object, that is here already.
#[derive(Default)]
pub(crate) struct InMemory(pub(crate) Bytes);

impl File for InMemory {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let range = start..start.saturating_add(buffer.len());
        let found = self.0.get(range).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(found);
        Ok(())
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(u64::try_from(self.0.len()).expect("usize fits u64"))
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocated(&self) -> io::Result<u64> {
        self.len()
    }
}
