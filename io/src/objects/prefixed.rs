//! The part of a bucket below a prefix, as a bucket of its own.

use std::{ops::Range, path::Path, sync::Arc};

use bytes::Bytes;

use super::{Counted, Created, Delivery, Key, Meta, ObjectError, Objects, Payload, Pending};

/// A bucket whose keys all begin with `prefix/` in the one below it.
#[derive(Clone)]
pub struct Prefixed {
    below: Arc<dyn Objects>,
    prefix: Key,
}

impl Prefixed {
    /// The part of `below` under `prefix`.
    #[must_use]
    pub fn new(below: Arc<dyn Objects>, prefix: Key) -> Prefixed {
        Prefixed { below, prefix }
    }

    fn outer(&self, key: &Key) -> Result<Key, ObjectError> {
        let outer = Key::new(format!("{}/{key}", self.prefix));
        outer.map_err(|error| ObjectError::Refused(error.to_string()))
    }

    fn inner(&self, meta: Meta) -> Option<Meta> {
        let key = meta.key.as_str().strip_prefix(self.prefix.as_str())?.strip_prefix('/')?;
        Some(Meta { key: Key::new(key).ok()?, ..meta })
    }
}

impl Objects for Prefixed {
    fn create<'a>(&'a self, key: &'a Key, payload: Payload) -> Pending<'a, Created> {
        Box::pin(async move { self.below.create(&self.outer(key)?, payload).await })
    }

    fn create_from_file<'a>(
        &'a self,
        key: &'a Key,
        file: &'a Path,
        size: u64,
    ) -> Option<Pending<'a, Delivery>> {
        // Asked first, because the answer says whether the bucket can at all.
        let outer = match self.outer(key) {
            Ok(outer) => outer,
            Err(error) => return Some(Box::pin(async move { Err(error) })),
        };
        drop(self.below.create_from_file(&outer, file, size)?);
        Some(Box::pin(async move {
            let create = self.below.create_from_file(&outer, file, size);
            create.expect("what a bucket can do does not change").await
        }))
    }

    fn get<'a>(&'a self, key: &'a Key, bytes_max: u64) -> Pending<'a, Bytes> {
        Box::pin(async move { self.below.get(&self.outer(key)?, bytes_max).await })
    }

    fn get_range<'a>(&'a self, key: &'a Key, range: Range<u64>) -> Pending<'a, Bytes> {
        Box::pin(async move { self.below.get_range(&self.outer(key)?, range).await })
    }

    fn head<'a>(&'a self, key: &'a Key) -> Pending<'a, Option<Meta>> {
        Box::pin(async move { Ok(self.head_counted(key).await?.value) })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a Key>,
        limit: usize,
    ) -> Pending<'a, Vec<Meta>> {
        Box::pin(async move { Ok(self.list_counted(prefix, after, limit).await?.value) })
    }

    fn delete<'a>(&'a self, key: &'a Key) -> Pending<'a, ()> {
        Box::pin(async move { self.below.delete(&self.outer(key)?).await })
    }

    fn head_counted<'a>(&'a self, key: &'a Key) -> Pending<'a, Counted<Option<Meta>>> {
        Box::pin(async move {
            let Counted { value, requests } = self.below.head_counted(&self.outer(key)?).await?;
            let value = value.map(|meta| Meta { key: key.clone(), ..meta });
            Ok(Counted { value, requests })
        })
    }

    fn list_counted<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a Key>,
        limit: usize,
    ) -> Pending<'a, Counted<Vec<Meta>>> {
        Box::pin(async move {
            let prefix = format!("{}/{prefix}", self.prefix);
            let after = after.map(|after| self.outer(after)).transpose()?;
            let listed = self.below.list_counted(&prefix, after.as_ref(), limit).await?;
            let Counted { value, requests } = listed;
            let value = value.into_iter().filter_map(|meta| self.inner(meta)).collect();
            Ok(Counted { value, requests })
        })
    }
}
