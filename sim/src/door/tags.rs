//! Pages that clients keep with their tags, as caches do: they are asked for again with
//! `If-None-Match`, and what a 304 says is the same is taken for the answer, to be held against the
//! model like any other. What a tag stood for once it stands for for ever, whoever asks (INV-4).

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use bytes::Bytes;
use hyper::{
    StatusCode,
    header::{ETAG, HeaderMap, IF_NONE_MATCH},
};
use weir_io::memory::Trace;

use super::{answer::Reply, request::Outgoing};

/// Pages that one client keeps, and the largest of them.
const KEPT_MAX: usize = 48;
const BODY_BYTES_MAX: usize = 256 << 10;
/// Tags of which is known what they stood for.
const KNOWN_MAX: usize = 1 << 14;
/// One of so many asks for a page that is kept is without its tag, so that the whole comes again.
const PLAIN: u32 = 3;

/// Length and hash of a body.
type Digest = (usize, u64);

fn digest(body: &[u8]) -> Digest {
    let mut hash = Trace::new();
    hash.add_bytes(body);
    (body.len(), hash.value())
}

/// What tags stood for, as all clients of one server saw them.
#[derive(Debug, Default)]
pub struct Tags {
    /// By address and tag.
    known: RefCell<BTreeMap<(String, Bytes), Digest>>,
    wrong: RefCell<Option<String>>,
    /// How often the server has begun.
    runs: Cell<u32>,
}

impl Tags {
    /// The server begins anew.
    pub fn begin(&self) {
        self.runs.set(self.runs.get() + 1);
    }

    /// What was wrong with a tag since this was asked before.
    pub fn wrong(&self) -> Option<String> {
        self.wrong.take()
    }

    fn complain(&self, what: String) {
        self.wrong.borrow_mut().get_or_insert(what);
    }

    /// A page came with a tag.
    fn saw(&self, url: &str, tag: &Bytes, body: &[u8]) {
        let mut known = self.known.borrow_mut();
        let fresh = digest(body);
        let before = known.get(&(url.to_owned(), tag.clone())).copied();
        match before {
            Some(before) if before != fresh => self.complain(format!(
                "{url} has the tag {}, and {fresh:?} where it had {before:?}",
                String::from_utf8_lossy(tag)
            )),
            None if known.len() < KNOWN_MAX => {
                known.insert((url.to_owned(), tag.clone()), fresh);
            }
            _ => {}
        }
    }
}

/// A page that is kept.
#[derive(Clone, Debug)]
struct Kept {
    url: String,
    tag: Bytes,
    headers: HeaderMap,
    body: Bytes,
    /// In which run of the server.
    run: u32,
}

/// The pages of one client.
#[derive(Debug, Default)]
pub(super) struct Pages {
    tags: Rc<Tags>,
    kept: RefCell<VecDeque<Kept>>,
    asks: Cell<u32>,
}

/// What is asked again.
#[derive(Debug)]
pub(super) struct Asked {
    url: String,
    kept: Option<Kept>,
}

impl Pages {
    /// None yet.
    pub(super) fn new(tags: Rc<Tags>) -> Self {
        Self { tags, ..Self::default() }
    }

    /// Adds the tag of the page that is kept of this address, if there is one.
    pub(super) fn ask(&self, outgoing: &mut Outgoing) -> Asked {
        let url = outgoing.uri().to_string();
        let kept = self.kept.borrow().iter().find(|it| it.url == url).cloned();
        let Some(kept) = kept else { return Asked { url, kept: None } };
        self.asks.set(self.asks.get() + 1);
        if self.asks.get().is_multiple_of(PLAIN) {
            return Asked { url, kept: None };
        }
        let tag = hyper::header::HeaderValue::from_maybe_shared(kept.tag.clone());
        outgoing.headers_mut().insert(IF_NONE_MATCH, tag.expect("it came as one"));
        Asked { url, kept: Some(kept) }
    }

