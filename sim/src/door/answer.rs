//! HTTP answers as the engine's answers: what a client may conclude from them, and no more.

use bytes::Bytes;
use hyper::{StatusCode, header::HeaderMap, http::response::Parts};
use weir_engine::{
    request::{
        Append, AppendOutcome, Appended, Create, CreateOutcome, Created, Error, From, Head,
        ListRow, Page, Read, Rejection,
    },
    types::{ContentType, Epoch, Expiry, Form, Offset, Retention, Seq, StreamName, WallMs},
};

use super::retention;

/// An answer that arrived whole.
#[derive(Debug)]
pub struct Reply {
    pub parts: Parts,
    pub body: Bytes,
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name)?.parse().ok()
}

pub(super) fn offset(headers: &HeaderMap, name: &str) -> Option<Offset> {
    Offset::parse(text(headers, name)?).ok()
}

fn is_true(headers: &HeaderMap, name: &str) -> bool {
    text(headers, name) == Some("true")
}

/// A header that every answer of this kind must carry.
fn needed<T>(found: Option<T>, what: &str, reply: &Reply) -> Result<T, Error> {
    found.ok_or_else(|| strange(reply, &format!("without {what}")))
}

/// An answer that this server must never give.
pub(super) fn strange(reply: &Reply, why: &str) -> Error {
    let body = String::from_utf8_lossy(&reply.body[..reply.body.len().min(200)]).into_owned();
    Error::Corrupt(format!("answer {} {why}: {body}", reply.parts.status))
}

fn expiry(headers: &HeaderMap) -> Expiry {
    if let Some(ttl_seconds) = number(headers, "stream-ttl") {
        return Expiry::Sliding { ttl_seconds };
    }
    let at = text(headers, "stream-expires-at");
    let at = at.and_then(|at| at.parse::<jiff::Timestamp>().ok());
    let at = at.and_then(|at| u64::try_from(at.as_millisecond()).ok());
    at.map_or(Expiry::Never, |at| Expiry::At(WallMs::new(at)))
}

fn content(headers: &HeaderMap) -> Option<ContentType> {
    ContentType::parse(text(headers, "content-type")?)
}

/// To `PUT`.
///
/// # Errors
/// What the server refused, or that it failed.
pub fn created(create: &Create, reply: &Reply) -> Result<Created, Error> {
    let outcome = match reply.parts.status {
        StatusCode::CREATED => CreateOutcome::New,
        StatusCode::OK => CreateOutcome::Existing,
        _ => return Err(refused(&create.name, reply)),
    };
    let headers = &reply.parts.headers;
    let head = head_of(&create.name, reply)?;
    // A creation's answer does not name the window, and neither limits nor where the stream begins;
    // the limits are those that were asked for.
    let expiry = match (create.expiry, expiry(headers)) {
        (Some(asked), _) => asked,
        (None, shown) => shown,
    };
    Ok(Created { outcome, head: Head { expiry, retention: create.retention, ..head } })
}

fn head_of(name: &StreamName, reply: &Reply) -> Result<Head, Error> {
    let headers = &reply.parts.headers;
    Ok(Head {
        name: name.clone(),
        content: needed(content(headers), "content-type", reply)?,
        expiry: expiry(headers),
        next: needed(offset(headers, "stream-next-offset"), "stream-next-offset", reply)?,
        retention: needed(retention::shown(headers), "limits that can be read", reply)?,
        earliest: offset(headers, "stream-earliest-offset").unwrap_or(Offset::START),
        closed: is_true(headers, "stream-closed"),
        created: WallMs::ZERO,
        last_append: WallMs::ZERO,
    })
}

/// To `HEAD`.
///
/// # Errors
/// As [`created`].
pub fn head(name: &StreamName, reply: &Reply) -> Result<Head, Error> {
    match reply.parts.status {
        StatusCode::OK => {
            let begins = offset(&reply.parts.headers, "stream-earliest-offset");
            needed(begins, "stream-earliest-offset", reply)?;
            head_of(name, reply)
        }
        StatusCode::NOT_FOUND => Err(Rejection::NotFound.into()),
        StatusCode::GONE => Err(Rejection::Gone.into()),
        // Such an answer has no body that would say more.
        StatusCode::INTERNAL_SERVER_ERROR => Err(Error::ReadFailed("as the server says".into())),
        StatusCode::SERVICE_UNAVAILABLE => Err(Error::Draining),
        _ => Err(refused(name, reply)),
    }
}

/// To `DELETE`.
///
/// # Errors
/// As [`created`].
pub fn deleted(name: &StreamName, reply: &Reply) -> Result<(), Error> {
    match reply.parts.status {
        StatusCode::NO_CONTENT => Ok(()),
        _ => Err(refused(name, reply)),
    }
}

