//! `server.json`: where a server listens, and which process it is.
//!
//! ```json
//! {"version":1,"name":"default","pid":4711,"startedAt":"2026-11-20T08:30:00.000Z",
//!  "http":{"port":8080,"url":"http://127.0.0.1:8080"},
//!  "sqlite":{"path":"/…/default/durable-streams.sqlite"},
//!  "instance":"9f2c…","processStart":123456}
//! ```
//! The last two are ours: what the lock's holder calls itself too, and when the process started,
//! as far as the system tells. Without them no process is signalled. Written when the server
//! listens, removed when it stops; a crash leaves it behind.

use std::{io, path::Path};

use serde_json::{Value, json};
use weir_io::{Disk, disk::Create, os::process};

/// No such file is larger.
const FILE_BYTES_MAX: u64 = 64 << 10;
const VERSION: u64 = 1;

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) pid: u32,
    /// RFC 3339.
    pub(crate) started_at: String,
    pub(crate) port: u16,
    pub(crate) url: String,
    pub(crate) sqlite: String,
    /// Which of all servers there ever were; `None` if another program wrote it.
    pub(crate) instance: Option<String>,
    /// As [`process::started`].
    pub(crate) process_start: Option<u64>,
}

impl Record {
    /// As the peer has it.
    pub(crate) fn json(&self) -> Value {
        let mut record = json!({
            "version": VERSION,
            "name": self.name,
            "pid": self.pid,
            "startedAt": self.started_at,
            "http": { "port": self.port, "url": self.url },
            "sqlite": { "path": self.sqlite },
        });
        if let Some(instance) = &self.instance {
            record["instance"] = json!(instance);
        }
        if let Some(start) = self.process_start {
            record["processStart"] = json!(start);
        }
        record
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let record: Value = serde_json::from_slice(bytes).ok()?;
        if record.get("version")?.as_u64()? != VERSION {
            return None;
        }
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let http = record.get("http")?;
        Some(Self {
            name: text(record.get("name")?)?,
            pid: record.get("pid")?.as_u64()?.try_into().ok()?,
            started_at: text(record.get("startedAt")?)?,
            port: http.get("port")?.as_u64()?.try_into().ok()?,
            url: text(http.get("url")?)?,
            sqlite: text(record.get("sqlite")?.get("path")?)?,
            instance: record.get("instance").and_then(text),
            process_start: record.get("processStart").and_then(Value::as_u64),
        })
    }

    /// Reads the file; `None` if there is none that makes sense.
    pub(crate) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<Self>> {
        let Some(bytes) = read(disk, path)? else { return Ok(None) };
        Ok(Self::parse(&bytes))
    }

    /// What the holder of the lock says of itself there.
    pub(crate) fn holder(&self) -> String {
        let Self { pid, url, started_at, instance, process_start, .. } = self;
        let instance = instance.as_deref().unwrap_or_default();
        let mut text = format!(
            "pid {pid}, weir {}, {url}, since {started_at}, instance {instance}",
            env!("CARGO_PKG_VERSION"),
        );
        if let Some(start) = process_start {
            text.push_str(&format!(", process start {start}"));
        }
        text
    }

    /// What such words say, for a server whose own file is not there or damaged. The process is
    /// there still: its number alone is not enough.
    pub(crate) fn of_holder(text: &str, name: &str, sqlite: &Path) -> Option<Self> {
        let field = |label: &str| {
            let mut parts = text.split(", ");
            parts.find_map(|part| part.strip_prefix(label))
        };
        let url = text.split(", ").find(|part| part.starts_with("http://"))?;
        let record = Self {
            name: name.to_owned(),
            pid: field("pid ")?.parse().ok()?,
            started_at: field("since ")?.to_owned(),
            port: url.rsplit(':').next()?.parse().ok()?,
            url: url.to_owned(),
            sqlite: sqlite.to_string_lossy().into_owned(),
            instance: Some(field("instance ")?.to_owned()),
            process_start: Some(field("process start ")?.parse().ok()?),
        };
        record.is_of(text).then_some(record)
    }