    /// The answer as a client with a cache takes it: what has not changed is what is kept.
    pub(super) fn take(&self, asked: Asked, reply: Reply) -> Reply {
        match (reply.parts.status, asked.kept) {
            (StatusCode::NOT_MODIFIED, Some(kept)) => self.freshen(&kept, reply),
            (StatusCode::OK, _) => {
                self.keep(asked.url, &reply);
                reply
            }
            _ => reply,
        }
    }

    /// RFC 9111, section 4.3.4: what a 304 says of a page is newer than what is kept of it.
    fn freshen(&self, kept: &Kept, mut reply: Reply) -> Reply {
        weir_io::sometimes!("what a client had kept was still so");
        if kept.run < self.tags.runs.get() {
            weir_io::sometimes!("what a client had kept before a restart was still so");
        }
        if reply.parts.headers.get(ETAG).map(|it| it.as_bytes()) != Some(&kept.tag[..]) {
            let (url, now) = (&kept.url, reply.parts.headers.get(ETAG));
            let what = format!("{url} is {now:?}, and not modified since {:?}", kept.tag);
            self.tags.complain(what);
        }
        let mut headers = kept.headers.clone();
        for (name, value) in &reply.parts.headers {
            headers.insert(name.clone(), value.clone());
        }
        reply.parts.status = StatusCode::OK;
        reply.parts.headers = headers;
        reply.body = kept.body.clone();
        reply
    }

    fn keep(&self, url: String, reply: &Reply) {
        let Some(tag) = reply.parts.headers.get(ETAG) else { return };
        let tag = Bytes::copy_from_slice(tag.as_bytes());
        self.tags.saw(&url, &tag, &reply.body);
        let mut kept = self.kept.borrow_mut();
        kept.retain(|it| it.url != url);
        if reply.body.len() > BODY_BYTES_MAX {
            return;
        }
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        let (headers, body) = (reply.parts.headers.clone(), reply.body.clone());
        kept.push_back(Kept { url, tag, headers, body, run: self.tags.runs.get() });
    }
}

#[cfg(test)]
mod tests {
    use hyper::{Method, Response};

    use super::{super::request, *};

    fn reply(status: StatusCode, tag: &str, body: &'static [u8]) -> Reply {
        let response = Response::builder().status(status).header(ETAG, tag).body(());
        let (parts, ()) = response.expect("a good answer").into_parts();
        Reply { parts, body: Bytes::from_static(body) }
    }

    fn outgoing() -> Outgoing {
        request::build(Method::GET, "/a?offset=-1", HeaderMap::new(), Bytes::new())
    }

    #[test]
    fn a_tag_is_asked_with_again_and_what_has_not_changed_is_what_was_kept() {
        let tags = Rc::new(Tags::default());
        let pages = Pages::new(Rc::clone(&tags));
        let mut first = outgoing();
        let asked = pages.ask(&mut first);
        assert!(!first.headers().contains_key(IF_NONE_MATCH));
        pages.take(asked, reply(StatusCode::OK, "\"1\"", b"one"));
        let mut again = outgoing();
        let asked = pages.ask(&mut again);
        assert_eq!(again.headers()[IF_NONE_MATCH], "\"1\"");
        let same = pages.take(asked, reply(StatusCode::NOT_MODIFIED, "\"1\"", b""));
        assert_eq!((same.parts.status, &same.body[..]), (StatusCode::OK, &b"one"[..]));
        assert_eq!(tags.wrong(), None);
    }

    #[test]
    fn a_tag_that_stands_for_something_else_is_wrong() {
        for (status, tag, body, wrong) in [
            (StatusCode::OK, "\"1\"", &b"two"[..], true),
            (StatusCode::OK, "\"2\"", b"two", false),
            (StatusCode::NOT_MODIFIED, "\"2\"", b"", true),
        ] {
            let tags = Rc::new(Tags::default());
            let pages = Pages::new(Rc::clone(&tags));
            let asked = pages.ask(&mut outgoing());
            pages.take(asked, reply(StatusCode::OK, "\"1\"", b"one"));
            let asked = pages.ask(&mut outgoing());
            pages.take(asked, reply(status, tag, body));
            assert_eq!(tags.wrong().is_some(), wrong, "{status} {tag}");
        }
    }
}
