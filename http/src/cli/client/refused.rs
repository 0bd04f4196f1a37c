//! What to do about a body that a server did not take, or not for sure.

use super::{exit::Told, progress};
use crate::client::Error;

/// A body of so many bytes may be too large for a proxy: the smallest bound they have by default.
const LARGE_BYTES: u64 = 1 << 20;

/// The failure to append `what`, a body of so many bytes; `of_json` is advice about one that is no
/// JSON.
pub(super) fn explained(
    error: anyhow::Error,
    what: String,
    length: u64,
    of_json: Option<&str>,
) -> anyhow::Error {
    match of_json {
        _ if length >= LARGE_BYTES && is_lost(&error) => {
            error.context(Told { what, advice: too_large(length) })
        }
        Some(advice) if is_no_json(&error) => {
            error.context(Told { what, advice: advice.to_owned() })
        }
        _ => error.context(what),
    }
}

/// What to do with this text if it is no message of JSON.
pub(super) fn no_message(text: &[u8]) -> &'static str {
    match text.trim_ascii().contains(&b'\n') {
        true => "one message a line? use --ndjson",
        false => "a message is JSON: text stands in quotes, or in a stream of --type text",
    }
}

/// Whether a server refused a body as such.
fn is_no_json(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Refused { status: 400, .. }))
}

/// Whether the connection broke before there was an answer.
fn is_lost(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Unknown { .. } | Error::Unreachable { .. }))
}

/// Said of a large body with which a connection broke.
fn too_large(bytes: u64) -> String {
    format!(
        "it had {}: a proxy that takes no request of this size may hang up instead of saying so; \
         send less at a time, by --ndjson or --lines with a smaller --batch. The stream's end says \
         whether it was appended: `weir head`",
        progress::bytes(bytes)
    )
}
