//! Single steps of this crate for `benches/` and the simulator, which see only what is public. For
//! nothing else: this changes with what it measures.

use bytes::Bytes;
use serde_json::Value;
use weir_engine::{inspect::Details, types::Form};

use crate::{
    handle::inspect,
    wire::sse::{Standing, control_event, data_event, incomplete_tail},
};

/// What `GET …/_details` and `GET …/_index_status` answer, but for what belongs to the process.
#[must_use]
pub fn answers(details: &Details) -> [Value; 2] {
    inspect::answers(details)
}

/// The events of one batch as a reader at the tail gets them. Returns their length.
#[must_use]
pub fn events(form: Form, pieces: &[Bytes], next_offset: &str) -> usize {
    let withheld = match form {
        Form::Text => incomplete_tail(&[], pieces),
        Form::Json | Form::Binary => 0,
    };
    let data = data_event(form, &[], pieces, withheld);
    data.len() + control_event(next_offset, 1, Standing::UpToDate).len()
}
