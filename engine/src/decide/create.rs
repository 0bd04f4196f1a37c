//! Creating a stream that may be there already (protocol §4.2).

use super::{Now, Verdict, expiry};
use crate::{
    log::entry,
    request::{Create, CreateOutcome, Prepared, Rejection},
    state::stream::{Identity, StreamState},
    types::{Closing, Epoch, Expiry, Records, Seq, StreamId},
};

/// The entries of a new stream: its creation, then its first write if it has one.
#[derive(Debug)]
pub(crate) struct Birth {
    pub(crate) create: entry::Create,
    pub(crate) write: Option<entry::Write>,
}

/// Decides a creation where a live stream has the name.
pub(crate) fn over_existing(
    identity: &Identity,
    state: &StreamState,
    create: &Create,
) -> Result<CreateOutcome, Rejection> {
    let same = identity.content.matches(&create.content())
        && identity.expiry == create.expiry.unwrap_or(Expiry::Never)
        && state.closed.is_some() == (create.closing == Closing::Close);
    if same { Ok(CreateOutcome::Existing) } else { Err(Rejection::ConfigurationDiffers) }
}

/// Decides a creation where no stream has the name.
pub(crate) fn over_nothing(
    stream: StreamId,
    epoch: Epoch,
    create: &Create,
    prepared: Prepared,
    now: Now,
) -> Result<Verdict<CreateOutcome, Birth>, Rejection> {
    let records = prepared?;
    let born = entry::Create {
        stream,
        name: create.name.clone(),
        content: create.content(),
        expiry: create.expiry.unwrap_or(Expiry::Never),
        epoch,
        created: now.wall,
        deadline: expiry::deadline(create.expiry.unwrap_or(Expiry::Never), now.store),
    };
    let write = first_write(stream, create, records, now);
    let birth = Birth { create: born, write };
    Ok(Verdict { answer: CreateOutcome::New, change: Some(birth) })
}

fn first_write(
    stream: StreamId,
    create: &Create,
    records: Option<Records>,
    now: Now,
) -> Option<entry::Write> {
    let closes = create.closing == Closing::Close;
    if records.is_none() && !closes {
        return None;
    }
    Some(entry::Write {
        stream,
        first: Seq::ZERO,
        records,
        timestamp: now.wall,
        key: create.key.clone(),
        closes,
        producer: None,
        introduces: false,
        stream_seq: None,
        deadline: match create.expiry.unwrap_or(Expiry::Never) {
            Expiry::Sliding { .. } => {
                expiry::deadline(create.expiry.unwrap_or(Expiry::Never), now.store)
            }
            Expiry::Never | Expiry::At(_) => None,
        },
    })
}
