//! Content types: kept as the client wrote them, compared by media type alone.

use std::sync::Arc;

use crate::limits;

/// How the engine treats a stream's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `application/json`: records are JSON messages.
    Json,
    /// `text/*`: bytes that readers see as UTF-8.
    Text,
    /// Everything else.
    Binary,
}

/// A content type, verbatim, with its form.
#[derive(Clone, Debug)]
pub struct ContentType {
    text: Arc<str>,
    form: Form,
}

impl ContentType {
    /// What a stream gets whose creator names none.
    pub const DEFAULT: &str = "application/octet-stream";

    /// Takes a header value. `None` if it is not of the shape `type/subtype[;…]`, holds
    /// anything but visible ASCII and spaces, or is longer than the limit.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let shaped = essence(text)
            .split_once('/')
            .is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
        let plain = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        if !shaped || !plain || text.len() > limits::CONTENT_TYPE_BYTES_MAX {
            return None;
        }
        Some(Self { form: form_of(essence(text)), text: text.into() })
    }

    /// The default type.
    #[must_use]
    pub fn octet_stream() -> Self {
        Self { text: Self::DEFAULT.into(), form: Form::Binary }
    }

    /// The type as its creator wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How its bytes are treated.
    #[must_use]
    pub const fn form(&self) -> Form {
        self.form
    }

    /// Whether both name the same media type; case and parameters do not count
    /// (protocol §4.2).
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        essence(&self.text).eq_ignore_ascii_case(essence(&other.text))
    }
}

fn essence(text: &str) -> &str {
    text.split(';').next().unwrap_or_default().trim_end()
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn form_of(essence: &str) -> Form {
    if essence.eq_ignore_ascii_case("application/json") {
        Form::Json
    } else if essence.get(..5).is_some_and(|head| head.eq_ignore_ascii_case("text/")) {
        Form::Text
    } else {
        Form::Binary
    }
}
