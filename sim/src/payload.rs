//! Records that name themselves: any page, of any form, can be taken apart again and each record
//! traced to the request that sent it.

use weir_engine::types::Form;

/// The bytes of record `index` of request `request`.
#[must_use]
pub fn record(form: Form, request: usize, index: usize, fill: usize) -> Vec<u8> {
    let filler = "abcdefghij".repeat(fill / 10 + 1);
    let filler = &filler[..fill];
    match form {
        Form::Json => format!("{{\"r\":\"#{request}.{index}#{filler}\"}}").into_bytes(),
        Form::Text | Form::Binary => format!("#{request}.{index}#{filler}\n").into_bytes(),
    }
}

/// A request's body of these records.
#[must_use]
pub fn body(form: Form, records: &[Vec<u8>]) -> Vec<u8> {
    match form {
        Form::Json => {
            let mut body = b"[".to_vec();
            body.extend(records.join(&b", "[..]));
            body.push(b']');
            body
        }
        Form::Text | Form::Binary => records.concat(),
    }
}

/// Which record the bytes begin with.
#[must_use]
pub fn mark(bytes: &[u8]) -> Option<(usize, usize)> {
    let start = bytes.iter().take(8).position(|byte| *byte == b'#')? + 1;
    let len = bytes[start..].iter().take(24).position(|byte| *byte == b'#')?;
    let text = std::str::from_utf8(&bytes[start..start + len]).ok()?;
    let (request, index) = text.split_once('.')?;
    Some((request.parse().ok()?, index.parse().ok()?))
}
