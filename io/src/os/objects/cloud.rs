//! A bucket in a cloud, through the library that speaks to S3, Google and Azure.
//!
//! One request per call, none repeated: `retry` does that, and it must know of every attempt. A large
//! file is the exception: it goes up in parts, and a part that fails ends the attempt.

use std::{io, ops::Range, sync::Arc};

use bytes::Bytes;
use object_store::{
    GetOptions, GetResult, MultipartUpload, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions,
    PutPayload,
    list::{PaginatedListOptions, PaginatedListStore},
    path::Path,
};

use super::refusal::{Refusal, classify, refusal};
use crate::{
    Blocking, Disk, File, World,
    objects::{
        Counted, Created, Delivery, Key, LIST_MAX, Meta, ObjectError, Objects, Payload, Pending,
        bounded, inside, length,
    },
    tasks,
};

/// Pages that one listing looks at for keys of ours among those of others.
const PAGES_MAX: u64 = 100;
/// Bytes of a file from which on it goes up in parts. Below, one request says create-if-absent.
const IN_PARTS_FROM: u64 = (128 << 20) + 1;
/// Bytes of a part but the last, which are in memory; R2 wants all of one size.
const PART_BYTES: u64 = 32 << 20;

// What S3 takes: parts of 5 MiB to 5 GiB, 10,000 of them. That makes 312 GiB.
const _: () = assert!(PART_BYTES >= 5 << 20);
const _: () = assert!(PART_BYTES < IN_PARTS_FROM);

/// A bucket of one of the clouds.
pub(super) struct Cloud<S> {
    store: S,
    disk: Arc<dyn Disk>,
    blocking: Arc<dyn Blocking>,
}

impl<S: ObjectStore + PaginatedListStore> Cloud<S> {
    /// `world`: where files lie that become objects.
    pub(super) fn new(store: S, world: &World) -> Cloud<S> {
        let (disk, blocking) = (Arc::clone(&world.disk), Arc::clone(&world.blocking));
        Cloud { store, disk, blocking }
    }

