//! A bucket that counts what it is asked.
//!
//! Stands below `retry`, so that every attempt counts as the cloud bills it, and above a prefix,
//! so that keys begin with what their objects are for.

use std::{ops::Range, path::Path, sync::Arc};

use bytes::Bytes;

use super::{
    Created, Delivery, Key, Meta, ObjectError, Objects, Payload, Pending,
    counts::{Artifact, Counts, Verb},
    length,
};

/// Counts the requests to the bucket below.
#[derive(Clone)]
pub struct Counting {
    below: Arc<dyn Objects>,
    counts: Arc<Counts>,
}

impl Counting {
    /// Asks `below` and counts in `counts`.
    #[must_use]
    pub fn new(below: Arc<dyn Objects>, counts: Arc<Counts>) -> Counting {
        Counting { below, counts }
    }

    /// Sees a request through; `took` says of an answer how many requests it was and what they moved.
    /// One that fails is one request. It begins when its future is first polled: one that is dropped
    /// before was never made.
    fn counted<'a, T: Send + 'a>(
        &'a self,
        subject: &'a str,
        verb: Verb,
        asked: Pending<'a, T>,
        took: impl FnOnce(&T) -> (u64, u64) + Send + 'a,
    ) -> Pending<'a, T> {
        Box::pin(async move {
            let under_way = self.counts.begin(Artifact::of(subject), verb);
            let answer = asked.await;
            match &answer {
                Ok(value) => {
                    let (requests, bytes) = took(value);
                    under_way.answered(requests, bytes);
                }
                Err(ObjectError::NotFound) => under_way.answered(1, 0),
                Err(_) => drop(under_way),
            }
            answer
        })
    }
}

impl Objects for Counting {
    fn create<'a>(&'a self, key: &'a Key, payload: Payload) -> Pending<'a, Created> {
        let size = payload.size();
        let asked = self.below.create(key, payload);
        self.counted(key.as_str(), Verb::Create, asked, move |_| (1, size))
    }

    fn create_from_file<'a>(
        &'a self,
        key: &'a Key,
        file: &'a Path,
        size: u64,
    ) -> Option<Pending<'a, Delivery>> {
        let asked = self.below.create_from_file(key, file, size)?;
        let moved = |delivery: &Delivery| (delivery.requests, delivery.bytes);
        Some(self.counted(key.as_str(), Verb::Create, asked, moved))
    }

    fn get<'a>(&'a self, key: &'a Key, bytes_max: u64) -> Pending<'a, Bytes> {
        let asked = self.below.get(key, bytes_max);
        self.counted(key.as_str(), Verb::Get, asked, |bytes| (1, length(bytes)))
    }

    fn get_range<'a>(&'a self, key: &'a Key, range: Range<u64>) -> Pending<'a, Bytes> {
        let asked = self.below.get_range(key, range);
        self.counted(key.as_str(), Verb::GetRange, asked, |bytes| (1, length(bytes)))
    }

    fn head<'a>(&'a self, key: &'a Key) -> Pending<'a, Option<Meta>> {
        let asked = self.below.head_counted(key);
        let counted = self.counted(key.as_str(), Verb::Head, asked, |it| (it.requests, 0));
        Box::pin(async move { Ok(counted.await?.value) })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a Key>,
        limit: usize,
    ) -> Pending<'a, Vec<Meta>> {
        let asked = self.below.list_counted(prefix, after, limit);
        let counted = self.counted(prefix, Verb::List, asked, |it| (it.requests, 0));
        Box::pin(async move { Ok(counted.await?.value) })
    }

    fn delete<'a>(&'a self, key: &'a Key) -> Pending<'a, ()> {
        self.counted(key.as_str(), Verb::Delete, self.below.delete(key), |()| (1, 0))
    }
}