/// To `GET` of the list.
///
/// # Errors
/// As [`created`].
pub fn listed(reply: &Reply) -> Result<Vec<ListRow>, Error> {
    if reply.parts.status != StatusCode::OK {
        let none = StreamName::new("list").expect("a good name");
        return Err(refused(&none, reply));
    }
    let rows: Option<Vec<serde_json::Value>> = serde_json::from_slice(&reply.body).ok();
    let rows = needed(rows, "a list", reply)?;
    let rows: Option<Vec<ListRow>> = rows.iter().map(row).collect();
    needed(rows, "rows of a list", reply)
}

fn row(row: &serde_json::Value) -> Option<ListRow> {
    let epoch = u32::try_from(row["epoch"].as_u64()?).ok()?;
    let at = |next| Offset { epoch: Epoch::new(epoch), next: Seq::new(next) };
    let last = |field: &str| row[field].as_str()?.parse::<i64>().ok();
    let (sealed, uploaded) = (last("sealed_through")?, last("uploaded_through")?);
    Some(ListRow {
        head: Head {
            name: StreamName::new(row["name"].as_str()?).ok()?,
            content: ContentType::octet_stream(),
            expiry: Expiry::Never,
            retention: Retention::NONE,
            earliest: at(0),
            next: at(row["next_offset"].as_str()?.parse().ok()?),
            closed: false,
            created: WallMs::ZERO,
            last_append: WallMs::ZERO,
        },
        expires_at: None,
        sealed_through: at(u64::try_from(sealed + 1).ok()?),
        uploaded_through: at(u64::try_from(uploaded + 1).ok()?),
    })
}

/// To `POST`.
///
/// # Errors
/// As [`created`].
pub fn appended(append: &Append, reply: &Reply) -> Result<Appended, Error> {
    let headers = &reply.parts.headers;
    let outcome = match reply.parts.status {
        StatusCode::OK => AppendOutcome::Written,
        // Without a producer every body is written; with one, 204 means that it was before.
        StatusCode::NO_CONTENT if append.body.is_empty() => AppendOutcome::Closed,
        StatusCode::NO_CONTENT if append.producer.is_none() => AppendOutcome::Written,
        StatusCode::NO_CONTENT => AppendOutcome::Duplicate,
        _ => return Err(refused(&append.name, reply)),
    };
    let producer = number(headers, "producer-epoch").zip(number(headers, "producer-seq"));
    Ok(Appended {
        outcome,
        next: needed(offset(headers, "stream-next-offset"), "stream-next-offset", reply)?,
        closed: is_true(headers, "stream-closed"),
        producer,
    })
}

/// To `GET`.
///
/// # Errors
/// As [`created`].
pub fn page(read: &Read, reply: &Reply) -> Result<Page, Error> {
    let status = reply.parts.status;
    if status != StatusCode::OK && status != StatusCode::NO_CONTENT {
        return Err(refused(&read.name, reply));
    }
    let headers = &reply.parts.headers;
    let next = needed(offset(headers, "stream-next-offset"), "stream-next-offset", reply)?;
    let tail = offset(headers, "stream-end-offset").unwrap_or(next);
    let up_to_date = is_true(headers, "stream-up-to-date");
    let content = match content(headers) {
        Some(content) => content,
        None if status == StatusCode::NO_CONTENT => ContentType::octet_stream(),
        None => return Err(strange(reply, "without content-type")),
    };
    let form = content.form();
    let body = match form {
        Form::Json if !reply.body.is_empty() => {
            let inner = reply.body.strip_prefix(b"[").and_then(|it| it.strip_suffix(b"]"));
            reply.body.slice_ref(needed(inner, "an array", reply)?)
        }
        _ => reply.body.clone(),
    };
    let start = match read.from {
        // By key nobody can tell what was passed over.
        From::Start if read.key.is_some() => Some(0),
        From::At(offset) => Some(offset.next.get()),
        From::Now => Some(next.next.get()),
        From::Start | From::Since(_) => None,
    };
    let counted = count(form, &body);
    let records = match (start, &read.key) {
        (Some(start), None) => next.next.get().saturating_sub(start),
        _ => counted,
    };
    let start = start.unwrap_or(next.next.get().saturating_sub(counted));
    Ok(Page {
        content,
        expiry: expiry(headers),
        retention: Retention::NONE,
        start: Offset { next: Seq::new(start), ..next },
        next,
        tail,
        up_to_date,
        closed: is_true(headers, "stream-closed"),
        beyond_tail: !up_to_date && body.is_empty() && next > tail,
        bytes: body.len(),
        pieces: if body.is_empty() { vec![] } else { vec![body] },
        records,
        incarnation: 0,
    })
}

