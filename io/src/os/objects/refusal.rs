//! What a cloud's answer means: missing, refused or worth another try.
//!
//! The HTTP client hands every answer that is not a success over as a [`Refusal`], which
//! travels through the library's errors as their innermost source and is found again here.
//! So the library's own reading of it never counts, and no URL, which may carry a signature,
//! ever gets into a reason.

use std::error::Error;

use object_store::client::HttpError;

use crate::objects::ObjectError;

/// Characters of a cloud's message that are kept.
const MESSAGE_CHARS_MAX: usize = 200;

/// An answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status} {code} {message}")]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// The cloud's word for it, or nothing: answers to HEAD have no body.
    pub(super) code: String,
    pub(super) message: String,
}

impl Refusal {
    /// Reads an answer. `header` is Azure's code, the body is XML or, from Google, JSON.
    pub(super) fn read(status: u16, header: Option<&str>, body: &[u8]) -> Refusal {
        let body = String::from_utf8_lossy(body);
        let code = header.or_else(|| between(&body, "<Code>", "</Code>")).unwrap_or("");
        let message = between(&body, "<Message>", "</Message>")
            .or_else(|| between(&body, "\"message\": \"", "\""))
            .unwrap_or("");
        Refusal { status, code: short(code), message: short(message) }
    }

    /// A request that this side refuses to make.
    pub(super) fn plain(reason: &str) -> Refusal {
        Refusal { status: 0, code: String::new(), message: reason.to_owned() }
    }

    /// Whether exactly this object is missing. A bucket that is missing has another code, and
    /// an answer without one leaves it open.
    pub(super) fn is_missing(&self) -> bool {
        self.status == 404 && matches!(&*self.code, "NoSuchKey" | "BlobNotFound")
    }

    /// Whether an object or a bucket is missing and nothing says which.
    pub(super) fn may_be_missing(&self) -> bool {
        self.status == 404 && self.code.is_empty()
    }

    /// Whether a condition did not hold: the key is taken.
    pub(super) fn is_taken(&self) -> bool {
        matches!(self.status, 304 | 412)
            || (self.status == 409 && matches!(&*self.code, "BlobAlreadyExists"))
    }

    /// Whether the service does not know what was asked of it.
    pub(super) const fn is_not_implemented(&self) -> bool {
        self.status == 501
    }

    fn is_transient(&self) -> bool {
        const CODES: [&str; 8] = [
            "RequestTimeout",
            "SlowDown",
            "InternalError",
            "ServerBusy",
            "OperationTimedOut",
            // New credentials are fetched for the next attempt.
            "ExpiredToken",
            // Somebody creates or deletes the same key right now.
            "ConditionalRequestConflict",
            "OperationAborted",
        ];
        match self.status {
            408 | 429 => true,
            // Not implemented, and a full store: the same the next time.
            501 | 507 => false,
            500.. => true,
            _ => CODES.contains(&&*self.code),
        }
    }
}

/// The answer inside an error of the library, if there was one.
pub(super) fn refusal(error: &object_store::Error) -> Option<&Refusal> {
    chain(error).find_map(|inner| inner.downcast_ref())
}

/// What an error of the library means where the key's absence would not explain it.
pub(super) fn classify(error: &object_store::Error) -> ObjectError {
    if let Some(refusal) = refusal(error) {
        let reason = refusal.to_string().trim_end().to_owned();
        return if refusal.is_missing() {
            ObjectError::NotFound
        } else if refusal.is_transient() {
            ObjectError::Transient(reason)
        } else {
            ObjectError::Refused(reason)
        };
    }
    use object_store::Error as E;
    match error {
        E::NotImplemented { .. }
        | E::NotSupported { .. }
        | E::InvalidPath { .. }
        | E::UnknownConfigurationKey { .. } => ObjectError::Refused(reason(error)),
        _ => ObjectError::Transient(reason(error)),
    }
}

/// The innermost causes of an error: those further out name the URL.
pub(super) fn reason(error: &object_store::Error) -> String {
    let transport = chain(error).find_map(|inner| inner.downcast_ref::<HttpError>());
    let cause = match transport {
        Some(transport) => transport.source().map(innermost),
        None => Some(innermost(error)),
    };
    short(&cause.map_or_else(|| "the connection failed".to_owned(), ToString::to_string))
}

fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    chain(error).last().unwrap_or(error)
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        let error: &'a (dyn Error + 'static) = *error;
        error.source()
    })
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    Some(rest.split_once(end)?.0)
}

fn short(text: &str) -> String {
    text.chars().filter(|it| !it.is_control()).take(MESSAGE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use object_store::client::{HttpError, HttpErrorKind};

    use super::{Refusal, classify, reason};
    use crate::objects::ObjectError;

    fn read(status: u16, body: &str) -> Refusal {
        Refusal::read(status, None, body.as_bytes())
    }

    fn wrapped(refusal: Refusal) -> object_store::Error {
        let source = HttpError::new(HttpErrorKind::Unknown, refusal);
        object_store::Error::Generic { store: "S3", source: Box::new(source) }
    }

    #[test]
    fn an_answer_is_read_from_xml_json_and_headers() {
        let xml = "<Error><Code>NoSuchKey</Code><Message>The key\nis not there</Message></Error>";
        let found = read(404, xml);
        assert_eq!((&*found.code, &*found.message), ("NoSuchKey", "The keyis not there"));
        let json = "{\"error\": {\"code\": 403, \"message\": \"no rights\"}}";
        assert_eq!(read(403, json).message, "no rights");
        let azure = Refusal::read(404, Some("BlobNotFound"), b"");
        assert!(azure.is_missing());
        assert_eq!(read(500, "<Code>unended").code, "");
    }

    #[test]
    fn only_a_missing_object_is_missing_and_only_the_hopeful_is_tried_again() {
        let code =
            |status, code: &str| classify(&wrapped(read(status, &format!("<Code>{code}</Code>"))));
        assert_eq!(code(404, "NoSuchKey"), ObjectError::NotFound);
        for (status, word) in [
            (404, "NoSuchBucket"),
            (404, "ContainerNotFound"),
            (404, ""),
            (403, "AccessDenied"),
            (400, "InvalidRequest"),
            (301, "PermanentRedirect"),
            (416, "InvalidRange"),
            (501, "NotImplemented"),
            (507, "InsufficientStorage"),
            (401, ""),
        ] {
            assert!(matches!(code(status, word), ObjectError::Refused(_)), "{status} {word}");
        }
        for (status, word) in [
            (500, ""),
            (503, "SlowDown"),
            (502, ""),
            (429, ""),
            (408, ""),
            (400, "RequestTimeout"),
            (400, "ExpiredToken"),
            (409, "ConditionalRequestConflict"),
        ] {
            assert!(matches!(code(status, word), ObjectError::Transient(_)), "{status} {word}");
        }
    }

    #[test]
    fn a_reason_names_the_cause_and_no_url() {
        let broken = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "reset by peer");
        let source = HttpError::new(HttpErrorKind::Interrupted, broken);
        let source = object_store::Error::Generic { store: "Azure", source: Box::new(source) };
        let path = "https://host/key?sig=secret".to_owned();
        let error = object_store::Error::NotFound { path, source: Box::new(source) };
        assert_eq!(reason(&error), "reset by peer");
        assert_eq!(classify(&error), ObjectError::Transient("reset by peer".into()));
    }
}
