//! Signatures of deliveries: `Webhook-Signature: t=<unix seconds>,kid=<key>,ed25519=<signature>`
//! over the bytes `<t>.<raw body>`. Each attempt is signed anew, since receivers refuse old ones.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use hyper::header::HeaderValue;

use super::keys::SigningKey;

/// The header's value for a body sent at `seconds` since 1970.
pub(crate) fn header(key: &SigningKey, seconds: u64, body: &[u8]) -> HeaderValue {
    let time = seconds.to_string();
    let mut message = Vec::with_capacity(time.len() + 1 + body.len());
    message.extend_from_slice(time.as_bytes());
    message.push(b'.');
    message.extend_from_slice(body);
    let signature = BASE64_URL_SAFE_NO_PAD.encode(key.sign(&message));
    let text = format!("t={time},kid={},ed25519={signature}", key.kid());
    text.parse().expect("digits and base64 are visible ASCII")
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signature, Verifier as _, VerifyingKey};

    use super::*;

    #[test]
    fn another_library_verifies_what_is_signed() {
        let key = SigningKey::from_seed(&[7; 32]).expect("any seed is a key");
        let value = header(&key, 1_700_000_000, b"{\"a\":1}");
        let value = value.to_str().expect("ASCII");
        let (head, signature) = value.rsplit_once(",ed25519=").expect("three parts");
        assert_eq!(head, format!("t=1700000000,kid={}", key.kid()));
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).expect("unpadded base64url");
        let signature = Signature::from_slice(&signature).expect("64 bytes");
        let jwk = key.public().jwk();
        let public = BASE64_URL_SAFE_NO_PAD.decode(jwk["x"].as_str().expect("text"));
        let public = public.expect("unpadded base64url");
        let public = public.try_into().expect("32 bytes");
        let public = VerifyingKey::from_bytes(&public).expect("a point");
        public.verify(b"1700000000.{\"a\":1}", &signature).expect("the signature of these bytes");
        assert!(public.verify(b"1700000001.{\"a\":1}", &signature).is_err());
    }
}