    /// Writes the file as a whole, for its owner alone.
    pub(crate) fn write(&self, disk: &dyn Disk, path: &Path) -> io::Result<()> {
        let temporary = path.with_extension("json.new");
        match disk.remove(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.create(&temporary, Create::Private)?;
        file.write_all_at(format!("{:#}\n", self.json()).as_bytes(), 0)?;
        disk.rename(&temporary, path)
    }

    /// Whether the process that wrote it is there still, by everything but its number: `holder` is
    /// what the holder of the lock wrote of itself.
    pub(crate) fn is_of(&self, holder: &str) -> bool {
        let Some(instance) = &self.instance else { return false };
        let starts = (self.process_start, process::started(self.pid));
        let same_process = match starts {
            (Some(then), now) => now == Some(then),
            (None, _) => process::is_alive(self.pid),
        };
        same_process && holder.contains(&format!("instance {instance}"))
    }
}

/// What the holder of a lock says of itself, without what tells it from others but says nothing
/// to people.
pub(crate) fn in_words(holder: &str) -> String {
    let ours = ["instance ", "process start "];
    let parts = holder.split(", ").filter(|part| !ours.iter().any(|it| part.starts_with(it)));
    parts.collect::<Vec<_>>().join(", ")
}

/// A file of text, if it is there.
pub(crate) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let len = file.len()?.min(FILE_BYTES_MAX);
    let mut bytes = vec![0; usize::try_from(len).expect("bounded above")];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            name: "n".to_owned(),
            pid: process::id(),
            started_at: "2026-11-20T08:30:00.000Z".to_owned(),
            port: 8080,
            url: "http://127.0.0.1:8080".to_owned(),
            sqlite: "/d/n/durable-streams.sqlite".to_owned(),
            instance: Some("abc".to_owned()),
            process_start: process::started(process::id()),
        }
    }

    #[test]
    fn what_was_written_is_read_and_the_peers_is_understood() {
        let record = record();
        assert_eq!(Record::parse(record.json().to_string().as_bytes()), Some(record.clone()));
        let peer = br#"{"version":1,"name":"n","pid":7,"startedAt":"x","http":{"port":1,
            "url":"u"},"sqlite":{"path":"p"}}"#;
        let peer = Record::parse(peer).expect("the peer's");
        assert_eq!((peer.pid, peer.instance, peer.process_start), (7, None, None));
        for bad in ["", "{}", "[1]", r#"{"version":2}"#, r#"{"version":1,"pid":-1}"#] {
            assert_eq!(Record::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn the_words_in_a_lock_say_as_much_if_the_process_is_there() {
        let record = record();
        let path = Path::new(&record.sqlite);
        if record.process_start.is_some() {
            assert_eq!(Record::of_holder(&record.holder(), "n", path), Some(record.clone()));
        }
        let gone = Record { process_start: Some(1), ..record.clone() }.holder();
        let old = Record { process_start: None, ..record.clone() }.holder();
        for text in ["", "pid 1", "somebody else", &gone, &old] {
            assert_eq!(Record::of_holder(text, "n", path), None, "{text}");
        }
    }

    #[test]
    fn people_are_spared_what_only_programs_compare() {
        let words = in_words(&record().holder());
        assert!(words.starts_with(&format!("pid {}", process::id())), "{words}");
        assert!(words.ends_with("since 2026-11-20T08:30:00.000Z"), "{words}");
        assert_eq!(in_words("somebody else"), "somebody else");
    }

    #[test]
    fn a_process_is_known_by_more_than_its_number() {
        let holder = "pid 1, instance abc";
        assert!(record().is_of(holder));
        assert!(!record().is_of("pid 1, instance abd"), "another server holds the lock");
        assert!(!Record { instance: None, ..record() }.is_of(holder), "another program wrote it");
        let other = record().process_start.map(|start| start + 1);
        let later = Record { process_start: other, ..record() };
        assert!(other.is_none() || !later.is_of(holder), "its number was given to another process");
    }
}
