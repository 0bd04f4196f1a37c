//! What a webhook says, and what an answer to it means (protocol §17.6). Pure.

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use weir_engine::{
    subscribe::{Delivered, SubscriptionId, Wake},
    types::OffsetFormat,
};

use super::client::Answer;
use crate::wire::subscription::{links_json, wake_id};

/// What stands for itself in a segment of a URL.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where receivers find this server, whoever made their subscription.
pub(super) struct Bases {
    /// The operator's word.
    pub(super) public: Option<String>,
    /// Where the server listens.
    pub(super) own: String,
}

impl Bases {
    /// For the receiver of a subscription that was made by way of `made`: the operator's word
    /// first, else the way that its maker came.
    pub(super) fn of<'a>(&'a self, made: Option<&'a str>) -> &'a str {
        self.public.as_deref().or(made).unwrap_or(&self.own)
    }
}

/// Where the receiver of a subscription's webhooks reports.
pub(super) fn callback_url(base: &str, id: &SubscriptionId) -> String {
    let id = utf8_percent_encode(id.as_str(), SEGMENT);
    format!("{base}/v1/stream/__ds/subscriptions/{id}/callback")
}

/// The body of a webhook.
pub(super) fn body(
    id: &SubscriptionId,
    wake: &Wake,
    callback_url: &str,
    token: &str,
    format: OffsetFormat,
) -> Bytes {
    let body = json!({
        "subscription_id": id.as_str(),
        "wake_id": wake_id(wake.wake_id),
        "generation": wake.generation,
        "streams": links_json(&wake.links, format),
        "pending_count": wake.links.pending,
        "callback_url": callback_url,
        "callback_token": token,
    });
    body.to_string().into()
}

/// What an answer means. Anything but 2xx asks for another try: nothing is followed, and a
/// receiver that is gone for good may be there again tomorrow.
pub(super) fn meaning(answer: &Answer) -> Delivered {
    if !(200..300).contains(&answer.status) {
        return Delivered::Failed;
    }
    let body = answer.body.as_deref().unwrap_or_default();
    let body: Option<Value> = serde_json::from_slice(body).ok();
    let done = body.as_ref().and_then(|it| it.as_object()).and_then(|it| it.get("done"));
    if done == Some(&Value::Bool(true)) { Delivered::Done } else { Delivered::Accepted }
}

#[cfg(test)]
mod tests {
    use weir_engine::{
        subscribe::{Link, LinkType, Links, WakeId},
        types::{Epoch, Offset, Seq, StreamName},
    };

    use super::*;

    #[test]
    fn a_webhook_says_what_there_is_to_do_and_where_to_report() {
        let at = |next| Offset { epoch: Epoch::ZERO, next: Seq::new(next) };
        let link = |name, kind, acked, tail| Link {
            path: StreamName::new(name).expect("a name"),
            kind,
            acked: at(acked),
            tail: at(tail),
        };
        let listed = vec![link("a/b", LinkType::Glob, 0, 2), link("c", LinkType::Explicit, 1, 1)];
        let wake = Wake {
            incarnation: 1,
            wake_id: WakeId([0xab; 12]),
            generation: 7,
            lease_ttl_ms: 1000,
            links: Links { listed, pending: 1 },
        };
        let id = SubscriptionId::new("a b%é").expect("a name");
        let url = callback_url("https://ds.test", &id);
        let body = body(&id, &wake, &url, "secret", OffsetFormat::Reference);
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let expect = json!({
            "subscription_id": "a b%é",
            "wake_id": "w_abababababababababababab",
            "generation": 7,
            "streams": [
                {
                    "path": "a/b",
                    "link_type": "glob",
                    "acked_offset": "-1",
                    "tail_offset": "0000000000000000_0000000000000004",
                    "has_pending": true,
                },
                {
                    "path": "c",
                    "link_type": "explicit",
                    "acked_offset": "0000000000000000_0000000000000002",
                    "tail_offset": "0000000000000000_0000000000000002",
                    "has_pending": false,
                },
            ],
            "pending_count": 1,
            "callback_url":
                "https://ds.test/v1/stream/__ds/subscriptions/a%20b%25%C3%A9/callback",
            "callback_token": "secret",
        });
        assert_eq!(body, expect);
    }

    #[test]
    fn a_receiver_reports_by_the_way_that_the_maker_came_unless_the_operator_says_another() {
        let bases = |public: Option<&str>| {
            let own = "http://127.0.0.1:1".to_owned();
            Bases { public: public.map(str::to_owned), own }
        };
        for (public, made, expect) in [
            (Some("https://p"), Some("https://m"), "https://p"),
            (None, Some("https://m"), "https://m"),
            (None, None, "http://127.0.0.1:1"),
        ] {
            assert_eq!(bases(public).of(made), expect);
        }
    }

    #[test]
    fn only_done_in_so_many_words_is_done() {
        for (status, body, expect) in [
            (200, Some(r#"{"done":true}"#), Delivered::Done),
            (299, Some(r#" {"x":[1],"done":true} "#), Delivered::Done),
            (200, Some(r#"{"done":false}"#), Delivered::Accepted),
            (200, Some(r#"{"done":"true"}"#), Delivered::Accepted),
            (200, Some(r#"{"done":1}"#), Delivered::Accepted),
            (200, Some(r#"[{"done":true}]"#), Delivered::Accepted),
            (200, Some(r#"{"done":true"#), Delivered::Accepted),
            (200, Some("ok"), Delivered::Accepted),
            (204, Some(""), Delivered::Accepted),
            (200, None, Delivered::Accepted),
            (199, Some(r#"{"done":true}"#), Delivered::Failed),
            (301, Some(r#"{"done":true}"#), Delivered::Failed),
            (404, Some(r#"{"done":true}"#), Delivered::Failed),
            (500, None, Delivered::Failed),
        ] {
            let answer = Answer { status, body: body.map(|it| Bytes::from_static(it.as_bytes())) };
            assert_eq!(meaning(&answer), expect, "{answer:?}");
        }
    }
}
