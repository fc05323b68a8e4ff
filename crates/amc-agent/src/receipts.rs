//! Receipts as an agent meets them: in the headers of an answer, kept by request id, verified under
//! a monitor's key that the agent was given beforehand.
//!
//! A verified receipt proves that the monitor signed it. That its event stands in the log is proven
//! by whoever has the log (`amc receipt verify`).

use std::collections::{BTreeMap, VecDeque};

use amc_core::{RequestId, limits};
use amc_crypto::jws::{Receipt, ReceiptClaims, ReceiptError, ReceiptTrust};
use amc_crypto::{Unverified, Verified, VerifierKey};

/// The id that the gateway gave to the call. On every answer to a recorded call.
pub const REQUEST_ID_HEADER: &str = "x-amc-request-id";
/// The receipt of the answer. Only where the answer's length is known and bounded; others come by
/// trailer of the same name, or from [`RECEIPT_URL_HEADER`].
pub const RECEIPT_HEADER: &str = "x-amc-receipt";
/// The receipt of the request.
pub const REQUEST_RECEIPT_HEADER: &str = "x-amc-request-receipt";
/// Path at the gateway where both receipts of the call can be fetched with the lease.
pub const RECEIPT_URL_HEADER: &str = "x-amc-receipt-url";
/// The monitor's verifier key, to compare with the pinned one; never to trust by itself.
pub const MONITOR_KEY_HEADER: &str = "x-amc-monitor-key";

/// Calls whose receipts a [`ReceiptBook`] keeps: two receipts of at most
/// [`limits::RECEIPT_BYTES_MAX`] each make 64 MiB at the very worst, about 8 MiB in practice.
pub const CALLS_MAX: usize = 4096;

/// The receipts of one call, unverified, as they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipts {
    /// Of the request.
    pub request: Option<String>,
    /// Of the answer.
    pub response: Option<String>,
}

/// Receipts by request id. It keeps the newest [`CALLS_MAX`] calls and forgets older ones.
#[derive(Debug, Default)]
pub struct ReceiptBook {
    calls: BTreeMap<RequestId, Receipts>,
    order: VecDeque<RequestId>,
}

impl ReceiptBook {
    /// An empty book.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the headers (or trailers) of an answer: pairs of name and value, names in any case.
    /// Gives the call's request id; `None` when the answer did not come through a gateway.
    ///
    /// What is no id or too long for a receipt is left out: an answer's headers are not to be trusted.
    pub fn take<'a>(&mut self, headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<RequestId> {
        let mut found = Receipts::default();
        let mut id = None;
        for (name, value) in headers {
            if name.eq_ignore_ascii_case(REQUEST_ID_HEADER) {
                id = RequestId::new(value).ok();
            } else if name.eq_ignore_ascii_case(RECEIPT_HEADER) {
                found.response = bounded(value);
            } else if name.eq_ignore_ascii_case(REQUEST_RECEIPT_HEADER) {
                found.request = bounded(value);
            }
        }
        let id = id?;
        self.add(id.clone(), found);
        Some(id)
    }

    /// Adds receipts that came another way, in a trailer or from the receipt URL. Those that the call
    /// has already stay unless there is a new one.
    pub fn add(&mut self, id: RequestId, receipts: Receipts) {
        if !self.calls.contains_key(&id) {
            if self.order.len() == CALLS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.calls.remove(&oldest);
            }
            self.order.push_back(id.clone());
        }
        let call = self.calls.entry(id).or_default();
        call.request = receipts.request.or(call.request.take());
        call.response = receipts.response.or(call.response.take());
    }

    /// The receipts of a call.
    pub fn call(&self, id: &RequestId) -> Option<&Receipts> {
        self.calls.get(id)
    }

    /// How many calls it keeps.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether it keeps none.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }
}

fn bounded(value: &str) -> Option<String> {
    (value.len() <= limits::RECEIPT_BYTES_MAX).then(|| value.to_owned())
}

/// Verifies a receipt under pinned monitor keys.
///
/// # Errors
/// [`ReceiptError`] when it is no receipt, names a key that is not pinned, or its signature fails.
pub fn verify(receipt: &str, pinned: &[VerifierKey]) -> Result<Verified<ReceiptClaims>, ReceiptError> {
    Unverified::new(Receipt::parse(receipt)?).verify(&ReceiptTrust { keys: pinned })
}