/// How many records of the simulator these bytes are.
#[must_use]
pub fn count(form: Form, body: &[u8]) -> u64 {
    let count = match form {
        Form::Json => body.windows(6).filter(|it| *it == b"{\"r\":\"").count(),
        Form::Text | Form::Binary => body.iter().filter(|byte| **byte == b'\n').count(),
    };
    u64::try_from(count).expect("usize fits u64")
}

/// What a refusal says.
#[must_use]
pub fn refused(name: &StreamName, reply: &Reply) -> Error {
    let headers = &reply.parts.headers;
    let message = message(&reply.body);
    let tail = offset(headers, "stream-next-offset");
    let says = |what: &Rejection| message == what.to_string();
    let rejection = match reply.parts.status {
        StatusCode::NOT_FOUND if message.starts_with("source") => {
            Rejection::SourceNotFound(name.clone())
        }
        StatusCode::NOT_FOUND => Rejection::NotFound,
        StatusCode::GONE => match tail {
            Some(next) if message.contains("no longer keeps") => Rejection::OffsetTrimmed { next },
            Some(next) => Rejection::OffsetLost { next },
            None => Rejection::Gone,
        },
        StatusCode::FORBIDDEN => match number(headers, "producer-epoch") {
            Some(current) => Rejection::StaleEpoch { current },
            None => return strange(reply, "of no meaning"),
        },
        StatusCode::CONFLICT => return conflict(name, reply, &message, tail),
        StatusCode::BAD_REQUEST if says(&Rejection::EpochStart) => Rejection::EpochStart,
        StatusCode::BAD_REQUEST if says(&Rejection::ForkDepth) => Rejection::ForkDepth,
        StatusCode::BAD_REQUEST if says(&Rejection::EmptyBody) => Rejection::EmptyBody,
        StatusCode::BAD_REQUEST if says(&Rejection::EmptyArray) => Rejection::EmptyArray,
        StatusCode::BAD_REQUEST if says(&Rejection::ContentTypeMissing) => {
            Rejection::ContentTypeMissing
        }
        StatusCode::BAD_REQUEST if message.starts_with("invalid JSON") => {
            Rejection::InvalidJson { reason: "as the server says", at: 0 }
        }
        StatusCode::BAD_REQUEST if message.starts_with("fork point") => {
            Rejection::ForkPoint("as the server says")
        }
        StatusCode::TOO_MANY_REQUESTS => return Error::Busy,
        StatusCode::INSUFFICIENT_STORAGE => return Error::DiskFull,
        StatusCode::SERVICE_UNAVAILABLE if message.starts_with("outcome unknown") => {
            return Error::Unknown;
        }
        StatusCode::SERVICE_UNAVAILABLE if message.starts_with("the log failed") => {
            return Error::LogFailed;
        }
        StatusCode::SERVICE_UNAVAILABLE if message.starts_with("another server has taken") => {
            return Error::Overtaken;
        }
        StatusCode::SERVICE_UNAVAILABLE if message.starts_with("the object store does not") => {
            return Error::Away(message);
        }
        StatusCode::SERVICE_UNAVAILABLE => return Error::Draining,
        StatusCode::INTERNAL_SERVER_ERROR if message == "read failed" => {
            return Error::ReadFailed(message);
        }
        _ => return strange(reply, "of no meaning"),
    };
    rejection.into()
}

fn conflict(name: &StreamName, reply: &Reply, message: &str, tail: Option<Offset>) -> Error {
    let headers = &reply.parts.headers;
    let gap =
        number(headers, "producer-expected-seq").zip(number(headers, "producer-received-seq"));
    let rejection = match (tail, gap) {
        (_, Some((expected, received))) => Rejection::ProducerGap { expected, received },
        (Some(tail), _) if is_true(headers, "stream-closed") => Rejection::Closed { tail },
        (Some(tail), _) if message.starts_with("sequence conflict") => {
            let last = headers.get("stream-expected-seq");
            let last = last.map_or(Bytes::new(), |it| Bytes::copy_from_slice(it.as_bytes()));
            Rejection::StreamSeq { last, tail }
        }
        (Some(tail), _) => Rejection::ExpectedOffset { tail },
        _ if message == "stream config mismatch" => Rejection::ConfigurationDiffers,
        _ if message == "content-type mismatch" => Rejection::ContentTypeDiffers,
        _ if message == Rejection::NameKept.to_string() => Rejection::NameKept,
        _ if message.starts_with("source") => Rejection::SourceGone(name.clone()),
        _ => return strange(reply, "of no meaning"),
    };
    rejection.into()
}

fn message(body: &[u8]) -> String {
    let value: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = value.as_ref().and_then(|it| it["error"]["message"].as_str());
    message.unwrap_or_default().to_owned()
}
