//! From a body to records: an empty body is none, JSON is split into its messages, anything
//! else is one record as it came.

use bytes::Bytes;

use super::json;
use crate::{
    request::{Prepared, Rejection},
    types::{ContentType, Form, Records},
};

/// The records of a body, sharing its memory wherever they can. `Ok(None)` means that there
/// is none: an empty body or, in JSON, an empty array. A creation takes that as it is; an
/// append turns it into [`rejection_of_nothing`] unless it closes the stream.
pub(crate) fn prepare(content: &ContentType, body: &Bytes) -> Prepared {
    if body.is_empty() {
        return Ok(None);
    }
    match content.form() {
        Form::Json => json::split(body),
        Form::Text | Form::Binary => Ok(Some(Records::one(body.clone()))),
    }
}

/// Why an append may not carry a body in which [`prepare`] found no record. Bytes without
/// a record can only be an empty JSON array.
pub(crate) const fn rejection_of_nothing(body: &Bytes) -> Rejection {
    if body.is_empty() { Rejection::EmptyBody } else { Rejection::EmptyArray }
}