    async fn put(&self, key: &Key, payload: Payload) -> Result<Created, ObjectError> {
        let payload: PutPayload = payload.parts().iter().cloned().collect();
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&path(key)?, payload, options).await {
            Ok(_) => Ok(Created::New),
            Err(error) if refusal(&error).is_some_and(|it| it.is_taken()) => {
                Ok(Created::AlreadyThere)
            }
            // Services without conditional writes say so of the header that demands one.
            Err(error) if refusal(&error).is_some_and(Refusal::is_not_implemented) => {
                Err(ObjectError::Unconditional(reason_of(&error)))
            }
            Err(error) => Err(not_missing(&error)),
        }
    }

    /// Makes an object of a file in parts. No cloud's library lets the last request, which makes
    /// the object, say create-if-absent; so it is looked for first, and what is laid over it by two
    /// calls at once are the same bytes.
    async fn send(
        &self,
        key: &Key,
        file: &std::path::Path,
        size: u64,
    ) -> Result<Delivery, ObjectError> {
        let (disk, name) = (Arc::clone(&self.disk), file.to_owned());
        // Whoever has it open reads it to its end, even if it is removed meanwhile.
        let source = self.run(move || disk.open(&name)).await?.map_err(unread)?;
        let Counted { value: there, requests: looks } = self.look(key).await?;
        if there.is_some() {
            return Ok(Delivery { created: Created::AlreadyThere, requests: looks, bytes: 0 });
        }
        let begun = self.store.put_multipart(&path(key)?).await;
        let mut upload = begun.map_err(|error| not_missing(&error))?;
        match self.send_parts(&mut *upload, &source, size).await {
            // The beginning and the end are billed like a part.
            Ok(parts) => {
                let requests = looks + parts + 2;
                Ok(Delivery { created: Created::New, requests, bytes: size })
            }
            Err(error) => {
                // What is left of the parts if this fails too, or if nobody is there any more to do
                // it, goes by the bucket's rule for incomplete uploads.
                drop(upload.abort().await);
                Err(error)
            }
        }
    }

    /// Returns how many there were.
    async fn send_parts(
        &self,
        upload: &mut dyn MultipartUpload,
        source: &Arc<dyn File>,
        size: u64,
    ) -> Result<u64, ObjectError> {
        let mut parts = 0;
        let mut at = 0;
        while at < size {
            let limit = size.min(at + PART_BYTES);
            let source = Arc::clone(source);
            let read = self.run(move || -> io::Result<Bytes> {
                let len = usize::try_from(limit - at).map_err(io::Error::other)?;
                let mut part = vec![0; len];
                source.read_exact_at(&mut part, at)?;
                Ok(part.into())
            });
            let part = read.await?.map_err(unread)?;
            upload.put_part(part.into()).await.map_err(|error| not_missing(&error))?;
            (at, parts) = (limit, parts + 1);
        }
        upload.complete().await.map_err(|error| not_missing(&error))?;
        Ok(parts)
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ObjectError> {
        let done = tasks::run(&*self.blocking, job).await;
        done.map_err(|gone| ObjectError::Transient(gone.to_string()))
    }

    /// Asks for a body. A 404 that does not say that it is the object which is missing is an
    /// error: every cloud says so.
    async fn ask(&self, key: &Key, options: GetOptions) -> Result<GetResult, ObjectError> {
        let asked = self.store.get_opts(&path(key)?, options).await;
        asked.map_err(|error| classify(&error))
    }

    async fn look(&self, key: &Key) -> Result<Counted<Option<Meta>>, ObjectError> {
        match self.store.head(&path(key)?).await {
            Ok(meta) => {
                let meta = Meta { key: key.clone(), size: meta.size, etag: meta.e_tag };
                Ok(Counted { value: Some(meta), requests: 1 })
            }
            Err(error) if refusal(&error).is_some_and(|it| it.may_be_missing()) => {
                // An answer to HEAD has no body to say whether the object is missing or the
                // whole bucket, so a read, which has one, must say so too.
                match self.ask(key, GetOptions::new().with_range(Some(0..1_u64))).await {
                    Err(ObjectError::NotFound) => Ok(Counted { value: None, requests: 2 }),
                    Err(error) => Err(error),
                    Ok(_) => Err(ObjectError::Transient("the object has just appeared".into())),
                }
            }
            Err(error) => match classify(&error) {
                ObjectError::NotFound => Ok(Counted { value: None, requests: 1 }),
                error => Err(error),
            },
        }
    }

    async fn pages(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Counted<Vec<Meta>>, ObjectError> {
        let limit = limit.min(LIST_MAX);
        let mut found = Vec::new();
        let mut token = None;
        for requests in 1..=PAGES_MAX {
            let options = PaginatedListOptions {
                offset: after.map(|key| key.as_str().to_owned()),
                max_keys: Some(limit - found.len()),
                page_token: token,
                ..PaginatedListOptions::default()
            };
            let prefix = Some(prefix).filter(|prefix| !prefix.is_empty());
            let page = self.store.list_paginated(prefix, options).await;
            let page = page.map_err(|error| not_missing(&error))?;
            // Keys that break the rules are not ours.
            found.extend(page.result.objects.into_iter().filter_map(|meta| {
                let key = Key::new(meta.location.as_ref()).ok()?;
                Some(Meta { key, size: meta.size, etag: meta.e_tag })
            }));
            token = page.page_token;
            if token.is_none() || found.len() >= limit {
                found.sort_by(|one, other| one.key.cmp(&other.key));
                return Ok(Counted { value: found, requests });
            }
        }
        let reason = format!("{PAGES_MAX} pages of the listing hold objects of somebody else");
        Err(ObjectError::Refused(reason))
    }

    async fn remove(&self, key: &Key) -> Result<(), ObjectError> {
        match self.store.delete(&path(key)?).await {
            Ok(()) => Ok(()),
            // A batch of deletions tells of each inside a success.
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => match classify(&error) {
                ObjectError::NotFound => Ok(()),
                error => Err(error),
            },
        }
    }
}

impl<S: ObjectStore + PaginatedListStore> Objects for Cloud<S> {
    fn create<'a>(&'a self, key: &'a Key, payload: Payload) -> Pending<'a, Created> {
        Box::pin(self.put(key, payload))
    }

    fn create_from_file<'a>(
        &'a self,
        key: &'a Key,
        file: &'a std::path::Path,
        size: u64,
    ) -> Option<Pending<'a, Delivery>> {
        (size >= IN_PARTS_FROM)
            .then(|| -> Pending<'a, Delivery> { Box::pin(self.send(key, file, size)) })
    }

    fn get<'a>(&'a self, key: &'a Key, bytes_max: u64) -> Pending<'a, Bytes> {
        Box::pin(async move {
            let result = self.ask(key, GetOptions::new()).await?;
            let size = result.meta.size;
            bounded(size, bytes_max)?;
            whole(result, size).await
        })
    }

    fn get_range<'a>(&'a self, key: &'a Key, range: Range<u64>) -> Pending<'a, Bytes> {
        Box::pin(async move {
            if range.start >= range.end {
                // Where there is no such byte to ask for, ask for the object.
                let meta = self.look(key).await?.value.ok_or(ObjectError::NotFound)?;
                inside(&range, meta.size)?;
            }
            let options = GetOptions::new().with_range(Some(range.clone()));
            let result = self.ask(key, options).await?;
            inside(&range, result.meta.size)?;
            whole(result, range.end - range.start).await
        })
    }

    fn head<'a>(&'a self, key: &'a Key) -> Pending<'a, Option<Meta>> {
        Box::pin(async move { Ok(self.look(key).await?.value) })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a Key>,
        limit: usize,
    ) -> Pending<'a, Vec<Meta>> {
        Box::pin(async move { Ok(self.pages(prefix, after, limit).await?.value) })
    }

    fn delete<'a>(&'a self, key: &'a Key) -> Pending<'a, ()> {
        Box::pin(self.remove(key))
    }

    fn head_counted<'a>(&'a self, key: &'a Key) -> Pending<'a, Counted<Option<Meta>>> {
        Box::pin(self.look(key))
    }

    fn list_counted<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a Key>,
        limit: usize,
    ) -> Pending<'a, Counted<Vec<Meta>>> {
        Box::pin(self.pages(prefix, after, limit))
    }
}

