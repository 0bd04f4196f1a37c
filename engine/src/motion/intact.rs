//! Files of segments that only this disk has: is each, from its first byte to its last, what was
//! written? What an open segment remembers of its file tells nothing about the file: whoever finds it
//! again, here at a start or in the bucket after a recovery, has the bytes alone.
//!
//! Where the blocks are whole and something beside them is not, the segment that is open knows what
//! should be there, and the file is written anew.

use std::{io, sync::Arc};

use weir_io::File;

use super::seal::Failed;
use crate::{
    core::{Core, segment_path},
    rack::Rack,
    segment::{CopyError, Damaged, ReadError, Section, Segment},
};

/// Opens a file of the segment as a stranger does and reads it through: is it the one that is open?
pub(super) fn verify(open: &Segment, file: Arc<dyn File>) -> Result<(), ReadError> {
    let found = Segment::open(file)?;
    if !open.is(&found) {
        let reason = "it is another segment";
        return Err(Damaged { section: Section::Footer, at: 0, reason }.into());
    }
    found.read_through()
}

/// Looks at the file of a segment, and writes it anew if it is not what was written and can be.
///
/// # Errors
/// What is wrong with the file, or why it can't be written anew.
pub(super) async fn make(core: &Arc<Core>, segment: &Arc<Segment>) -> Result<(), Failed> {
    let (shared, open) = (Arc::clone(core), Arc::clone(segment));
    let look = move || -> Result<(), Failed> {
        let file = shared.rack.open(open.id())?;
        Ok(verify(&open, file)?)
    };
    match weir_io::tasks::run(&*core.world.blocking, look).await? {
        Err(error) if is_beside_the_blocks(&error) => mend(core, segment, error).await,
        looked => looked,
    }
}

/// Whether nothing is known to be wrong with any block.
pub(super) fn is_beside_the_blocks(error: &Failed) -> bool {
    match error {
        Failed::Io(_) => true,
        Failed::Read(ReadError::Damaged(bad)) => is_no_block(bad.section),
        Failed::Read(ReadError::Failed { section, .. }) => is_no_block(*section),
        _ => false,
    }
}

const fn is_no_block(section: Section) -> bool {
    !matches!(section, Section::Block(_) | Section::Content(_))
}

/// Writes the file of a segment anew that only this disk has.
pub(super) async fn mend(
    core: &Arc<Core>,
    segment: &Arc<Segment>,
    error: Failed,
) -> Result<(), Failed> {
    let Rack::Files(_) = &core.rack else { return Err(error) };
    // A file that a merge removes must not come back by a rename.
    let _turn = core.sealing.lock().await;
    if core.files.lock().segment(segment.id()).is_none() {
        return Ok(());
    }
    let (shared, open) = (Arc::clone(core), Arc::clone(segment));
    let write = move || -> Result<(), Failed> {
        // A disk that does not give the blocks is not written to in vain.
        open.read_through()?;
        let path = segment_path(&shared.config, open.id());
        open.write_anew(&*shared.world.disk, &path).map_err(|error| match error {
            CopyError::Read(error) => Failed::Read(error),
            CopyError::Write(error) => Failed::Io(error),
            CopyError::Another => Failed::Io(io::Error::other(error)),
        })?;
        Ok(shared.rack.sync()?)
    };
    weir_io::tasks::run(&*core.world.blocking, write).await??;
    weir_io::sometimes!("a segment was written anew that was damaged beside its blocks");
    tracing::warn!(
        segment = %segment.id(), %error,
        "a segment was damaged beside its blocks and was written anew"
    );
    Ok(())
}
