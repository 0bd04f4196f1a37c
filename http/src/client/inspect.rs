//! What servers of our kind tell beyond the protocol: lists and details.

use hyper::Method;
use serde_json::Value;

use super::{
    call::Call,
    error::Error,
    names::with_query,
    stream::{Client, Stream},
};

/// Rows of a list asked for at a time.
const ROWS: &str = "1000";
/// Letters of a time.
const MADE_MAX: usize = 64;

impl Client {
    /// Names and fields of the streams whose names begin with `prefix`, after `after`; at most a
    /// thousand at a time.
    ///
    /// # Errors
    /// [`Error::Unsupported`]: the server has no lists.
    pub async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<Value>, Error> {
        let root = &self.caller.target.root;
        let path = match root.strip_suffix("/stream") {
            Some(base) => format!("{base}/streams"),
            None => root.clone(),
        };
        let mut query = vec![("limit", ROWS), ("prefix", prefix)];
        query.extend(after.map(|after| ("after", after)));
        let call = Call { path: with_query(&path, &query), ..self.stream("").get(&[]) };
        let unsupported = || Error::Unsupported {
            status: 404,
            message: "it does not list its streams".to_owned(),
        };
        match json(self, call, "the list").await {
            Ok(Value::Array(rows)) => Ok(rows),
            Ok(_) | Err(Error::NotFound { .. } | Error::Strange(_)) => Err(unsupported()),
            Err(error) => Err(error),
        }
    }

    /// What the server tells of itself.
    ///
    /// # Errors
    /// [`Error::Unsupported`]: it tells nothing.
    pub async fn details(&self) -> Result<Value, Error> {
        let root = &self.caller.target.root;
        let base = root.rsplit_once('/').map_or("", |(base, _)| base);
        let path = format!("{base}/server/_details");
        let call = Call { path, ..self.stream("").get(&[]) };
        told(json(self, call, "the server").await)
    }
}

/// What some servers tell of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// When it was made: another one of its name was made at another time.
    pub made: Option<String>,
    /// Bytes of its records.
    pub bytes: Option<u64>,
    /// Records it has had, those included that it has let go of.
    pub records: Option<u64>,
}

impl Stream {
    /// What tells it from others of its name, and how large it is, on servers that tell.
    ///
    /// # Errors
    /// The server can't be asked.
    pub async fn known(&self) -> Result<Known, Error> {
        let details = match self.details().await {
            Ok(details) => details,
            // What such a path is to other servers, they say in many ways.
            Err(error) if error.did_nothing() => return Ok(Known::default()),
            Err(Error::Busy { status: 500 | 501, .. }) => return Ok(Known::default()),
            Err(error) => return Err(error),
        };
        let text = |name: &str| details.get("stream")?.get(name)?.as_str();
        let number = |name: &str| text(name).and_then(|text| text.parse::<u64>().ok());
        let made = text("created_at").filter(|made| made.len() <= MADE_MAX).map(str::to_owned);
        let bytes = number("total_size_bytes");
        let trimmed = number("trimmed_bytes").unwrap_or(0);
        let bytes = bytes.map(|bytes| bytes.saturating_sub(trimmed));
        Ok(Known { made, bytes, records: number("next_offset") })
    }

    /// What the server tells of the stream.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Unsupported`]: the server tells nothing.
    pub async fn details(&self) -> Result<Value, Error> {
        let client = Client { caller: self.caller.clone() };
        let call = Call { path: format!("{}/_details", self.path), ..self.get(&[]) };
        match json(&client, call, &self.name).await {
            Err(Error::NotFound { what }) => {
                // Is it the stream or its details that are not there?
                self.head().await?;
                told(Err(Error::NotFound { what }))
            }
            answer => told(answer),
        }
    }
}

fn told(answer: Result<Value, Error>) -> Result<Value, Error> {
    match answer {
        Err(Error::NotFound { .. } | Error::Strange(_)) => {
            Err(Error::Unsupported { status: 404, message: "it tells no details".to_owned() })
        }
        answer => answer,
    }
}

/// An answer of JSON.
async fn json(client: &Client, call: Call, what: &str) -> Result<Value, Error> {
    debug_assert_eq!(call.method, Method::GET, "nothing is changed");
    let answer = client.caller.call(&call).await?;
    if answer.status.as_u16() != 200 {
        return Err(answer.into_error(what).await);
    }
    let read = answer.read().await.map_err(|error| Error::Strange(error.to_string()))?;
    serde_json::from_slice(&read.1).map_err(|_| Error::Strange("no JSON".to_owned()))
}