/// A file that is not read now may be read by the next attempt, unless there is none.
fn unread(error: io::Error) -> ObjectError {
    match error.kind() {
        io::ErrorKind::NotFound => ObjectError::NotFound,
        _ => ObjectError::Transient(format!("the file is not read: {error}")),
    }
}

/// The body of an answer that must have `size` bytes.
async fn whole(result: GetResult, size: u64) -> Result<Bytes, ObjectError> {
    let bytes = result.bytes().await.map_err(|error| classify(&error))?;
    if length(&bytes) == size {
        return Ok(bytes);
    }
    Err(ObjectError::Transient(format!("{} of {size} bytes came", bytes.len())))
}

/// What a cloud said.
fn reason_of(error: &object_store::Error) -> String {
    refusal(error).map_or_else(String::new, |said| said.to_string().trim_end().to_owned())
}

/// What an error means to a request that needs no object: nothing is missing but the bucket.
fn not_missing(error: &object_store::Error) -> ObjectError {
    match classify(error) {
        ObjectError::NotFound => ObjectError::Refused("there is no such bucket".into()),
        other => other,
    }
}

fn path(key: &Key) -> Result<Path, ObjectError> {
    Path::parse(key.as_str()).map_err(|error| ObjectError::Refused(error.to_string()))
}
