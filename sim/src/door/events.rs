//! A reader of server-sent events (WHATWG HTML, section 9.2): only what this server sends, taken
//! strictly.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::{Response, body::Incoming};
use tokio::time::timeout;
use weir_engine::types::Offset;

use super::outside::Sender;

/// Silence after which a reader takes its connection for dead: three keep-alives.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What one control event closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The data events before it, as records in wire form: in JSON mode without the brackets.
    pub data: Vec<Bytes>,
    /// Where it ends.
    pub next: Offset,
    pub up_to_date: bool,
    pub closed: bool,
}

/// Why there is no batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Over {
    /// The server ended the answer.
    Ended,
    /// The connection broke or fell silent.
    Lost,
    /// The server sent what it must never send.
    Strange(String),
}

/// An answer that goes on.
pub struct Events {
    // Dropping it would end the connection.
    _sender: Sender,
    body: Incoming,
    base64: bool,
    json: bool,
    start: Option<Offset>,
    end: Option<Offset>,
    buffer: BytesMut,
}

impl Events {
    pub(super) fn new(sender: Sender, response: Response<Incoming>) -> Self {
        let header = |name: &str| response.headers().get(name).map(|it| it.as_bytes().to_vec());
        let base64 = header("stream-sse-data-encoding").as_deref() == Some(b"base64");
        let offset = |name| Offset::parse(&String::from_utf8(header(name)?).ok()?).ok();
        let (start, end) = (offset("stream-next-offset"), offset("stream-end-offset"));
        let body = response.into_body();
        Self { _sender: sender, body, base64, json: false, start, end, buffer: BytesMut::new() }
    }

    /// Where the events begin, and the tail as the answer began: its epoch is the life of the stream
    /// that is followed. The events of a fork may be of epochs that it inherited.
    #[must_use]
    pub fn told(&self) -> Option<(Offset, Offset)> {
        self.start.zip(self.end)
    }

    /// Events of a JSON stream are arrays.
    pub fn of_json(&mut self) {
        self.json = true;
    }

    /// The next batch.
    ///
    /// # Errors
    /// [`Over`] says why there is none.
    pub async fn next(&mut self) -> Result<Batch, Over> {
        let mut data = Vec::new();
        loop {
            let event = self.event().await?;
            let (kind, text) = event;
            match kind.as_str() {
                "data" => data.push(self.payload(&text)?),
                "control" => {
                    let control: serde_json::Value = serde_json::from_str(&text)
                        .map_err(|_| Over::Strange(format!("control event {text}")))?;
                    let next = control["streamNextOffset"].as_str();
                    let next = next.and_then(|next| Offset::parse(next).ok());
                    let next =
                        next.ok_or_else(|| Over::Strange(format!("control event {text}")))?;
                    let is = |what: &str| control[what].as_bool() == Some(true);
                    let (up_to_date, closed) = (is("upToDate"), is("streamClosed"));
                    return Ok(Batch { data, next, up_to_date, closed });
                }
                other => return Err(Over::Strange(format!("event of type '{other}'"))),
            }
        }
    }

    fn payload(&self, text: &str) -> Result<Bytes, Over> {
        if self.base64 {
            let plain: String = text.split('\n').collect();
            let decoded = STANDARD.decode(plain);
            return decoded.map(Bytes::from).map_err(|bad| Over::Strange(format!("data: {bad}")));
        }
        if !self.json {
            return Ok(Bytes::copy_from_slice(text.as_bytes()));
        }
        let inner = text.trim().strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let inner = inner.ok_or_else(|| Over::Strange(format!("data event {text}")))?;
        Ok(Bytes::copy_from_slice(inner.trim().as_bytes()))
    }

    /// Type and data of the next event that is one.
    async fn event(&mut self) -> Result<(String, String), Over> {
        loop {
            let Some(end) = self.buffer.windows(2).position(|it| it == b"\n\n") else {
                self.more().await?;
                continue;
            };
            let block = self.buffer.split_to(end + 2);
            let block = std::str::from_utf8(&block)
                .map_err(|_| Over::Strange("an event that is not UTF-8".to_owned()))?;
            let (mut kind, mut data) = (String::new(), Vec::new());
            for line in block.lines() {
                let (field, value) = line.split_once(':').unwrap_or((line, ""));
                let value = value.strip_prefix(' ').unwrap_or(value);
                match field {
                    "event" => kind = value.to_owned(),
                    "data" => data.push(value),
                    _ => {}
                }
            }
            if !kind.is_empty() || !data.is_empty() {
                return Ok((kind, data.join("\n")));
            }
        }
    }

    async fn more(&mut self) -> Result<(), Over> {
        match timeout(SILENCE_MAX, self.body.frame()).await {
            Ok(Some(Ok(frame))) => {
                if let Ok(bytes) = frame.into_data() {
                    self.buffer.extend_from_slice(&bytes);
                }
                Ok(())
            }
            Ok(None) => Err(Over::Ended),
            Ok(Some(Err(_))) | Err(_) => Err(Over::Lost),
        }
    }
}