#[cfg(test)]
mod tests {
    use amc_core::{AgentId, SessionId};
    use amc_crypto::jws::{ReceiptKind, assemble, signing_input};
    use amc_crypto::note::KeyKind;
    use amc_crypto::{PublicKey, Signature, sha256};
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    fn key(seed: u8) -> (SigningKey, VerifierKey) {
        let signing = SigningKey::from_bytes(&[seed; 32]);
        let public = PublicKey::from_bytes(&signing.verifying_key().to_bytes()).expect("a good key");
        let verifier = VerifierKey::new("acme/evidence", KeyKind::Ed25519, public).expect("a good name");
        (signing, verifier)
    }

    fn receipt(seed: u8) -> String {
        let (signing, verifier) = key(seed);
        let claims = ReceiptClaims {
            v: 1,
            receipt_id: "rcpt-1".into(),
            kind: ReceiptKind::LlmResponse,
            ts: "2026-01-02T03:04:05Z".into(),
            agent_id: AgentId::new("support").expect("an id"),
            session_id: SessionId([7; 16]),
            request_id: "req-1".into(),
            provider: "openai".into(),
            model: None,
            log: "acme/evidence".into(),
            event_index: 4,
            event_hash: sha256(b"event"),
            body_sha256: sha256(b"body"),
        };
        let input = signing_input(&verifier, &claims);
        assemble(&input, &Signature(signing.sign(input.as_bytes()).to_bytes()))
    }

    #[test]
    fn receipts_are_kept_by_request_id_and_verify() {
        let text = receipt(1);
        let mut book = ReceiptBook::new();
        let headers = [("X-AMC-Request-Id", "req-1"), ("content-type", "text/plain"), ("X-Amc-Receipt", &text)];
        let id = book.take(headers).expect("the gateway gave an id");
        let kept = book.call(&id).expect("the call is kept");
        assert_eq!(kept, &Receipts { request: None, response: Some(text.clone()) });
        let claims = verify(kept.response.as_deref().expect("a receipt"), &[key(1).1]).expect("it verifies");
        assert_eq!(claims.request_id, id.as_str());

        // The request's receipt comes later; the answer's stays.
        book.add(id.clone(), Receipts { request: Some("later".into()), response: None });
        assert_eq!(book.call(&id), Some(&Receipts { request: Some("later".into()), response: Some(text) }));
        assert_eq!(book.len(), 1);
    }

    #[test]
    fn an_unpinned_key_a_changed_claim_and_no_jws_are_refused() {
        let text = receipt(1);
        assert!(matches!(verify(&text, &[key(2).1]), Err(ReceiptError::UnknownKey(_))));
        assert!(matches!(verify(&text, &[]), Err(ReceiptError::UnknownKey(_))));
        assert!(matches!(verify("not.a-receipt", &[key(1).1]), Err(ReceiptError::Malformed(_))));

        let other = receipt(2);
        let (head, _) = text.rsplit_once('.').expect("three parts");
        let (_, signature) = other.rsplit_once('.').expect("three parts");
        let mixed = format!("{head}.{signature}");
        assert!(matches!(verify(&mixed, &[key(1).1]), Err(ReceiptError::BadSignature(_))));
    }

    #[test]
    fn an_answer_from_elsewhere_and_hostile_headers_leave_nothing() {
        let mut book = ReceiptBook::new();
        assert_eq!(book.take([("content-type", "text/plain"), (RECEIPT_HEADER, "a.b.c")]), None);
        assert_eq!(book.take([(REQUEST_ID_HEADER, "../../etc/passwd"), (RECEIPT_HEADER, "a.b.c")]), None);
        assert!(book.is_empty());

        let long = "a".repeat(limits::RECEIPT_BYTES_MAX + 1);
        let id = book.take([(REQUEST_ID_HEADER, "req-1"), (RECEIPT_HEADER, &long)]).expect("the id is good");
        assert_eq!(book.call(&id), Some(&Receipts::default()));
    }

    #[test]
    fn the_oldest_call_is_forgotten_at_the_bound() {
        let mut book = ReceiptBook::new();
        let id = |number: usize| RequestId::new(format!("req-{number}")).expect("an id");
        for number in 0..=CALLS_MAX {
            book.add(id(number), Receipts::default());
        }
        assert_eq!(book.len(), CALLS_MAX);
        assert_eq!((book.call(&id(0)), book.call(&id(1)).is_some()), (None, true));
    }
}
