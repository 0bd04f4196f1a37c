//! Bearer tokens of wakes: who holds one may report for this wake of this subscription, until
//! it expires.
//!
//! ```text
//! base64url( 1 | incarnation u64 | generation u64 | expiry u64 | nonce 16 | HMAC-SHA-256 32 )
//! ```
//! Numbers are big-endian. The subscription's name is part of what the HMAC covers and not of
//! the token. The key is stored, so a token outlives a restart.
//!
//! A token lasts a day, and a report does not renew it: the answer of a report is fixed by the
//! protocol and has no room for another one. What ends a wake in time is its lease and its
//! generation, which the engine checks; the expiry bounds how long a leaked token is worth
//! anything. A worker that needs more than a day for one wake ends it in between and is woken
//! again.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::hmac;
use weir_engine::subscribe::{Credential, SubscriptionId};
use weir_io::{Clock, Entropy};

const VERSION: u8 = 1;
const NONCE_BYTES: usize = 16;
const CLAIMS_BYTES: usize = 1 + 8 + 8 + 8 + NONCE_BYTES;
const TAG_BYTES: usize = 32;
/// How long a token holds: much longer than any lease, and than any work of one wake should take.
const VALID_SECONDS: u64 = 24 * 3600;
/// Keeps these HMACs apart from any other use of the key.
const PURPOSE: &[u8] = b"streamweir wake token\0";

/// Why a token gives no right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadToken {
    #[error("the token is not one of this subscription")]
    Invalid,
    #[error("the token has expired")]
    Expired,
}

/// Issues and checks tokens.
#[derive(Clone)]
pub(crate) struct Tokens {
    key: hmac::Key,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Tokens {
    pub(crate) fn new(key: &[u8; 32], clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), clock, entropy }
    }

    /// A token for one wake.
    pub(crate) fn issue(&self, id: &SubscriptionId, credential: Credential) -> String {
        let expiry = self.now().saturating_add(VALID_SECONDS);
        let mut nonce = [0; NONCE_BYTES];
        self.entropy.fill(&mut nonce);
        let mut token = Vec::with_capacity(CLAIMS_BYTES + TAG_BYTES);
        token.push(VERSION);
        token.extend_from_slice(&credential.incarnation.to_be_bytes());
        token.extend_from_slice(&credential.generation.to_be_bytes());
        token.extend_from_slice(&expiry.to_be_bytes());
        token.extend_from_slice(&nonce);
        let tag = hmac::sign(&self.key, &covered(&token, id));
        token.extend_from_slice(tag.as_ref());
        BASE64_URL_SAFE_NO_PAD.encode(token)
    }

    /// What a token says, if it was issued here for this subscription and holds. Takes the same
    /// time whatever the difference.
    pub(crate) fn check(&self, id: &SubscriptionId, token: &str) -> Result<Credential, BadToken> {
        let token = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| BadToken::Invalid)?;
        let (claims, tag) = token.split_at_checked(CLAIMS_BYTES).ok_or(BadToken::Invalid)?;
        let [VERSION, claims_rest @ ..] = claims else { return Err(BadToken::Invalid) };
        hmac::verify(&self.key, &covered(claims, id), tag).map_err(|_| BadToken::Invalid)?;
        let number = |at: usize| {
            let bytes = claims_rest.get(at..at + 8).and_then(|it| it.try_into().ok());
            u64::from_be_bytes(bytes.expect("the length of the claims is fixed"))
        };
        if number(16) <= self.now() {
            return Err(BadToken::Expired);
        }
        Ok(Credential { incarnation: number(0), generation: number(8) })
    }

    fn now(&self) -> u64 {
        self.clock.wall_ms() / 1000
    }
}

/// What the HMAC covers. Purpose and claims have fixed lengths, so the name can't reach into them.
fn covered(claims: &[u8], id: &SubscriptionId) -> Vec<u8> {
    [PURPOSE, claims, id.as_str().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use weir_io::memory::Machine;

    use super::*;

    const CREDENTIAL: Credential = Credential { incarnation: 7, generation: u64::MAX };

    fn id(text: &str) -> SubscriptionId {
        SubscriptionId::new(text).expect("a name")
    }

    fn tokens(machine: &Machine, key: u8) -> Tokens {
        let world = machine.boot(Duration::ZERO);
        Tokens::new(&[key; 32], world.clock, world.entropy)
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_speaks_for_one_subscription_and_holds_for_a_day() {
        let machine = Machine::new(1);
        let ours = tokens(&machine, 1);
        let token = ours.issue(&id("a"), CREDENTIAL);
        assert_eq!(ours.check(&id("a"), &token), Ok(CREDENTIAL));
        assert_ne!(token, ours.issue(&id("a"), CREDENTIAL), "each has a nonce");
        assert_eq!(tokens(&machine, 1).check(&id("a"), &token), Ok(CREDENTIAL), "after a restart");
        assert_eq!(ours.check(&id("b"), &token), Err(BadToken::Invalid));
        assert_eq!(tokens(&machine, 2).check(&id("a"), &token), Err(BadToken::Invalid));
        machine.jump_wall(24 * 3_600_000 - 1_000);
        assert_eq!(ours.check(&id("a"), &token), Ok(CREDENTIAL));
        machine.jump_wall(1_000);
        assert_eq!(ours.check(&id("a"), &token), Err(BadToken::Expired));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_token_is_invalid() {
        let tokens = tokens(&Machine::new(1), 1);
        let token = tokens.issue(&id("a"), CREDENTIAL);
        let padded = format!("{token}=");
        for text in ["", "a", "Bearer", &token[1..], &token[..token.len() - 4], padded.as_str()] {
            assert_eq!(tokens.check(&id("a"), text), Err(BadToken::Invalid), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_changed_token_is_invalid(at in 0..CLAIMS_BYTES + TAG_BYTES, bit in 0..8_u32) {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_time().build().expect("a runtime");
            let _inside = runtime.enter();
            let tokens = tokens(&Machine::new(1), 1);
            let token = tokens.issue(&id("a"), CREDENTIAL);
            let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(token).expect("base64url");
            bytes[at] ^= 1 << bit;
            let token = BASE64_URL_SAFE_NO_PAD.encode(bytes);
            prop_assert_eq!(tokens.check(&id("a"), &token), Err(BadToken::Invalid));
        }

        #[test]
        fn never_panics_and_guesses_no_token(text in ".*") {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_time().build().expect("a runtime");
            let _inside = runtime.enter();
            prop_assert!(tokens(&Machine::new(1), 1).check(&id("a"), &text).is_err());
        }
    }
}
