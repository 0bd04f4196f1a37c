//! The decision table of idempotent producers (protocol §6.2).

use crate::{request::Rejection, state::stream::Producer, types::ProducerTuple};

/// What a producer's tuple means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is this request's turn.
    Accept,
    /// The request was accepted before.
    Duplicate,
}

/// Compares a tuple with what is known of its producer.
pub(super) fn decide(known: Option<&Producer>, tuple: &ProducerTuple) -> Result<Turn, Rejection> {
    let Some(known) = known else {
        return first_contact(tuple);
    };
    if tuple.epoch < known.epoch {
        return Err(Rejection::StaleEpoch { current: known.epoch });
    }
    if tuple.epoch > known.epoch {
        return if tuple.seq == 0 { Ok(Turn::Accept) } else { Err(Rejection::EpochStart) };
    }
    if tuple.seq <= known.seq {
        return Ok(Turn::Duplicate);
    }
    let expected = known.seq + 1;
    if tuple.seq == expected {
        return Ok(Turn::Accept);
    }
    Err(Rejection::ProducerGap { expected, received: tuple.seq })
}

fn first_contact(tuple: &ProducerTuple) -> Result<Turn, Rejection> {
    match tuple.seq {
        0 => Ok(Turn::Accept),
        received => Err(Rejection::ProducerGap { expected: 0, received }),
    }
}
