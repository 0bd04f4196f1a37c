//! What a simulated bucket holds, what its listings show, and requests under way.
//!
//! A request is a message: it arrives at some moment and takes effect then, whether or not
//! its client still waits. What is due is done before anybody looks, in the order of its
//! arrival, so nobody can tell that it was not done on time.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use bytes::Bytes;

use super::Verb;
use crate::{
    memory::Trace,
    objects::{Created, Key, LIST_MAX, Meta, ObjectError, Payload, bounded, inside, length},
};

/// What one request asks for.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Create(Key, Payload),
    Get(Key, u64),
    GetRange(Key, Range<u64>),
    Head(Key),
    List(String, Option<Key>, usize),
    Delete(Key),
}

impl Ask {
    pub(super) fn verb(&self) -> Verb {
        match self {
            Ask::Create(..) => Verb::Create,
            Ask::Get(..) | Ask::GetRange(..) => Verb::Get,
            Ask::Head(..) => Verb::Head,
            Ask::List(..) => Verb::List,
            Ask::Delete(..) => Verb::Delete,
        }
    }

    /// The key or prefix it is about.
    pub(super) fn subject(&self) -> &str {
        match self {
            Ask::Create(key, _)
            | Ask::Get(key, _)
            | Ask::GetRange(key, _)
            | Ask::Head(key)
            | Ask::Delete(key) => key.as_str(),
            Ask::List(prefix, ..) => prefix,
        }
    }

    /// Adds everything that tells two requests apart.
    pub(super) fn trace(&self, trace: &mut Trace) {
        trace.add(self.verb() as u64);
        trace.add_bytes(self.subject().as_bytes());
        match self {
            Ask::Create(_, payload) => payload.parts().iter().for_each(|it| trace.add_bytes(it)),
            Ask::GetRange(_, range) => {
                trace.add(range.start);
                trace.add(range.end);
            }
            Ask::List(_, after, limit) => {
                let after = after.as_ref().map_or("", Key::as_str);
                trace.add_bytes(after.as_bytes());
                trace.add(u64::try_from(*limit).expect("sizes fit 64 bits"));
            }
            Ask::Get(..) | Ask::Head(..) | Ask::Delete(..) => {}
        }
    }
}

/// What one request is answered.
#[derive(Clone, Debug)]
pub(super) enum Said {
    Created(Created),
    Body(Bytes),
    Head(Option<Meta>),
    Listed(Vec<Meta>),
    Deleted,
}

pub(super) type Answer = Result<Said, ObjectError>;

/// One object.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) bytes: Bytes,
    /// Counts creations, so that a replaced object is told apart.
    version: u64,
    /// Listings show it from here on.
    listed_from: Duration,
}

/// What is stored.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub(super) objects: BTreeMap<Key, Object>,
    /// Deleted, and still listed until then.
    ghosts: BTreeMap<Key, (Meta, Duration)>,
    created: u64,
}

/// How the bucket treats a request that arrives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manners {
    pub(super) unconditional: bool,
    pub(super) quota_bytes: Option<u64>,
    /// How long listings will not know of what this request does.
    pub(super) list_lag: Duration,
}

impl Content {
    /// Lets a request take effect.
    pub(super) fn serve(&mut self, ask: Ask, now: Duration, manners: Manners) -> Answer {
        match ask {
            Ask::Create(key, payload) => self.create(key, &payload, now, manners),
            Ask::Get(key, bytes_max) => {
                let bytes = &self.object(&key)?.bytes;
                bounded(length(bytes), bytes_max)?;
                Ok(Said::Body(bytes.clone()))
            }
            Ask::GetRange(key, range) => {
                let bytes = &self.object(&key)?.bytes;
                Ok(Said::Body(bytes.slice(inside(&range, length(bytes))?)))
            }
            Ask::Head(key) => {
                Ok(Said::Head(self.objects.get(&key).map(|object| meta(&key, object))))
            }
            Ask::List(prefix, after, limit) => {
                Ok(Said::Listed(self.list(&prefix, after.as_ref(), limit, now)))
            }
            Ask::Delete(key) => {
                if let Some(object) = self.objects.remove(&key)
                    && manners.list_lag > Duration::ZERO
                {
                    let meta = meta(&key, &object);
                    self.ghosts.insert(key, (meta, now + manners.list_lag));
                }
                Ok(Said::Deleted)
            }
        }
    }

    /// Puts an object there, whatever was.
    pub(super) fn put(&mut self, key: Key, bytes: Bytes, listed_from: Duration) {
        self.created += 1;
        self.ghosts.remove(&key);
        let object = Object { bytes, version: self.created, listed_from };
        self.objects.insert(key, object);
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.objects.values().map(|object| length(&object.bytes)).sum()
    }

    fn create(&mut self, key: Key, payload: &Payload, now: Duration, manners: Manners) -> Answer {
        if self.objects.contains_key(&key) && !manners.unconditional {
            return Ok(Said::Created(Created::AlreadyThere));
        }
        let full = |quota| self.used_bytes() + payload.size() > quota;
        if manners.quota_bytes.is_some_and(full) {
            return Err(ObjectError::Refused("the quota of the simulated bucket is full".into()));
        }
        // Copied: an object must not keep a larger buffer of its creator alive.
        let bytes = Bytes::copy_from_slice(&payload.joined());
        self.put(key, bytes, now + manners.list_lag);
        Ok(Said::Created(Created::New))
    }

    fn object(&self, key: &Key) -> Result<&Object, ObjectError> {
        self.objects.get(key).ok_or(ObjectError::NotFound)
    }

    fn list(
        &mut self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
        now: Duration,
    ) -> Vec<Meta> {
        self.ghosts.retain(|_, (_, until)| *until > now);
        let shown = |key: &Key| key.as_str().starts_with(prefix) && after.is_none_or(|it| key > it);
        let objects = self.objects.iter();
        let objects = objects.filter(|(key, object)| object.listed_from <= now && shown(key));
        let ghosts = self.ghosts.iter().filter(|(key, _)| shown(key));
        let mut found: BTreeMap<&Key, Meta> = BTreeMap::new();
        found.extend(ghosts.map(|(key, (meta, _))| (key, meta.clone())));
        found.extend(objects.map(|(key, object)| (key, meta(key, object))));
        found.into_values().take(limit.min(LIST_MAX)).collect()
    }
}

fn meta(key: &Key, object: &Object) -> Meta {
    let etag = Some(format!("\"{}\"", object.version));
    Meta { key: key.clone(), size: length(&object.bytes), etag }
}
