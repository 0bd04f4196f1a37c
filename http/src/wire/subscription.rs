//! What subscriptions look like in answers and in webhooks (protocol §17.2, §17.6–17.8).
//! What clients send about them is read in [`body`].

pub(crate) mod body;

use serde_json::{Map, Value, json};
use weir_engine::{
    subscribe::{Delivery, Link, LinkType, Links, SubscriptionView, Wake, WakeId},
    types::{Offset, OffsetFormat},
};

use super::date;

/// Below the base that the client sees.
const KEYS_PATH: &str = "/v1/stream/__ds/jwks.json";
/// Before the digits of a wake id.
const WAKE_PREFIX: &str = "w_";

/// What an answer needs to know besides the subscription.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    /// Where the client sees this server.
    pub(crate) base: &'a str,
    /// Names the key that webhooks are signed with now.
    pub(crate) kid: &'a str,
    /// How offsets are written.
    pub(crate) format: OffsetFormat,
}

/// The links as `streams` of a webhook, of a claim and of a subscription.
pub(crate) fn links_json(links: &Links, format: OffsetFormat) -> Value {
    links.listed.iter().map(|link| link_json(link, format)).collect()
}

fn link_json(link: &Link, format: OffsetFormat) -> Value {
    // The engine calls "nothing yet" what the protocol spells -1.
    let acked = if link.acked == Offset::START { "-1".to_owned() } else { link.acked.mint(format) };
    json!({
        "path": link.path.as_str(),
        "link_type": match link.kind {
            LinkType::Glob => "glob",
            LinkType::Explicit => "explicit",
        },
        "acked_offset": acked,
        "tail_offset": link.tail.mint(format),
        "has_pending": link.has_pending(),
    })
}

/// The answer to `PUT` and `GET`.
pub(crate) fn view_json(view: &SubscriptionView, surroundings: Surroundings<'_>) -> Value {
    let config = &view.config;
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    set("id", config.id.as_str().into());
    set("subscription_id", config.id.as_str().into());
    if let Some(pattern) = &config.pattern {
        set("pattern", pattern.as_str().into());
    }
    set("streams", links_json(&view.links, surroundings.format));
    set("pending_count", view.links.pending.into());
    match &config.delivery {
        Delivery::Webhook { url } => {
            set("type", "webhook".into());
            let jwks_url = format!("{}{KEYS_PATH}", surroundings.base);
            let signing =
                json!({ "alg": "ed25519", "kid": surroundings.kid, "jwks_url": jwks_url });
            set("webhook", json!({ "url": url, "signing": signing }));
        }
        Delivery::PullWake { wake_stream } => {
            set("type", "pull-wake".into());
            set("wake_stream", wake_stream.as_str().into());
        }
    }
    set("lease_ttl_ms", config.lease_ttl_ms.into());
    set("created_at", date::rfc3339(view.created).into());
    set("status", if view.failing { "failed" } else { "active" }.into());
    if let Some(description) = &config.description {
        set("description", description.as_str().into());
    }
    Value::Object(fields)
}

/// The answer to a claim.
pub(crate) fn claim_json(wake: &Wake, token: &str, format: OffsetFormat) -> Value {
    json!({
        "wake_id": wake_id(wake.wake_id),
        "generation": wake.generation,
        "token": token,
        "streams": links_json(&wake.links, format),
        "lease_ttl_ms": wake.lease_ttl_ms,
        "pending_count": wake.links.pending,
    })
}

/// `w_` and 24 hex digits.
pub(crate) fn wake_id(id: WakeId) -> String {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digits = id.0.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    let digits = digits.map(|digit| char::from(HEX[usize::from(digit)]));
    WAKE_PREFIX.chars().chain(digits).collect()
}

/// Reads what [`wake_id`] writes, and nothing else.
pub(crate) fn parse_wake_id(text: &str) -> Option<WakeId> {
    let digits = text.strip_prefix(WAKE_PREFIX)?.as_bytes();
    let mut id = WakeId([0; 12]);
    if digits.len() != id.0.len() * 2 {
        return None;
    }
    for (byte, pair) in id.0.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(id)
}

const fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use weir_engine::{
        subscribe::{Pattern, Subscribe, SubscriptionId},
        types::{Epoch, Seq, StreamName, WallMs},
    };

    use super::*;

    fn name(text: &str) -> StreamName {
        StreamName::new(text).expect("valid")
    }

    fn at(next: u64) -> Offset {
        Offset { epoch: Epoch::ZERO, next: Seq::new(next) }
    }

    fn links() -> Links {
        let link = |path, kind, acked, tail| Link { path: name(path), kind, acked, tail };
        let listed = vec![
            link("a", LinkType::Glob, Offset::START, at(2)),
            link("b/c", LinkType::Explicit, at(1), at(1)),
        ];
        Links { listed, pending: 1 }
    }

    fn view(delivery: Delivery, pattern: Option<&str>, description: Option<&str>) -> Value {
        let config = Subscribe {
            id: SubscriptionId::new("s 1").expect("valid"),
            pattern: pattern.map(|it| Pattern::new(it).expect("valid")),
            streams: vec![name("b/c")],
            delivery,
            lease_ttl_ms: 30_000,
            description: description.map(str::to_owned),
            base: None,
        };
        let view = SubscriptionView {
            config: Arc::new(config),
            created: WallMs::new(1000),
            failing: pattern.is_none(),
            links: links(),
        };
        let format = OffsetFormat::Reference;
        view_json(&view, Surroundings { base: "https://h/x", kid: "ds_k", format })
    }

    #[test]
    fn links_say_how_far_the_worker_is_and_how_far_the_stream() {
        let expect = json!([
            {
                "path": "a", "link_type": "glob", "acked_offset": "-1",
                "tail_offset": "0000000000000000_0000000000000004", "has_pending": true,
            },
            {
                "path": "b/c", "link_type": "explicit",
                "acked_offset": "0000000000000000_0000000000000002",
                "tail_offset": "0000000000000000_0000000000000002", "has_pending": false,
            },
        ]);
        assert_eq!(links_json(&links(), OffsetFormat::Reference), expect);
    }

    #[test]
    fn a_webhook_subscription_shows_its_key_and_no_secret() {
        let webhook = Delivery::Webhook { url: "https://w/".into() };
        let expect = json!({
            "id": "s 1", "subscription_id": "s 1", "type": "webhook", "pattern": "e/*",
            "streams": links_json(&links(), OffsetFormat::Reference), "pending_count": 1,
            "webhook": { "url": "https://w/", "signing": {
                "alg": "ed25519", "kid": "ds_k",
                "jwks_url": "https://h/x/v1/stream/__ds/jwks.json",
            }},
            "lease_ttl_ms": 30_000, "created_at": "1970-01-01T00:00:01.000Z",
            "status": "active", "description": "d",
        });
        assert_eq!(view(webhook, Some("e/*"), Some("d")), expect);
    }

    #[test]
    fn a_pull_wake_subscription_shows_its_stream_and_what_was_not_given_is_not_there() {
        let view = view(Delivery::PullWake { wake_stream: name("w/1") }, None, None);
        assert_eq!((&view["type"], &view["wake_stream"]), (&json!("pull-wake"), &json!("w/1")));
        assert_eq!(view["status"], "failed");
        for absent in ["webhook", "pattern", "description", "webhook_secret"] {
            assert_eq!(view.get(absent), None, "{absent}");
        }
    }

    #[test]
    fn a_claim_hands_out_a_token() {
        let wake = Wake {
            incarnation: 1,
            wake_id: WakeId([0xab; 12]),
            generation: 3,
            lease_ttl_ms: 1000,
            links: links(),
        };
        let expect = json!({
            "wake_id": format!("w_{}", "ab".repeat(12)), "generation": 3, "token": "t",
            "streams": links_json(&links(), OffsetFormat::Peer), "lease_ttl_ms": 1000,
            "pending_count": 1,
        });
        assert_eq!(claim_json(&wake, "t", OffsetFormat::Peer), expect);
    }

    #[test]
    fn other_texts_are_no_wake_ids() {
        let upper = format!("w_{}", "AB".repeat(12));
        let long = format!("w_{}", "a".repeat(25));
        for text in ["", "w_", "w_ab", &upper, &long, "x_aaaaaaaaaaaaaaaaaaaaaaaa", "w_ééééééééééé"]
        {
            assert_eq!(parse_wake_id(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn wake_ids_come_back(bytes: [u8; 12]) {
            let text = wake_id(WakeId(bytes));
            prop_assert_eq!(text.len(), 26);
            prop_assert_eq!(parse_wake_id(&text), Some(WakeId(bytes)));
        }
    }
}
